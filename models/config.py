"""ModelConfig: the options every architecture has, checked when they are given."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal, Self, Union, get_args, get_origin, get_type_hints

from models.errors import UnmaskError


class ConfigError(UnmaskError, ValueError):
    """An option that does not exist or cannot have this value; the message lists what exists."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Options that all architectures share. Each architecture derives its own from it."""

    # timm model that extracts the spatial features; each architecture names its own.
    backbone: str
    # Logits for an image. Class 1 is fake.
    num_classes: int = 2
    # Share of the features dropped before the classifier, in training.
    dropout_rate: float = 0.3
    # Stochastic depth in training: the rate of the last block, falling linearly to 0 at the first.
    drop_path_rate: float = 0.0
    # Side of the square input in px.
    input_size: int = 224
    # `forward` runs under `torch.autocast` in what `models.precision` says the device computes fast.
    mixed_precision: bool = False

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            _check_type(name, getattr(self, name), hint)
        self.require(self.num_classes >= 1, "num_classes", "at least 1")
        self.require(0.0 <= self.dropout_rate < 1.0, "dropout_rate", "at least 0 and below 1")
        self.require(0.0 <= self.drop_path_rate < 1.0, "drop_path_rate", "at least 0 and below 1")
        self.require(self.input_size >= 32, "input_size", "at least 32 px")

    def require(self, holds: bool, option: str, expected: str) -> None:
        """Refuse the value of `option` unless the condition holds.

        Raises:
            ConfigError: it does not; the message names option, expected and given value.
        """
        if not holds:
            raise ConfigError(f"{option} must be {expected}, got {getattr(self, option)!r}")

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """The config with these options, the others at their defaults. Lists become tuples, as JSON has none.

        Raises:
            ConfigError: an unknown option, or a value of the wrong type or range.
        """
        defaults = {f.name: f.default for f in fields(cls)}
        if unknown := sorted(options.keys() - defaults.keys()):
            listed = ", ".join(
                name if default is MISSING else f"{name}={default!r}" for name, default in defaults.items()
            )
            raise ConfigError(f"unknown option {', '.join(unknown)}; available: {listed}")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, from which `from_options` makes an equal config."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(ModelConfig):
    """Options of architectures with attention layers of their own on top of the backbone."""

    # Rate within the attention layers; also applies to the backbone if it has stochastic depth.
    drop_path_rate: float = 0.1
    # Layers.
    depth: int = 2
    # Width of a token.
    width: int = 192
    # Heads of each attention; they divide the width.
    heads: int = 6
    # Hidden width of the feed-forward branches, in widths.
    mlp_ratio: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.depth >= 1, "depth", "at least 1")
        self.require(self.heads >= 1, "heads", "at least 1")
        self.require(self.width >= 1 and self.width % self.heads == 0, "width", f"a multiple of heads={self.heads}")
        self.require(self.mlp_ratio > 0, "mlp_ratio", "positive")


def _check_type(name: str, value: object, hint: Any) -> None:
    """Check a value against the few kinds of type that options have."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        if value not in args:
            raise ConfigError(f"{name} must be one of {', '.join(map(repr, args))}, got {value!r}")
    elif origin is tuple:
        if not isinstance(value, tuple) or not value:
            raise ConfigError(f"{name} must be a tuple of {args[0].__name__}s, got {value!r}")
        for item in value:
            _check_type(name, item, args[0])
    elif origin in (Union, types.UnionType):
        if value is not None:
            _check_type(name, value, next(arg for arg in args if arg is not type(None)))
    else:
        # bool is an int, and an int passes as a float, but True is not a size.
        accepted = (int, float) if hint is float else (hint,)
        if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
            raise ConfigError(f"{name} must be of type {hint.__name__}, got {value!r}")
