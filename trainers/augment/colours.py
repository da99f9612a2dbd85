"""Colour transfer from one face to another, as face swaps do, or changed at random."""

from __future__ import annotations

from typing import Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.types import Floats, Image
from trainers.augment import degrade

Matching = Literal["none", "mean", "reinhard", "histogram"]
MATCHINGS: tuple[Matching, ...] = get_args(Matching)
# Limit on stretching spreads: it would also amplify the noise of a dark or flat face.
_STRETCH = (0.6, 1.6)


def match_colours(source: Image, target: Image, where: Floats, how: Matching) -> Image:
    """The source with the target's colours.

    Args:
        source: uint8 [H, W, 3], RGB.
        target: uint8 [H, W, 3], RGB.
        where: float32 [H, W]: pixels above one half are measured, in both.
        how: the mean; mean and spread (Reinhard et al., "Color Transfer between Images", 2001, here in CIELAB); or the
            histogram of each channel.
    """
    inside = where > 0.5
    if how == "none" or inside.sum() < 16:
        return source
    if how == "histogram":
        return _histograms(source, target, inside)
    ours, theirs = (cv2.cvtColor(picture, cv2.COLOR_RGB2LAB).astype(np.float32) for picture in (source, target))
    mean, wanted = ours[inside].mean(axis=0), theirs[inside].mean(axis=0)
    gain: npt.NDArray[np.floating] | float = 1.0
    if how == "reinhard":
        gain = (theirs[inside].std(axis=0) / np.maximum(ours[inside].std(axis=0), 1.0)).clip(*_STRETCH)
    matched = np.rint((ours - mean) * gain + wanted).clip(0, 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(matched, cv2.COLOR_LAB2RGB))


def _histograms(source: Image, target: Image, inside: npt.NDArray[np.bool_]) -> Image:
    matched = np.empty_like(source)
    for channel in range(3):
        ours, theirs = (
            np.bincount(picture[..., channel][inside], minlength=256) / inside.sum() for picture in (source, target)
        )
        # Ranks of the middle of each level: the many pixels of an overexposed level do not become the target's
        # brightest. Only levels that occur: on the plateaus in between, brighter source pixels would become 255.
        levels = np.flatnonzero(theirs)
        table = np.interp(ours.cumsum() - ours / 2, (theirs.cumsum() - theirs / 2)[levels], levels)
        matched[..., channel] = np.rint(table).astype(np.uint8)[source[..., channel]]
    return matched


def other_colours(image: Image, rng: np.random.Generator) -> Image:
    """The picture with other colours, contrast and sharpness: as from another camera or a generator."""
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
        result = other_sharpness(result, rng)
    return result


def other_sharpness(image: Image, rng: np.random.Generator) -> Image:
    """The picture less sharp, as after downscaling, or sharper."""
    if rng.random() < 0.6:
        up = cv2.INTER_CUBIC if rng.random() < 0.5 else cv2.INTER_LINEAR
        return degrade.resize(image, rng.uniform(0.25, 0.7), up=up)
    return degrade.sharpen(image, rng.uniform(0.2, 0.8))
