"""Degradations that are independent of the class: strong ones for both members of a pair, and unequal ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.types import Image
from trainers.augment import degrade

# Lengths in the settings are px of a crop of this side; for other crops they scale with the side.
REFERENCE_PX = 224
Lens = Literal["gaussian", "defocus", "motion"]
_LENSES: tuple[Lens, ...] = ("gaussian", "gaussian", "defocus", "motion")
# Factor for noise of equal brightness: the share of independent channel noise that remains in BT.601 luma.
_LUMA = 0.67


@dataclass(frozen=True, slots=True)
class StrongConfig:
    """Strong degradations, the same for both members of a pair. Each share is independent of the others."""

    blur_share: float = 0.0
    blur_sigma_px: tuple[float, float] = (1.0, 5.0)
    # Out of focus: radius of the disc.
    defocus_share: float = 0.0
    defocus_radius_px: tuple[float, float] = (2.0, 8.0)
    motion_share: float = 0.0
    motion_length_px: tuple[float, float] = (4.0, 18.0)
    noise_share: float = 0.0
    noise_sigma: tuple[float, float] = (5.0, 30.0)
    # Share of the noise that is the same in all channels.
    noise_luma_share: float = 0.4
    noise_grain_px: tuple[float, float] = (0.0, 1.2)
    sharpen_share: float = 0.0
    sharpen_amount: tuple[float, float] = (0.5, 3.0)
    sharpen_radius_px: tuple[float, float] = (0.8, 3.0)
    mosaic_share: float = 0.0
    mosaic_cell_px: tuple[float, float] = (2.0, 10.0)
    jpeg_share: float = 0.0
    jpeg_quality: tuple[int, int] = (8, 30)
    sepia_share: float = 0.0


@dataclass(frozen=True, slots=True)
class ApartConfig:
    """Pairs whose members are degraded by different amounts, so that quality is independent of the class."""

    # Share of the pairs.
    share: float = 0.0
    # Share of these pairs in which the real is the more degraded member.
    real_share: float = 0.5
    # Share of these pairs in which the other member is not degraded at all.
    clean_share: float = 0.5
    # Share of each kind; at least one is applied.
    blur_share: float = 0.5
    size_share: float = 0.35
    noise_share: float = 0.25
    compression_share: float = 0.35
    # The worst of each kind.
    blur_sigma_px: float = 5.0
    size: float = 0.2
    noise_sigma: float = 25.0
    jpeg_quality: int = 15
    h264_crf: float = 40.0
    # Share of H.264 among the compressed ones; the others are JPEG.
    h264_share: float = 0.5


@dataclass(frozen=True, slots=True)
class Damage:
    """Damage to one member of a pair. Each kind has a strength in 0..1, 0 for none; `worst` has the limits."""

    worst: ApartConfig
    lens: Lens
    angle_degrees: float
    codec: Literal["jpeg", "h264"]
    seed: int
    blur: float
    size: float
    noise: float
    compression: float

    def __call__(self, image: Image) -> Image:
        """The picture with this damage, in its own size."""
        worst = self.worst
        # A narrower kernel is one px.
        if (sigma := self.blur * worst.blur_sigma_px * _scale(image)) > 0.25:
            image = self._blurred(image, sigma)
        if self.size > 0:
            image = degrade.resize(image, 1 - self.size * (1 - worst.size))
        if self.noise > 0:
            image = degrade.noise(image, self.noise * worst.noise_sigma, np.random.default_rng(self.seed))
        if self.compression > 0 and self.codec == "jpeg":
            return degrade.jpeg(image, round(95 - self.compression * (95 - worst.jpeg_quality)))
        if self.compression > 0:
            # CRF 18 is close to the original; see x264's documentation.
            return degrade.h264(image, round(18 + self.compression * (worst.h264_crf - 18)))
        return image

    def _blurred(self, image: Image, sigma_px: float) -> Image:
        # Lengths of equal variance along an axis: a disc of radius r has r^2 / 4, a line of length l has l^2 / 12.
        if self.lens == "defocus":
            return degrade.defocus(image, 2 * sigma_px)
        if self.lens == "motion":
            return degrade.motion_blur(image, math.sqrt(12) * sigma_px, self.angle_degrees)
        return degrade.blur(image, sigma_px)


def draw_damage(rng: np.random.Generator, config: ApartConfig) -> tuple[Damage, Damage]:
    """Two damages of the same kinds, the first at least as strong as the second in each."""
    shares = (config.blur_share, config.size_share, config.noise_share, config.compression_share)
    chosen = rng.random(4) < shares
    if not chosen.any():
        total = sum(shares)
        chosen[rng.choice(4, p=np.array(shares) / total if total > 0 else None)] = True
    strong = np.where(chosen, rng.uniform(0.2, 1, 4), 0.0)
    weak = strong * (0.0 if rng.random() < config.clean_share else rng.uniform(0, 0.7, 4))
    lens = _LENSES[rng.integers(len(_LENSES))]
    angle = float(rng.uniform(0, 180))
    codec: Literal["jpeg", "h264"] = "h264" if rng.random() < config.h264_share else "jpeg"
    seeds = rng.integers(1 << 62, size=2)
    more, less = (
        Damage(config, lens, angle, codec, int(seed), *map(float, strengths))
        for seed, strengths in zip(seeds, (strong, weak), strict=True)
    )
    return more, less


def strongly_degraded(image: Image, rng: np.random.Generator, config: StrongConfig) -> Image:
    """The picture after a random selection of the strong degradations, in the order of a camera and its apps."""
    scale = _scale(image)

    def happens(share: float) -> bool:
        return bool(rng.random() < share)

    if happens(config.sepia_share):
        image = degrade.sepia(image, rng.uniform(0.5, 1))
    if happens(config.blur_share):
        image = degrade.blur(image, rng.uniform(*config.blur_sigma_px) * scale)
    if happens(config.defocus_share):
        image = degrade.defocus(image, rng.uniform(*config.defocus_radius_px) * scale)
    if happens(config.motion_share):
        image = degrade.motion_blur(image, rng.uniform(*config.motion_length_px) * scale, rng.uniform(0, 180))
    if happens(config.noise_share):
        sigma, grain = rng.uniform(*config.noise_sigma), rng.uniform(*config.noise_grain_px) * scale
        luma = happens(config.noise_luma_share)
        # Below a third of a px the kernel is one px.
        grain = grain if grain > 0.3 else 0.0
        image = degrade.noise(image, sigma * (_LUMA if luma else 1), rng, luma=luma, grain_px=grain)
    if happens(config.sharpen_share):
        image = degrade.sharpen(
            image, rng.uniform(*config.sharpen_amount), rng.uniform(*config.sharpen_radius_px) * scale
        )
    if happens(config.mosaic_share):
        image = degrade.mosaic(image, max(2.0, rng.uniform(*config.mosaic_cell_px) * scale))
    if happens(config.jpeg_share):
        low, high = config.jpeg_quality
        image = degrade.jpeg(image, int(rng.integers(low, high + 1)))
    return image


def _scale(image: Image) -> float:
    return float(image.shape[0] / REFERENCE_PX)
