"""The header of a checkpoint, read without torch and without its tensors (the format: `models.checkpoint`)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from models.checkpoint_info import CheckpointInfo
from models.errors import UnmaskError

FORMAT_VERSION = 1

# A single key: safetensors writes several in random order, and equal contents must give equal bytes.
METADATA_KEY = "unmask"
# The limit of safetensors itself: a file that claims a long header cannot make us allocate more.
_MAX_HEADER_BYTES = 100_000_000


class CheckpointError(UnmaskError):
    """A checkpoint that cannot be written or is not accepted; the message says why and what to do."""


def read_info(path: str | os.PathLike[str]) -> CheckpointInfo:
    """Read the header alone, which is quick whatever the size of the file.

    Raises:
        CheckpointError: as `read_checkpoint`, except for damage within the tensors.
    """
    path = Path(path)
    return parse_header(path, *_read_start(path))[1]


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON object in the header, of a whole checkpoint or of a difference (`models.difference`).

    Raises:
        CheckpointError: neither of the two, truncated, damaged, or of a newer format.
    """
    path = Path(path)
    return _parse_metadata(path, *_read_start(path))


def read_shapes(path: str | os.PathLike[str]) -> dict[str, tuple[int, ...]]:
    """The shapes of a checkpoint's tensors by name; of tied ones too.

    Raises:
        CheckpointError: as `read_info`.
    """
    path = Path(path)
    start, size_bytes = _read_start(path)
    tied = parse_header(path, start, size_bytes)[0]["tied"]
    entries = json.loads(start[8:])
    shapes = {name: tuple(entry["shape"]) for name, entry in entries.items() if name != "__metadata__"}
    return shapes | {name: shapes[stored] for name, stored in tied.items()}


def _read_start(path: Path) -> tuple[bytes, int]:
    """The header's bytes with the length before them, and the size of the file."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
            start += file.read(min(int.from_bytes(start, "little"), _MAX_HEADER_BYTES))
            return start, os.fstat(file.fileno()).st_size
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error


def parse_header(path: Path, start: bytes, size_bytes: int) -> tuple[dict[str, Any], CheckpointInfo]:
    """The JSON header and the info in it, from the first bytes of a file that has `size_bytes`."""
    header = _parse_metadata(path, start, size_bytes)
    if "base" in header:
        raise CheckpointError(
            f"{path}: a difference, not a whole detector: `unmask models build` makes the detector from it and its base"
        )
    try:
        return header, CheckpointInfo.from_dict(header)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _parse_metadata(path: Path, start: bytes, size_bytes: int) -> dict[str, Any]:
    """Unmask's JSON object in a safetensors header."""
    if not start:
        raise CheckpointError(f"{path}: the file is empty")
    length = int.from_bytes(start[:8], "little")
    if start[8:9] != b"{" or length > _MAX_HEADER_BYTES:
        raise CheckpointError(f"{path}: {_foreign_kind(start)}, not an Unmask checkpoint; it was not loaded")
    if 8 + length > size_bytes:
        raise CheckpointError(f"{path}: truncated within its header; fetch or save it again")
    try:
        raw = json.loads(start[8 : 8 + length])
        text = raw.pop("__metadata__", {}).get(METADATA_KEY)
        header = None if text is None else json.loads(text)
        expected_bytes = 8 + length + max((entry["data_offsets"][1] for entry in raw.values()), default=0)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged header: {error}") from error
    if header is None:
        raise CheckpointError(f"{path}: bare safetensors weights without Unmask's header, not a whole detector")
    if not isinstance(header, dict) or not isinstance(header.get("format_version"), int):
        raise CheckpointError(f"{path}: damaged header: it names no format version")
    if header["format_version"] > FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: has format {header['format_version']}, and this version of Unmask reads up to "
            f"{FORMAT_VERSION}; update Unmask"
        )
    if size_bytes != expected_bytes:
        raise CheckpointError(f"{path}: {size_bytes} bytes instead of {expected_bytes}: truncated or damaged")
    return header


def _foreign_kind(start: bytes) -> str:
    if start.startswith(b"PK\x03\x04") and start[30:40] == b"graph.json":
        return "a graph, which is used where it is next to its checkpoint under the same name"
    if start.startswith(b"PK\x03\x04"):
        return "a zip archive, such as torch.save writes"
    if start.startswith(b"\x80") and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a Python pickle"
    printable = start[:256].isascii() and b"\0" not in start[:256]
    return "a text file" if printable else "a file of an unknown kind"


# Of weights; anything else behind a dot is a part of the name.
_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")


def state_path(path: Path) -> Path:
    """Where the training state of a checkpoint is: `last.state` for `last.safetensors`, `run.e1.state` for `run.e1`."""
    stem = path.stem if path.suffix in _SUFFIXES else path.name
    return path.with_name(f"{stem}.state")
