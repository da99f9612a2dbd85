"""Detectors by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from models.base import BaseModel
from models.checkpoint import Checkpoint, CheckpointError, CheckpointInfo, read_checkpoint
from models.config import ConfigError, ModelConfig
from models.zoo import resolve

_ARCHITECTURES: dict[str, type[BaseModel]] = {}
ModelClass = TypeVar("ModelClass", bound=type[BaseModel])


@dataclass(frozen=True, slots=True)
class LoadedDetector:
    """A whole detector, ready to score.

    Attributes:
        model: fp32, on the CPU, in eval mode.
        info: what its checkpoint says: calibration, thresholds, name.
        sha256: of the checkpoint's bytes.
    """

    model: BaseModel
    info: CheckpointInfo
    sha256: str


def register(name: str, config: type[ModelConfig]) -> Callable[[ModelClass], ModelClass]:
    """Class decorator: make a detector known as `name`, with options of type `config`.

    Raises:
        ValueError: the name is taken.
    """

    def add(cls: ModelClass) -> ModelClass:
        if name in _ARCHITECTURES:
            raise ValueError(f"architecture {name!r} is already registered")
        cls.architecture, cls.Config = name, config
        _ARCHITECTURES[name] = cls
        return cls

    return add


def list_architectures() -> list[str]:
    """Names of all architectures, sorted."""
    return sorted(_ARCHITECTURES)


def get_model(
    architecture: str,
    pretrained: bool | str | os.PathLike[str] = True,
    num_classes: int = 2,
    dropout_rate: float = 0.3,
    **config: Any,
) -> BaseModel:
    """Build a detector, in training mode as torch builds everything.

    Args:
        architecture: one of `list_architectures()`.
        pretrained: True: the backbone has the weights that timm names, the rest is random. False: all is random.
            A name of the zoo or a path: all weights, options and input spec come from that checkpoint; `config`
            overrides options that leave the weights their shapes, such as input_size.
        num_classes: logits for an image. Class 1 is fake.
        dropout_rate: before the classifier.
        **config: options of the architecture, the fields of its `Config`.

    Raises:
        ConfigError: an unknown architecture, option or backbone, or a value out of range; the message lists what
            exists.
        WeightsUnavailableError: the backbone's weights are not available.
        ZooError: `pretrained` is neither a named detector nor a file.
        CheckpointError: that file is not a checkpoint, or has another architecture or other shapes.
    """
    options = {"num_classes": num_classes, "dropout_rate": dropout_rate, **config}
    cls = _find(architecture)
    if isinstance(pretrained, bool):
        return cls(cls.Config.from_options(options), pretrained=pretrained)
    path = resolve(pretrained)
    checkpoint = read_checkpoint(path)
    if checkpoint.info.architecture != architecture:
        raise CheckpointError(f"{path}: holds a {checkpoint.info.architecture}, not a {architecture}")
    return _restore(checkpoint, options, str(path))


def load_detector(name_or_path: str | os.PathLike[str]) -> LoadedDetector:
    """The detector in a checkpoint: the architecture and options it names, its weights in fp32, in eval mode.

    Raises:
        ZooError: neither a named detector nor a file.
        CheckpointError: not a checkpoint, or its weights do not fit its options.
        ConfigError: it names an architecture or option that this version does not have.
    """
    path = resolve(name_or_path)
    checkpoint = read_checkpoint(path)
    return LoadedDetector(_restore(checkpoint, {}, str(path)).eval(), checkpoint.info, checkpoint.sha256)


def _find(architecture: str) -> type[BaseModel]:
    if architecture not in _ARCHITECTURES:
        raise ConfigError(f"unknown architecture {architecture!r}; available: {', '.join(list_architectures())}")
    return _ARCHITECTURES[architecture]


def _restore(checkpoint: Checkpoint, options: dict[str, Any], source: str) -> BaseModel:
    """The checkpoint's model, its options overridden by `options`."""
    info = checkpoint.info
    cls = _find(info.architecture)
    config = cls.Config.from_options(info.config | options)
    # The weights fit the size they were saved with; they are adapted to another size afterwards.
    saved_size = info.input_spec.size
    model = cls(cls.Config.from_options(config.to_dict() | {"input_size": saved_size}), pretrained=False)
    model.load_weights(checkpoint.weights, source, info.config)
    model.input_spec = info.input_spec
    if config.input_size != saved_size:
        model.set_input_size(config.input_size)
    return model
