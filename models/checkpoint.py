"""One file format for detectors: safetensors, with everything that is not a tensor as JSON in its header.

A checkpoint, whatever its suffix, is a safetensors file whose `__metadata__` holds one key, `unmask`: a JSON
object with the fields of `CheckpointInfo`, the format's version, the input spec's hash and the names of tied
tensors. For resuming, `<name>.state` is next to it: a `torch.save` file with the sha256 of its
weights. Loading runs no code from a file: safetensors holds none, and the state is read with
`weights_only=True`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from models.atomic import atomic_write, durable_rename
from models.checkpoint_header import (
    FORMAT_VERSION,
    METADATA_KEY,
    CheckpointError,
    parse_header,
    read_info,
    read_metadata,
    state_path,
)
from models.checkpoint_info import (
    MAX_PEOPLE,
    Calibration,
    CheckpointInfo,
    Thresholds,
    git_revision,
    library_versions,
)

__all__ = [
    "FORMAT_VERSION",
    "MAX_PEOPLE",
    "METADATA_KEY",
    "Calibration",
    "Checkpoint",
    "CheckpointError",
    "CheckpointInfo",
    "Thresholds",
    "git_revision",
    "halved",
    "library_versions",
    "read_checkpoint",
    "read_info",
    "read_metadata",
    "read_state",
    "save_checkpoint",
    "state_path",
    "weights_sha256",
]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint in memory.

    Attributes:
        info: what the header says.
        weights: a state dict on the CPU; tied names share one tensor.
        sha256: of the file's bytes.
    """

    info: CheckpointInfo
    weights: dict[str, torch.Tensor]
    sha256: str


def save_checkpoint(
    path: str | os.PathLike[str],
    *,
    weights: Mapping[str, torch.Tensor],
    info: CheckpointInfo,
    state: Mapping[str, Any] | None = None,
) -> str:
    """Write a checkpoint and, for resuming, its state. Equal weights and info give equal bytes.

    A crash at any moment leaves a pair that can be resumed, the old one or the new: the new state waits as
    `<name>.state.next` until its weights are in place, and `read_state` looks at both.

    Args:
        path: of the weights; missing folders are made.
        weights: a state dict, on any device; tied, shared and non-contiguous tensors are fine.
        info: what the header says.
        state: what resuming a training run needs: tensors, numbers, strings, and lists and dicts of them.

    Returns:
        sha256 of the weights file.

    Raises:
        CheckpointError: something could not be read again, so nothing was replaced.
        OSError: the disk is full or read-only; existing files are unchanged.
    """
    path = Path(path)
    if path.suffix == ".state":
        raise CheckpointError(f"{path}: the suffix .state is kept for training states; choose another one")
    data = _serialize(weights, info)
    sha256 = hashlib.sha256(data).hexdigest()
    if state is not None:
        _write_state(_next_state_path(path), state, sha256)
    with atomic_write(path) as file:
        file.write(data)
    if state is not None:
        durable_rename(_next_state_path(path), state_path(path))
    return sha256


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a whole checkpoint; its sha256 is of the exact bytes that the weights come from.

    Raises:
        CheckpointError: no such file, truncated, foreign, damaged, or of a newer format.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    header, info = parse_header(path, data, len(data))
    try:
        weights = safetensors.torch.load(data)
        weights |= {name: weights[stored] for name, stored in header["tied"].items()}
    except (safetensors.SafetensorError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path}: damaged: {error}") from error
    return Checkpoint(info, weights, hashlib.sha256(data).hexdigest())


def read_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the training state that belongs to the weights at `path`, onto the CPU.

    Raises:
        CheckpointError: it does not exist, is damaged, or belongs to other weights.
    """
    path = Path(path)
    read_info(path)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    states = [state for state in (state_path(path), _next_state_path(path), _former_state_path(path)) if state.exists()]
    if not states:
        raise CheckpointError(f"{path}: it has no training state, so it can score but not be resumed")
    for state in states:
        saved = _load_state(state)
        if saved["weights_sha256"] == sha256:
            return dict(saved["state"])
    raise CheckpointError(
        f"{states[0]}: belongs to other weights than {path.name} (sha256 {sha256}); "
        "resume from weights and a state that were saved together"
    )


def weights_sha256(weights: Mapping[str, torch.Tensor]) -> str:
    """A hash of weights in memory: over names, dtypes, shapes and values, in the order of the names.

    For weights that were never saved; a saved checkpoint is identified by the sha256 of its file.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        # A clone, since `contiguous` leaves an empty tensor its strides, and `view` stumbles over them.
        dense = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        digest.update(dense.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def halved(tensor: torch.Tensor) -> torch.Tensor:
    """In fp16, except vectors: the norms' statistics span more than fp16 holds, and are a hundredth of the bytes."""
    if tensor.ndim < 2 or not tensor.is_floating_point():
        return tensor
    half = tensor.half()
    return half if bool(half.isfinite().all()) else tensor


def _next_state_path(path: Path) -> Path:
    return path.with_name(f"{state_path(path).name}.next")


def _former_state_path(path: Path) -> Path:
    """Of versions that took everything from the last dot on for a suffix: `run.state` for `run.e1`."""
    return path.with_suffix(".state")


def _serialize(weights: Mapping[str, torch.Tensor], info: CheckpointInfo) -> bytes:
    """The bytes of the weights file; names that share one tensor are stored once and listed as tied."""
    stored: dict[str, torch.Tensor] = {}
    tied: dict[str, str] = {}
    names: dict[tuple[Any, ...], str] = {}
    storages: set[int] = set()
    for name, tensor in weights.items():
        if tensor.is_meta or tensor.layout is not torch.strided:
            raise CheckpointError(f"tensor {name!r}: only dense tensors that hold values can be saved")
        place = (tensor.data_ptr(), tensor.device, tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() and place in names:
            tied[name] = names[place]
            continue
        names[place] = name
        dense = tensor.detach().cpu().contiguous()
        # Different views of one storage are not tied: each is written whole.
        storage = dense.untyped_storage().data_ptr()
        stored[name] = dense.clone() if storage in storages else dense
        storages.add(storage)
    try:
        text = json.dumps({"format_version": FORMAT_VERSION, "tied": tied, **info.to_dict()}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"config, metrics and versions must be plain JSON values: {error}") from error
    try:
        return bytes(safetensors.torch.save(stored, {METADATA_KEY: text}))
    except (KeyError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"safetensors cannot hold one of the tensors: {error}") from error


def _write_state(path: Path, state: Mapping[str, Any], sha256: str) -> None:
    with atomic_write(path) as file:
        try:
            torch.save({"weights_sha256": sha256, "state": dict(state)}, file)
        except RuntimeError as error:  # of a full disk it says that positions do not match
            raise OSError(f"{path}: the state cannot be written, the disk may be full: {error}") from error
        file.flush()
        # A state that only a full unpickler could read must fail now, not when it is needed.
        _load_state(path, read_from=Path(file.name))


def _load_state(path: Path, *, read_from: Path | None = None) -> dict[str, Any]:
    try:
        # Mapped, not read, where it is only to be checked: the tensors stay on disk.
        source, mmap = read_from or path, read_from is not None
        saved = torch.load(source, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # torch.load can raise anything on damaged bytes
        # Keep only the cause from torch's message: its advice includes loading without the safeguard.
        lines = str(error).splitlines() or [type(error).__name__]
        cause = next((line.strip() for line in lines if "WeightsUnpickler error" in line), lines[0])
        cause = cause.partition(" Please use")[0]
        raise CheckpointError(
            f"{path}: not a training state of tensors, numbers, strings, lists and dicts alone: {cause}"
        ) from error
    if not isinstance(saved, dict) or not isinstance(saved.get("state"), dict) or "weights_sha256" not in saved:
        raise CheckpointError(f"{path}: not a training state written by save_checkpoint")
    return saved
