"""Checkpoints stored as their difference from a pinned base: the small file, and the full checkpoint rebuilt from it.

A difference is a safetensors file whose `__metadata__` holds one key, `unmask`: a JSON object with

    format_version   of checkpoints; read by versions that know it
    base             name, sha256 of the base's file, and prefix: checkpoint tensor = prefix + name in the base
    sha256           of the whole checkpoint
    header           the whole checkpoint's safetensors header, character by character

Its tensors are those of the checkpoint that the base does not have bit for bit. A tensor is left out where the base's,
rounded to the dtype that the checkpoint stores it in (IEEE 754, to nearest, ties to even: fp32 to fp16 is how
`models.checkpoint.halved` stores matrices), has the very same bytes. Since the header is kept as it is, the whole
checkpoint comes back byte for byte, whatever version of safetensors or of Unmask builds it.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from models.atomic import atomic_write
from models.bases import Base, UnknownBaseError, find_base
from models.checkpoint import FORMAT_VERSION, METADATA_KEY, CheckpointError, read_checkpoint, read_metadata
from models.checkpoint_info import CheckpointInfo

# Where detectors keep their backbone's network.
BACKBONE_PREFIX = "backbone.net."
# No file can make us allocate more than this; the largest detectors have a third of a GB.
_MAX_WHOLE_BYTES = 8 << 30

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


class DifferenceError(CheckpointError):
    """A difference that cannot be made, read or applied; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What a difference's header says.

    Attributes:
        base_name: of the base.
        base_sha256: of the base's file.
        prefix: checkpoint tensor = prefix + name in the base.
        sha256: of the whole checkpoint.
        header: of the whole checkpoint, as text.
        info: in that header.
    """

    base_name: str
    base_sha256: str
    prefix: str
    sha256: str
    header: str
    info: CheckpointInfo


@dataclass(frozen=True, slots=True)
class _Place:
    """A tensor within the whole checkpoint: its bytes are at start..end behind the header."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int


def save_difference(
    checkpoint: str | os.PathLike[str],
    base: Base,
    path: str | os.PathLike[str],
    *,
    prefix: str = BACKBONE_PREFIX,
) -> str:
    """Write what a checkpoint has beyond a base. Equal checkpoints give equal bytes.

    Args:
        checkpoint: the whole one, as `save_checkpoint` wrote it.
        base: that the checkpoint was trained from.
        path: of the difference.
        prefix: of the base's tensors within the checkpoint.

    Returns:
        sha256 of the difference's file.

    Raises:
        DifferenceError: the checkpoint shares no tensor with the base.
        CheckpointError: not a checkpoint.
        WeightsUnavailableError: the base is not on this machine.
        OSError: it cannot be written; existing files are unchanged.
    """
    checkpoint = Path(checkpoint)
    whole = read_checkpoint(checkpoint)
    data = checkpoint.read_bytes()
    if hashlib.sha256(data).hexdigest() != whole.sha256:
        raise DifferenceError(f"{checkpoint}: changed while it was read")
    header = data[8 : 8 + int.from_bytes(data[:8], "little")].decode()
    state, places = base.read(), _places(header, str(checkpoint))
    stored: dict[str, Tensor] = {}
    for name, place in places.items():
        tensor = whole.weights[name]
        shared = _from_base(name, place, state, prefix)
        if shared is None or _bytes(shared) != _bytes(tensor):
            # Views of one buffer would share a storage.
            stored[name] = tensor.clone()
    if len(stored) == len(places):
        raise DifferenceError(
            f"{checkpoint}: shares no tensor with {base.name}, so nothing would be saved: was it trained from that "
            "base, with its backbone frozen?"
        )
    text = json.dumps(
        {
            "format_version": FORMAT_VERSION,
            "base": {"name": base.name, "sha256": base.sha256, "prefix": prefix},
            "sha256": whole.sha256,
            "header": header,
        }
    )
    small = bytes(safetensors.torch.save(stored, {METADATA_KEY: text}))
    with atomic_write(Path(path)) as file:
        file.write(small)
    return hashlib.sha256(small).hexdigest()


def read_difference(path: str | os.PathLike[str]) -> Difference:
    """Read a difference's header.

    Raises:
        CheckpointError: not a difference, or damaged.
    """
    path = Path(path)
    values = read_metadata(path)
    if "base" not in values:
        raise DifferenceError(f"{path}: a whole checkpoint, not a difference from a base")
    try:
        base, header = values["base"], values["header"]
        fields = json.loads(json.loads(header)["__metadata__"][METADATA_KEY])
        return Difference(
            str(base["name"]),
            str(base["sha256"]),
            str(base["prefix"]),
            str(values["sha256"]),
            str(header),
            CheckpointInfo.from_dict(fields),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DifferenceError(f"{path}: damaged difference: {type(error).__name__}: {error}") from error


def apply_difference(path: str | os.PathLike[str], target: str | os.PathLike[str]) -> str:
    """Make the whole checkpoint from a difference and its base, byte for byte as it was.

    Args:
        path: of the difference.
        target: of the whole checkpoint.

    Returns:
        sha256 of the whole checkpoint.

    Raises:
        DifferenceError: the difference is damaged, its base differs or is unknown here, or the result is not the
            checkpoint that the difference names. Nothing is written then.
        WeightsUnavailableError: the base is not on this machine, or its file is not the pinned one.
        OSError: the target cannot be written.
    """
    path = Path(path)
    difference = read_difference(path)
    try:
        base = find_base(difference.base_name)
    except UnknownBaseError as error:
        raise DifferenceError(f"{path}: {error}; update Unmask") from error
    if base.sha256 != difference.base_sha256:
        raise DifferenceError(
            f"{path}: made from the {base.name} with sha256 {difference.base_sha256}, and this version of Unmask "
            f"has the one with {base.sha256}"
        )
    data = _whole(path, difference, base.read())
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != difference.sha256:
        raise DifferenceError(
            f"{path}: gave a checkpoint with sha256 {sha256}, not {difference.sha256}: the difference or the base is "
            "damaged; nothing was written"
        )
    with atomic_write(Path(target)) as file:
        file.write(data)
    return sha256


def _whole(path: Path, difference: Difference, state: dict[str, Tensor]) -> bytearray:
    """The bytes of the whole checkpoint."""
    try:
        stored = safetensors.torch.load(path.read_bytes())
    except (OSError, safetensors.SafetensorError) as error:
        raise DifferenceError(f"{path}: damaged: {error}") from error
    header = difference.header.encode()
    places = _places(difference.header, str(path))
    if unknown := sorted(stored.keys() - places.keys()):
        raise DifferenceError(f"{path}: damaged: {unknown[0]} is not in the checkpoint")
    start = 8 + len(header)
    data = bytearray(start + max((place.end for place in places.values()), default=0))
    data[:8] = len(header).to_bytes(8, "little")
    data[8:start] = header
    for name, place in places.items():
        tensor = stored[name] if name in stored else _from_base(name, place, state, difference.prefix)
        if tensor is None:
            raise DifferenceError(f"{path}: neither the difference nor {difference.base_name} has a fitting {name}")
        values = _bytes(tensor)
        if len(values) != place.end - place.start:
            raise DifferenceError(f"{path}: damaged: {name} has {len(values)} bytes of {place.end - place.start}")
        data[start + place.start : start + place.end] = values
    return data


def _places(header: str, source: str) -> dict[str, _Place]:
    """The position of each tensor of a safetensors header."""
    try:
        entries: dict[str, Any] = json.loads(header)
        places = {
            name: _Place(_DTYPES[entry["dtype"]], tuple(entry["shape"]), *entry["data_offsets"])
            for name, entry in entries.items()
            if name != "__metadata__"
        }
        sound = all(0 <= place.start <= place.end <= _MAX_WHOLE_BYTES for place in places.values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DifferenceError(f"{source}: damaged header: {type(error).__name__}: {error}") from error
    if not sound:
        raise DifferenceError(f"{source}: damaged header: a tensor out of bounds")
    return places


def _from_base(name: str, place: _Place, state: dict[str, Tensor], prefix: str) -> Tensor | None:
    """The base's tensor as the checkpoint would store it; None where the base has no fitting one."""
    tensor = state.get(name.removeprefix(prefix)) if name.startswith(prefix) else None
    return None if tensor is None or tuple(tensor.shape) != place.shape else tensor.to(place.dtype)


def _bytes(tensor: Tensor) -> bytes:
    """Little-endian bytes, as safetensors stores them: equal if every bit is equal, also of zeros and NaN."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
