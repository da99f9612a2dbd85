"""What is done to a training crop at random. One draw is applied to both members of a couple, so it tells nothing."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.faces.crop import cut_square
from pipeline.types import Floats, Image
from trainers.augment import degrade
from trainers.augment.outline import REGIONS, region_mask


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """How often and how much; a field with `_share` is the share of crops that it happens to."""

    flip_share: float = 0.5
    # The square that is cut: its side in parts of the picture's, its shift in the same. Faces are not found to the px.
    side: tuple[float, float] = (0.88, 1.06)
    shift: float = 0.05
    rotation_share: float = 0.3
    rotation_degrees: float = 8.0
    # Shrunk to this part of its size before it is compressed, as a face that is small in its video.
    small_share: float = 0.25
    small: tuple[float, float] = (0.35, 0.9)
    # Compression: H.264 at a CRF (c23 is 23, c40 is 40), or JPEG at a quality, or neither.
    h264_share: float = 0.3
    h264_crf: tuple[float, float] = (20.0, 42.0)
    jpeg_share: float = 0.2
    jpeg_quality: tuple[int, int] = (30, 95)
    blur_share: float = 0.05
    blur_sigma_px: tuple[float, float] = (0.4, 1.6)
    noise_share: float = 0.05
    noise_sigma: tuple[float, float] = (1.0, 8.0)
    colour_share: float = 0.5
    brightness: float = 25.0
    contrast: float = 0.2
    saturation: float = 0.3
    grey_share: float = 0.03
    # A part of the face, or a rectangle, is blanked: the network shall not rest on one cue.
    cutout_share: float = 0.1


NO_AUGMENTATION = AugmentConfig(
    flip_share=0,
    side=(1, 1),
    shift=0,
    rotation_share=0,
    small_share=0,
    h264_share=0,
    jpeg_share=0,
    blur_share=0,
    noise_share=0,
    colour_share=0,
    grey_share=0,
    cutout_share=0,
)


def augment(
    image: Image, landmarks: Floats, size_px: int, seed: int, config: AugmentConfig, mask: Floats | None = None
) -> tuple[Image, Floats | None]:
    """Degrade a crop, and cut and resize it with the code that serves.

    The same seed does the same to every picture of one size: colours, cut-outs, resolution, compression, geometry.

    Args:
        image: uint8 [H, H, 3], RGB.
        landmarks: float32 [5, 2], px of `image`.
        size_px: side of the result.
        seed: all that is random.
        config: how often and how much.
        mask: float32 [H, H], moved along.

    Returns:
        uint8 [size_px, size_px, 3], and the mask float32 [size_px, size_px] or None.
    """
    # A generator for each step: how many numbers one of them draws does not change the next.
    colours, parts, size, codec, place = (np.random.default_rng((seed, step)) for step in range(5))
    image = _cut_out(_coloured(image, colours, config), landmarks, parts, config)
    side = image.shape[0]
    if size.random() < config.small_share:
        small = max(32, round(side * size.uniform(*config.small)))
        image = np.asarray(cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA))
    image = _compressed(image, codec, config)
    flip = place.random() < config.flip_share
    rotates = place.random() < config.rotation_share
    angle = place.uniform(-config.rotation_degrees, config.rotation_degrees)
    part = place.uniform(*config.side)
    left, top = (1 - part) / 2 + place.uniform(-config.shift, config.shift, 2)

    def placed(picture: Image) -> Image:
        picture = picture[:, ::-1] if flip else picture
        now = picture.shape[0]
        if rotates:
            turn = cv2.getRotationMatrix2D((now / 2, now / 2), angle, 1.0)
            picture = cv2.warpAffine(picture, turn, (now, now), borderMode=cv2.BORDER_REPLICATE)
        return cut_square(picture, left * now, top * now, part * now, size_px, "area")

    if mask is None:
        return placed(image), None
    levels = np.repeat(np.rint(mask * 255).astype(np.uint8)[..., None], 3, axis=2)
    return placed(image), placed(levels)[..., 0].astype(np.float32) / np.float32(255)


def _coloured(image: Image, rng: np.random.Generator, config: AugmentConfig) -> Image:
    if rng.random() >= config.colour_share:
        changed = image.astype(np.float32)
    else:
        gain = 1 + rng.uniform(-config.contrast, config.contrast)
        offset = rng.uniform(-config.brightness, config.brightness)
        # Around mid-grey, not around the picture's own mean: both members of a couple get the same map.
        changed = (image.astype(np.float32) - 128) * gain + 128 + offset
        grey = changed.mean(axis=2, keepdims=True)
        changed = grey + (changed - grey) * (1 + rng.uniform(-config.saturation, config.saturation))
    if rng.random() < config.grey_share:
        changed = np.repeat(changed.mean(axis=2, keepdims=True), 3, axis=2)
    return np.rint(changed).clip(0, 255).astype(np.uint8)


def _cut_out(image: Image, landmarks: Floats, rng: np.random.Generator, config: AugmentConfig) -> Image:
    if rng.random() >= config.cutout_share:
        return image
    side = image.shape[0]
    if rng.random() < 0.5:
        region = REGIONS[rng.integers(2, len(REGIONS))]  # not the whole face
        mask = region_mask(landmarks, region, (side, side), rng) > 0
    else:
        width, height = (rng.uniform(0.15, 0.45, 2) * side).astype(int)
        x, y = int(rng.integers(0, side - width)), int(rng.integers(0, side - height))
        mask = np.zeros((side, side), bool)
        mask[y : y + height, x : x + width] = True
    blanked = image.copy()
    blanked[mask] = rng.integers(0, 256, 3) if rng.random() < 0.5 else 0
    return blanked


def _compressed(image: Image, rng: np.random.Generator, config: AugmentConfig) -> Image:
    if rng.random() < config.blur_share:
        image = degrade.blur(image, rng.uniform(*config.blur_sigma_px))
    if rng.random() < config.noise_share:
        image = degrade.noise(image, rng.uniform(*config.noise_sigma), rng)
    codec = rng.random()
    if codec < config.h264_share:
        motion = tuple(rng.uniform(-1.5, 1.5, 2))
        return degrade.h264(
            image, round(rng.uniform(*config.h264_crf)), motion_px=motion, frames=int(rng.integers(1, 4))
        )
    if codec < config.h264_share + config.jpeg_share:
        low, high = config.jpeg_quality
        return degrade.jpeg(image, int(rng.integers(low, high + 1)))
    return image
