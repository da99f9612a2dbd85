"""Pseudo-fakes from real faces: self-blended images, and transplants between aligned pairs.

Self-blending follows Shiohara and Yamasaki, "Detecting Deepfakes with Self-Blended Images", CVPR 2022
(arXiv:2204.08376), section 3: source and target are the same picture, one of them with other colours and sharpness,
the source slightly moved; a softened, deformed face mask blends them. The network can only learn the blending.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.types import Floats, Image
from trainers.augment.blend_config import BlendConfig, choose
from trainers.augment.colours import other_colours
from trainers.augment.face import Face
from trainers.augment.masks import MASKS, hard_mask, soft_mask

__all__ = ["Blend", "BlendConfig", "mixed", "moved", "self_blend", "transplant"]


@dataclass(frozen=True, slots=True)
class Blend:
    """A pseudo-fake with its real.

    Attributes:
        real: uint8 [H, W, 3]: the target, whose colours may differ from those of the original picture.
        fake: uint8 [H, W, 3].
        mask: float32 [H, W] in 0..1: how much of the source is in the fake.
    """

    real: Image
    fake: Image
    mask: Floats


def self_blend(
    image: Image,
    landmarks: Floats,
    rng: np.random.Generator,
    config: BlendConfig | None = None,
    dense: Floats | None = None,
) -> Blend:
    """Blend a real face into itself.

    Args:
        image: uint8 [H, W, 3], RGB.
        landmarks: float32 [5, 2], px.
        rng: source of randomness.
        config: settings.
        dense: float32 [478, 2], px, if known.
    """
    config = config or BlendConfig()
    source, target = image, image
    if rng.random() < 0.5:
        source = other_colours(image, rng)
    else:
        target = other_colours(image, rng)
    mask = _mask(Face(image, landmarks, dense), rng, config)
    source, mask = moved(source, mask, landmarks, rng, config)
    return Blend(target, mixed(source, target, mask), mask)


def transplant(
    real: Image, fake: Image, landmarks: Floats, rng: np.random.Generator, config: BlendConfig | None = None
) -> Blend:
    """The fake inside a mask, its own real outside: a forgery of a part of the face, without extra seams.

    Args:
        real: uint8 [H, W, 3], RGB.
        fake: the same frame and box, forged.
        landmarks: float32 [5, 2], px.
        rng: source of randomness.
        config: settings.
    """
    mask = _mask(Face(real, landmarks), rng, config or BlendConfig())
    return Blend(real, mixed(fake, real, mask), mask)


def moved(
    source: Image, mask: Floats, landmarks: Floats, rng: np.random.Generator, config: BlendConfig
) -> tuple[Image, Floats]:
    """Source and mask shifted and scaled slightly, together, around the face's middle."""
    height, width = mask.shape
    scale = rng.uniform(1 - config.scale, 1 + config.scale)
    shift = rng.uniform(-1, 1, 2) * (config.shift_x * width, config.shift_y * height)
    centre = landmarks.mean(axis=0)
    move = np.array(
        [[scale, 0, (1 - scale) * centre[0] + shift[0]], [0, scale, (1 - scale) * centre[1] + shift[1]]], np.float32
    )
    source = np.asarray(cv2.warpAffine(source, move, (width, height), borderMode=cv2.BORDER_REFLECT))
    return source, np.asarray(cv2.warpAffine(mask, move, (width, height)))


def mixed(source: Image, target: Image, mask: Floats) -> Image:
    """The source where the mask is 1, the target where it is 0: uint8 [H, W, 3]."""
    weight = mask[..., None]
    result: Image = np.rint(source * weight + target * (1 - weight)).astype(np.uint8)
    return result


def _mask(face: Face, rng: np.random.Generator, config: BlendConfig) -> Floats:
    kind = choose(MASKS, config.mask_shares, rng)
    hard = hard_mask(face, kind, rng, config.region_shares)
    soft = soft_mask(hard, rng, config.soften, elastic=config.elastic)
    return soft * np.float32(config.ratios[rng.integers(len(config.ratios))])
