"""Pseudo-fakes by kind: forgeries made from real faces alone, each with the mask of what was changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.types import Floats, Image
from trainers.augment.blending import Blend, BlendConfig, self_blend


@dataclass(frozen=True, slots=True)
class Face:
    """A real face that a pseudo-fake is made from.

    Attributes:
        image: uint8 [H, W, 3], RGB.
        landmarks: float32 [5, 2], px: eyes, nose, corners of the mouth.
        dense: float32 [P, 2], px: a dense mesh of the face; None where it is unknown.
    """

    image: Image
    landmarks: Floats
    dense: Floats | None = None


# From a face, a donor (another person's face) and a generator of random numbers to a pseudo-fake.
Maker = Callable[[Face, Face, np.random.Generator, BlendConfig], Blend]


def _self_blend(face: Face, donor: Face, rng: np.random.Generator, config: BlendConfig) -> Blend:
    return self_blend(face.image, face.landmarks, rng, config)


KINDS: Mapping[str, Maker] = {"self_blend": _self_blend}


def make(kind: str, face: Face, donor: Face, rng: np.random.Generator, config: BlendConfig | None = None) -> Blend:
    """A pseudo-fake of one kind.

    Args:
        kind: a key of `KINDS`.
        face: the real that is changed.
        donor: a face of another person; kinds that change the face's own picture do not look at it.
        rng: all that is random.
        config: how.

    Raises:
        ValueError: no such kind; the message lists them.
    """
    if kind not in KINDS:
        raise ValueError(f"no pseudo-fake kind {kind!r}; there are: {', '.join(KINDS)}")
    return KINDS[kind](face, donor, rng, config or BlendConfig())
