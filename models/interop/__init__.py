"""Import of detectors trained elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import MappingProxyType

from models.architectures import LoadedDetector
from models.interop import deepfakebench

__all__ = ["LAYOUTS", "import_detector"]

Reader = Callable[[str | os.PathLike[str]], LoadedDetector]

LAYOUTS: MappingProxyType[str, Reader] = MappingProxyType({deepfakebench.LAYOUT: deepfakebench.read_xception})
"""What can be imported: the name of a layout, and its reader."""


def import_detector(path: str | os.PathLike[str], layout: str) -> LoadedDetector:
    """Read a foreign checkpoint.

    Args:
        path: of the file.
        layout: one of `LAYOUTS`.

    Returns:
        The detector with the same logits, in eval mode; its `sha256` is that of the foreign file.

    Raises:
        ValueError: no such layout; the message lists what exists.
        CheckpointError: the file is not of that layout; the message names the keys.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}; available: {', '.join(LAYOUTS)}")
    return LAYOUTS[layout](path)
