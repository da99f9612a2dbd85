"""Pseudo-fakes from real faces: self-blended images, and transplants between aligned pairs.

Self-blending follows Shiohara and Yamasaki, "Detecting Deepfakes with Self-Blended Images", CVPR 2022
(arXiv:2204.08376), section 3: source and target are the same picture, one of them with other colours and sharpness,
the source a little moved; a softened, deformed face mask blends them. What remains to be learned is the blending.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.types import Floats, Image
from trainers.augment import degrade
from trainers.augment.outline import REGIONS, Region, region_mask


@dataclass(frozen=True, slots=True)
class BlendConfig:
    """How pseudo-fakes are made. Shares are relative; lengths are parts of the picture's side."""

    # Of the regions face (brow to chin), forehead, lower (mouth and jaw), eyes, inner.
    region_shares: tuple[float, ...] = (0.5, 0.15, 0.15, 0.08, 0.12)
    # Ratios of the blend, equally likely; three ones as in the paper: most forgeries replace, they do not mix.
    ratios: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)
    # The source is moved by up to this (paper: 3 % and 1.5 %) and scaled by up to this.
    shift_x: float = 0.03
    shift_y: float = 0.015
    scale: float = 0.05
    # Elastic deformation of the mask: largest displacement.
    elastic: float = 0.04
    # Softening of the mask: Gaussian sigma, from and to.
    soften: tuple[float, float] = (0.01, 0.07)


@dataclass(frozen=True, slots=True)
class Blend:
    """A pseudo-fake with its real.

    Attributes:
        real: uint8 [H, W, 3]: the target, which may itself have other colours than the picture it was made of.
        fake: uint8 [H, W, 3].
        mask: float32 [H, W] in 0..1: how much of the source is in the fake.
    """

    real: Image
    fake: Image
    mask: Floats


def self_blend(image: Image, landmarks: Floats, rng: np.random.Generator, config: BlendConfig | None = None) -> Blend:
    """Blend a real face into itself.

    Args:
        image: uint8 [H, W, 3], RGB.
        landmarks: float32 [5, 2], px.
        rng: all that is random.
        config: how.
    """
    config = config or BlendConfig()
    height, width = image.shape[:2]
    source, target = image, image
    if rng.random() < 0.5:
        source = _other_colours(image, rng)
    else:
        target = _other_colours(image, rng)
    mask = _mask(landmarks, (height, width), rng, config)
    scale = rng.uniform(1 - config.scale, 1 + config.scale)
    shift = rng.uniform(-1, 1, 2) * (config.shift_x * width, config.shift_y * height)
    centre = landmarks.mean(axis=0)
    move = np.array(
        [[scale, 0, (1 - scale) * centre[0] + shift[0]], [0, scale, (1 - scale) * centre[1] + shift[1]]], np.float32
    )
    source = np.asarray(cv2.warpAffine(source, move, (width, height), borderMode=cv2.BORDER_REFLECT))
    mask = np.asarray(cv2.warpAffine(mask, move, (width, height)))
    return Blend(target, _mixed(source, target, mask), mask)


def transplant(
    real: Image, fake: Image, landmarks: Floats, rng: np.random.Generator, config: BlendConfig | None = None
) -> Blend:
    """The fake inside a mask, its own real outside: a forgery of a part of the face, without seams of its own.

    Args:
        real: uint8 [H, W, 3], RGB.
        fake: the same frame and box, forged.
        landmarks: float32 [5, 2], px.
        rng: all that is random.
        config: how.
    """
    mask = _mask(landmarks, real.shape[:2], rng, config or BlendConfig())
    return Blend(real, _mixed(fake, real, mask), mask)


def _mask(landmarks: Floats, size: tuple[int, int], rng: np.random.Generator, config: BlendConfig) -> Floats:
    shares = np.array(config.region_shares, np.float64)
    region: Region = REGIONS[rng.choice(len(REGIONS), p=shares / shares.sum())]
    mask = _elastic(region_mask(landmarks, region, size, rng), rng, config.elastic * size[1])
    # Eroding by blurring and cutting off, as the paper's inner and outer softening: the seam moves in or out.
    sigma = rng.uniform(*config.soften) * size[1]
    soft = cv2.GaussianBlur(mask, (0, 0), sigma)
    low = rng.uniform(0.0, 0.4)
    soft = ((soft - low) / (1 - low)).clip(0, 1)
    soft = cv2.GaussianBlur(soft, (0, 0), max(0.5, sigma / 3))
    peak = float(soft.max())
    return np.asarray(soft * (config.ratios[rng.integers(len(config.ratios))] / peak if peak > 0 else 0.0), np.float32)


def _elastic(mask: Floats, rng: np.random.Generator, largest_px: float) -> Floats:
    """Deform by a smooth random field (Simard et al. 2003), drawn on a coarse grid and enlarged."""
    height, width = mask.shape
    field = rng.uniform(-1, 1, (5, 5, 2)).astype(np.float32) * largest_px
    field = cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC)
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.asarray(cv2.remap(mask, x + field[..., 0], y + field[..., 1], cv2.INTER_LINEAR))


def _other_colours(image: Image, rng: np.random.Generator) -> Image:
    """The picture with other colours, contrast and sharpness: what another camera, or a generator, would give."""
    changed: npt.NDArray[np.floating] = image.astype(np.float32)
    if rng.random() < 0.5:
        changed = changed + rng.uniform(-20, 20, 3)
    if rng.random() < 0.5:
        middle = changed.mean()
        changed = (changed - middle) * rng.uniform(0.85, 1.15) + middle + rng.uniform(-15, 15)
    if rng.random() < 0.3:
        grey = changed.mean(axis=2, keepdims=True)
        changed = grey + (changed - grey) * rng.uniform(0.7, 1.3)
    if rng.random() < 0.3:
        changed = 255 * (changed.clip(0, 255) / 255) ** rng.uniform(0.85, 1.18)
    result: Image = np.rint(changed).clip(0, 255).astype(np.uint8)
    if rng.random() < 0.6:
        if rng.random() < 0.6:
            up = cv2.INTER_CUBIC if rng.random() < 0.5 else cv2.INTER_LINEAR
            result = degrade.resize(result, rng.uniform(0.25, 0.7), up=up)
        else:
            result = degrade.sharpen(result, rng.uniform(0.2, 0.8))
    return result


def _mixed(source: Image, target: Image, mask: Floats) -> Image:
    weight = mask[..., None]
    mixed: Image = np.rint(source * weight + target * (1 - weight)).astype(np.uint8)
    return mixed
