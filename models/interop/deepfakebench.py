"""The `xception` detector of DeepfakeBench (Yan et al., 2023), read into our `xception` without neck and norm.

Its network is Cadene's port of Xception, of which timm's `legacy_xception` is another: layers, their order and the
eps of the norms are the same, and so are all names under `backbone.` except the classifier's. `last_linear` is
a plain layer, or the second of a sequence where it was trained with dropout. `adjust_channel` is in every file but
this detector does not use it.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.architectures import LoadedDetector, get_model
from models.base import BaseModel
from models.checkpoint import CheckpointError, CheckpointInfo
from models.spec import INCEPTION_MEAN, INCEPTION_STD, InputSpec, LandmarkTemplate

LAYOUT = "deepfakebench-xception"

SPEC = InputSpec(
    size=256,
    mean=INCEPTION_MEAN,
    std=INCEPTION_STD,
    # An approximation: their crops are rotated upright by a similarity that fits five of dlib's points to a template,
    # enlarged by 1.3. These are the proportions of dlib's mean face (eyes' and mouth's middles, as our landmarks are)
    # after that fit. Ours are not rotated.
    geometry=LandmarkTemplate(eye_distance=0.231, eyes_to_mouth=0.252, eyes_y=0.483),
    # As their warpAffine, which does not average when it shrinks.
    interpolation="bilinear",
)

_NOT_USED = "adjust_channel."
_NESTING = ("state_dict", "model")
# In the order in which wrappers add them.
_PREFIXES = ("module.", "backbone.")
_SHOWN = 5


def read_xception(path: str | os.PathLike[str]) -> LoadedDetector:
    """The detector in a file that DeepfakeBench's trainer wrote with `torch.save`; no code from it is run.

    Returns:
        An `xception` with the same logits (class 1 is fake), in eval mode, uncalibrated and without thresholds.

    Raises:
        CheckpointError: unreadable, or not the state dict of that detector; the message names the keys.
    """
    data = _read_bytes(path)
    foreign = _state_dict(path, data)
    sha256 = hashlib.sha256(data).hexdigest()
    model = get_model(
        "xception",
        pretrained=False,
        dropout_rate=0.0,
        input_size=SPEC.size,
        neck_width=0,
        last_norm=False,
    )
    model.load_weights(_renamed(foreign, model, path), str(path))
    model.input_spec = SPEC
    info = CheckpointInfo(
        architecture=model.architecture,
        config=model.config.to_dict(),
        input_spec=model.input_spec,
        name=LAYOUT,
        # The training versions are unknown, the source is known.
        versions={LAYOUT: f"sha256 {sha256}"},
    )
    return LoadedDetector(model.eval(), info, sha256)


def _read_bytes(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error


def _state_dict(path: str | os.PathLike[str], data: bytes) -> dict[str, Tensor]:
    """The tensors by the names they have in the file, inside a wrapping dict or not."""
    try:
        loaded: Any = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load can raise anything on foreign bytes
        cause = (str(error).splitlines() or [type(error).__name__])[0].partition(" Please use")[0]
        raise CheckpointError(f"{path}: not a file of tensors alone, as torch.save writes them: {cause}") from error
    if isinstance(loaded, Mapping):
        loaded = next((loaded[name] for name in _NESTING if isinstance(loaded.get(name), Mapping)), loaded)
    if not isinstance(loaded, Mapping) or not loaded:
        raise CheckpointError(f"{path}: holds a {type(loaded).__name__}, not a state dict; it was not imported")
    if invalid := [str(name) for name, value in loaded.items() if not isinstance(value, Tensor)]:
        raise CheckpointError(f"{path}: not a state dict: {_some(invalid)}: not tensors")
    return {str(name): tensor for name, tensor in loaded.items()}


def _renamed(foreign: Mapping[str, Tensor], model: BaseModel, path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The weights under our names.

    Raises:
        CheckpointError: keys that are missing, unknown, ambiguous or of another shape, as the file calls them.
    """
    expected = model.state_dict()
    found: dict[str, str] = {}
    problems = []
    for name in sorted(foreign):
        plain = _without_prefixes(name)
        if plain.startswith(_NOT_USED):
            continue
        ours = _our_name(plain)
        if ours not in expected:
            problems.append(f"{name} is unknown")
        elif ours in found:
            problems.append(f"{name} duplicates {found[ours]}")
        elif foreign[name].shape != expected[ours].shape:
            shape = list(foreign[name].shape)
            problems.append(f"{name} has shape {shape} instead of {list(expected[ours].shape)}")
        found.setdefault(ours, name)
    problems += [f"backbone.{_their_name(ours)} is missing" for ours in expected if ours not in found]
    if problems:
        raise CheckpointError(
            f"{path}: not the state dict of DeepfakeBench's xception with two classes, {len(problems)} keys differ: "
            f"{_some(problems, '; ')}"
        )
    return {ours: foreign[name] for ours, name in found.items()}


def _without_prefixes(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _our_name(plain: str) -> str:
    layer, _, tensor = plain.rpartition(".")
    return f"head.linear.{tensor}" if layer in ("last_linear", "last_linear.1") else f"backbone.net.{plain}"


def _their_name(ours: str) -> str:
    return ours.replace("head.linear.", "last_linear.").removeprefix("backbone.net.")


def _some(items: list[str], separator: str = ", ") -> str:
    rest = len(items) - _SHOWN
    return separator.join(items[:_SHOWN]) + (f"{separator}and {rest} more" if rest > 0 else "")
