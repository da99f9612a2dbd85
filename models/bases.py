"""Pinned networks that a checkpoint may be stored as a difference from.

A base is a published file that this machine can get independently of Unmask, so its tensors need not be stored again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from models.errors import UnmaskError

State = dict[str, Tensor]


class UnknownBaseError(UnmaskError, ValueError):
    """No base of this name or for this backbone; the message lists what exists."""


@dataclass(frozen=True, slots=True)
class Base:
    """A pinned network.

    Attributes:
        name: that differences refer to it by.
        backbone: timm name of the network, without a tag.
        sha256: of the file that holds it, in hex.
        read: gives its tensors by timm's names, on the CPU. It checks the file against `sha256`, and raises
            `WeightsUnavailableError` where the file is missing or another one.
        install: the command that brings the file.
    """

    name: str
    backbone: str
    sha256: str
    read: Callable[[], State]
    install: str


_BASES: dict[str, Base] = {}


def register_base(base: Base) -> Base:
    """Make a base known by its name.

    Raises:
        ValueError: the name is taken.
    """
    if base.name in _BASES:
        raise ValueError(f"base {base.name!r} is already registered")
    _BASES[base.name] = base
    return base


def unregister_base(name: str) -> None:
    """Forget a base; does nothing if it is not registered."""
    _BASES.pop(name, None)


def list_bases() -> list[str]:
    """Names of all bases, sorted."""
    return sorted(_BASES)


def find_base(name: str) -> Base:
    """The base of this name.

    Raises:
        UnknownBaseError: it does not exist.
    """
    if name not in _BASES:
        raise UnknownBaseError(f"no base named {name!r}; available: {', '.join(list_bases())}")
    return _BASES[name]


def base_of_backbone(backbone: str) -> Base:
    """The base that holds a timm model, named with or without the tag of its weights.

    Raises:
        UnknownBaseError: none does.
    """
    plain = backbone.partition(".")[0]
    for name in list_bases():
        if _BASES[name].backbone == plain:
            return _BASES[name]
    known = ", ".join(f"{_BASES[name].backbone} ({name})" for name in list_bases())
    raise UnknownBaseError(f"no base holds the backbone {backbone!r}; available: {known}")


def _register_clip() -> None:
    from models import clip_package

    package = clip_package.PACKAGE
    register_base(
        Base("clip-vit-b16", clip_package.BACKBONE, clip_package.SHA256, clip_package.clip_state, package.install)
    )


_register_clip()
