"""Pictures of the docs stay small."""

from __future__ import annotations

from pathlib import Path


def check_size(path: Path, max_bytes: int) -> None:
    """Print the size of a picture.

    Raises:
        SystemExit: it is too large.
    """
    size = path.stat().st_size
    if size > max_bytes:
        raise SystemExit(f"{path.name} has {size:,} bytes, more than {max_bytes:,}: lower HEIGHT_PX")
    print(f"{path}: {size:,} bytes")
