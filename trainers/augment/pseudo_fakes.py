"""Pseudo-fakes by kind: forgeries made from real faces alone, each with the mask of what was changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from trainers.augment.autoencoders import load_autoencoders
from trainers.augment.blend_config import BlendConfig
from trainers.augment.blending import Blend, self_blend
from trainers.augment.face import Face
from trainers.augment.frequency import frequency
from trainers.augment.mesh_swap import mesh_swap
from trainers.augment.reenactment import reenactment
from trainers.augment.rerender import rerender

__all__ = ["KINDS", "WITH_DONOR", "Face", "Maker", "make", "require"]

# Makes a pseudo-fake from a face, a donor (another person's face) and a random generator.
Maker = Callable[[Face, Face, np.random.Generator, BlendConfig], Blend]


def _self_blend(face: Face, donor: Face, rng: np.random.Generator, config: BlendConfig) -> Blend:
    return self_blend(face.image, face.landmarks, rng, config, face.dense)


KINDS: Mapping[str, Maker] = {
    "self_blend": _self_blend,
    "mesh_swap": mesh_swap,
    "reenactment": reenactment,
    "rerender": rerender,
    "frequency": frequency,
}


# Kinds that use the donor.
WITH_DONOR = frozenset({"mesh_swap", "reenactment", "frequency"})


def make(kind: str, face: Face, donor: Face, rng: np.random.Generator, config: BlendConfig | None = None) -> Blend:
    """A pseudo-fake of one kind.

    Args:
        kind: a key of `KINDS`.
        face: the real to change.
        donor: a face of another person; ignored by kinds that are not in `WITH_DONOR`.
        rng: source of randomness.
        config: settings.

    Raises:
        ValueError: the kind does not exist; the message lists all.
        trainers.augment.autoencoders.AutoencodersMissingError: `rerender` without autoencoders.
    """
    if kind not in KINDS:
        raise ValueError(f"no pseudo-fake kind {kind!r}; available: {', '.join(KINDS)}")
    return KINDS[kind](face, donor, rng, config or BlendConfig())


def require(kind: str, config: BlendConfig) -> None:
    """Check that everything a kind needs exists, before a run starts.

    Raises:
        trainers.augment.autoencoders.AutoencodersMissingError: `rerender` without autoencoders.
    """
    if kind == "rerender":
        load_autoencoders(config.rerender.folder)
