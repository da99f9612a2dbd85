"""Random augmentation of training crops.

One draw is applied to both members of a pair, so it is independent of the class. If the members differ in quality
(`ApartConfig`), each of them is the worse one equally often, so quality is independent of the class too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np

from pipeline.faces.crop import cut_square
from pipeline.types import Floats, Image
from trainers.augment import degrade
from trainers.augment.cutouts import blanked, choose_part, cut_out
from trainers.augment.platform_video import PlatformConfig, platform_video
from trainers.augment.quality import ApartConfig, StrongConfig, draw_damage, strongly_degraded

# A change to one picture that keeps its size.
Change = Callable[[Image], Image]
# Steps of a crop's random numbers: each has its own generator, so that the number of draws in one does not change the
# others. New steps get new numbers: a resumed run sees the same crops.
_COLOURS, _PARTS, _SIZE, _CODEC, _PLACE, _STRONG, _PLATFORM, _APART, _LANDMARK_PARTS, _COPY = range(10)


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """Shares and strengths; a field with `_share` is the share of affected crops."""

    flip_share: float = 0.5
    # The cut square: its side and its shift in parts of the picture's side. Face detection is not exact to the px.
    side: tuple[float, float] = (0.88, 1.06)
    shift: float = 0.05
    rotation_share: float = 0.3
    rotation_degrees: float = 8.0
    # Shrunk to this part of its size before compression, like a small face in a video.
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
    # A part of the face, or a rectangle, is blanked: the network must not rely on one cue.
    cutout_share: float = 0.1
    # Share of the pairs: eyes, nose or mouth are blanked in both members, by their landmarks.
    landmark_cutout_share: float = 0.0
    # Share of the pairs: a real with a degraded copy of itself, both labelled real.
    degraded_real_share: float = 0.0
    strong: StrongConfig = field(default_factory=StrongConfig)
    apart: ApartConfig = field(default_factory=ApartConfig)
    platform: PlatformConfig = field(default_factory=PlatformConfig)

    @property
    def needs_video(self) -> bool:
        """Whether any augmentation encodes H.264, which needs PyAV."""
        unequal = (self.apart.share > 0 or self.degraded_real_share > 0) and self.apart.compression_share > 0
        return self.h264_share > 0 or self.platform.share > 0 or (unequal and self.apart.h264_share > 0)


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
    image: Image,
    landmarks: Floats,
    size_px: int,
    seed: int,
    config: AugmentConfig,
    mask: Floats | None = None,
    *,
    own: Change | None = None,
) -> tuple[Image, Floats | None]:
    """Degrade a crop, and cut and resize it with the serving code.

    Equal seeds have the same effect on all pictures of one size: colours, cut-outs, resolution, compression, geometry.

    Args:
        image: uint8 [H, H, 3], RGB.
        landmarks: float32 [5, 2], px of `image`.
        size_px: side of the result.
        seed: of all randomness.
        config: shares and strengths.
        mask: float32 [H, H], moved along.
        own: change to this picture only, before resolution and compression.

    Returns:
        uint8 [size_px, size_px, 3], and the mask float32 [size_px, size_px] or None.
    """
    colours, parts, size, codec, place, strong, platform = (_generator(seed, step) for step in range(_PLATFORM + 1))
    image = _coloured(image, colours, config)
    if parts.random() < config.cutout_share:
        image, hidden = cut_out(image, landmarks, parts)
        # What is hidden shows no forgery.
        mask = None if mask is None else np.where(hidden, np.float32(0), mask)
    image = strongly_degraded(image, strong, config.strong)
    if own is not None:
        image = own(image)
    side = image.shape[0]
    if size.random() < config.small_share:
        small = max(32, round(side * size.uniform(*config.small)))
        image = np.asarray(cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA))
    if platform.random() < config.platform.share:
        image = platform_video(image, platform, config.platform, _tracks(config.platform.tracks))
    else:
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


def has_degraded_copy(seed: int, config: AugmentConfig) -> bool:
    """Whether the pair of this seed is a real with its own degraded copy: it needs no fake."""
    return bool(_generator(seed, _COPY).random() < config.degraded_real_share)


def augment_pair(
    real: Image,
    fake: Image | None,
    landmarks: tuple[Floats, Floats],
    size_px: int,
    seeds: tuple[int, int],
    config: AugmentConfig,
    mask: Floats | None = None,
) -> tuple[Image, Floats | None]:
    """Both members of a pair.

    With equal seeds they share colours, geometry and cut-outs, and in most pairs everything else; in `apart.share`
    of them one is blurred, shrunk, noised or compressed more than the other. With different seeds nothing is shared.

    Args:
        real: uint8 [H, H, 3], RGB.
        fake: uint8 [H, H, 3]; None for a degraded copy of the real, see `has_degraded_copy`.
        landmarks: of both, float32 [5, 2] each, px. With equal seeds both use the first ones, so that cut-outs match.
        size_px: side of the result.
        seeds: of both.
        config: shares and strengths.
        mask: float32 [H, H] in 0..1, where the fake is forged; moved along.

    Returns:
        Both, uint8 [2, size_px, size_px, 3], and the mask, float32 [size_px, size_px] or None.
    """
    seed, together = seeds[0], seeds[0] == seeds[1]
    changes: tuple[Change | None, Change | None] = (None, None)
    if together:
        landmarks = landmarks[0], landmarks[0]
        changes = _own_changes(seed, config, copy=fake is None)
    pictures = [real, real if fake is None else fake]
    parts = _generator(seed, _LANDMARK_PARTS)
    if together and parts.random() < config.landmark_cutout_share:
        hidden = choose_part(landmarks[0], mask, real.shape[:2], parts)
        fill = int(parts.integers(1 << 62))
        pictures = [blanked(picture, hidden, fill) for picture in pictures]
        mask = None if mask is None else np.where(hidden, np.float32(0), mask)
    first, _ = augment(pictures[0], landmarks[0], size_px, seeds[0], config, own=changes[0])
    second, moved = augment(pictures[1], landmarks[1], size_px, seeds[1], config, mask, own=changes[1])
    return np.stack([first, second]), moved


def _own_changes(seed: int, config: AugmentConfig, *, copy: bool) -> tuple[Change | None, Change | None]:
    """Changes to each member only."""
    rng = _generator(seed, _APART)
    apart = rng.random() < config.apart.share
    real_is_worse = rng.random() < config.apart.real_share
    more, less = draw_damage(rng, config.apart)
    if copy:
        return less, more
    if not apart:
        return None, None
    return (more, less) if real_is_worse else (less, more)


def _generator(seed: int, step: int) -> np.random.Generator:
    return np.random.default_rng((seed, step))


@functools.cache
def _tracks(file: str) -> Floats | None:
    """Motion of real heads, loaded once in each process; None for an empty name."""
    return np.load(file) if file else None


def _coloured(image: Image, rng: np.random.Generator, config: AugmentConfig) -> Image:
    if rng.random() >= config.colour_share:
        changed = image.astype(np.float32)
    else:
        gain = 1 + rng.uniform(-config.contrast, config.contrast)
        offset = rng.uniform(-config.brightness, config.brightness)
        # Around mid-grey, not around the picture's own mean: both members of a pair get the same map.
        changed = (image.astype(np.float32) - 128) * gain + 128 + offset
        grey = changed.mean(axis=2, keepdims=True)
        changed = grey + (changed - grey) * (1 + rng.uniform(-config.saturation, config.saturation))
    if rng.random() < config.grey_share:
        changed = np.repeat(changed.mean(axis=2, keepdims=True), 3, axis=2)
    return np.rint(changed).clip(0, 255).astype(np.uint8)


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
