"""Frequency blends: bands of a face's spectrum taken from another picture, or marked like the traces of upsampling.

Fourier amplitudes and phases are mixed as in domain adaptation (Yang and Soatto, "FDA", CVPR 2020, arXiv:2004.05498)
and in frequency-space blending for deepfake detection; Laplacian bands as in Burt and Adelson's multiresolution splines
(1983); the grid is the trace of generators that enlarge by inserting zeros (arXiv:1907.06515).
"""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.types import Floats, Image
from trainers.augment.blend_config import BlendConfig, choose
from trainers.augment.blending import Blend, mixed, moved
from trainers.augment.colours import match_colours, other_colours
from trainers.augment.face import Face
from trainers.augment.masks import hard_mask, soft_mask
from trainers.augment.mesh_swap import donor_on

_WAYS = ("amplitude", "phase", "pyramid", "grid")
_MASKS = ("full", "extended", "region", "holes")
_MASK_SHARES = (0.5, 0.2, 0.15, 0.15)
# Radii of bands in cycles a px, from coarse to fine; one half is the finest.
_BANDS = ((0.0, 0.03), (0.02, 0.1), (0.08, 0.25), (0.2, 0.71))
_LEVELS = 4


def frequency(face: Face, donor: Face, rng: np.random.Generator, config: BlendConfig) -> Blend:
    """This face with part of its spectrum changed.

    Args:
        face: the real.
        donor: whose bands are used in a share of the cases.
        rng: source of randomness.
        config: settings.
    """
    how = config.frequency
    hard = hard_mask(face, choose(_MASKS, _MASK_SHARES, rng), rng, config.region_shares)
    way = choose(_WAYS, how.way_shares, rng)
    strength = float(rng.uniform(*how.strength))
    if way == "grid":
        changed = _grid(face.image, strength, rng)
    else:
        other = _other(face, donor, hard, rng, config)
        if way == "pyramid":
            changed = _pyramid(face.image, other, strength, rng)
        else:
            changed = _fourier(face.image, other, strength, rng, phase=way == "phase")
    changed = _visible(changed, face.image, hard, how.smallest)
    mask = soft_mask(hard, rng, how.soften)
    return Blend(face.image, mixed(changed, face.image, mask), mask)


def _visible(changed: Image, image: Image, hard: Floats, smallest: float) -> Image:
    """Amplify the change until it moves the face by `smallest` grey levels on average, by a factor of ten at most.

    On a smooth face an empty band would give a fake that equals its real.
    """
    change = changed.astype(np.float32) - image
    level = float(np.abs(change[hard > 0.5]).mean()) if (hard > 0.5).any() else 0.0
    factor = np.float32(min(10.0, max(1.0, smallest / max(level, 1e-3))))
    result: Image = np.rint(image + factor * change).clip(0, 255).astype(np.uint8)
    return result


def _other(face: Face, donor: Face, hard: Floats, rng: np.random.Generator, config: BlendConfig) -> Image:
    """The picture that the bands come from."""
    if rng.random() < config.frequency.donor_share:
        warped, valid = donor_on(face, donor)
        return match_colours(warped, face.image, hard * valid, "mean")
    return moved(other_colours(face.image, rng), hard, face.landmarks, rng, config)[0]


def _fourier(image: Image, other: Image, strength: float, rng: np.random.Generator, *, phase: bool) -> Image:
    """Amplitudes or phases of a band, partly taken over.

    The mean stays: it is the colour, not a band. Coarse phases hold the places of the face's parts, so phases are
    mixed from the second band on.
    """
    height, width = image.shape[:2]
    low, high = _BANDS[int(rng.integers(1 if phase else 0, len(_BANDS)))]
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    radius = np.hypot(rows, columns)
    weight = ((radius >= low) & (radius <= high)).astype(np.float32) * np.float32(strength)
    weight[0, 0] = 0
    changed = np.empty(image.shape, np.float32)
    for channel in range(3):
        ours, theirs = (np.fft.rfft2(picture[..., channel].astype(np.float32)) for picture in (image, other))
        size, their_size = np.abs(ours), np.abs(theirs)
        if phase:
            turn = ours / np.maximum(size, 1e-6) * (1 - weight) + theirs / np.maximum(their_size, 1e-6) * weight
            mixture = size * turn / np.maximum(np.abs(turn), 1e-6)
            mixture[0, 0] = ours[0, 0]
        else:
            mixture = ours * ((1 - weight) + weight * their_size / np.maximum(size, 1e-6))
        changed[..., channel] = np.fft.irfft2(mixture, s=(height, width))
    return np.rint(changed).clip(0, 255).astype(np.uint8)


def _pyramid(image: Image, other: Image, strength: float, rng: np.random.Generator) -> Image:
    """Some Laplacian bands partly taken over: at least one, never the coarsest remainder."""
    takes = rng.random(_LEVELS) < 0.45
    takes[int(rng.integers(_LEVELS))] = True
    ours, theirs = image.astype(np.float32), other.astype(np.float32)
    bands = []
    for take in takes:
        next_ours, next_theirs = cv2.pyrDown(ours), cv2.pyrDown(theirs)
        size = (ours.shape[1], ours.shape[0])
        mine = ours - cv2.pyrUp(next_ours, dstsize=size)
        if take:
            mine = mine + np.float32(strength) * (theirs - cv2.pyrUp(next_theirs, dstsize=size) - mine)
        bands.append(mine)
        ours, theirs = next_ours, next_theirs
    for band in reversed(bands):
        ours = cv2.pyrUp(ours, dstsize=(band.shape[1], band.shape[0])) + band
    return np.asarray(np.rint(ours).clip(0, 255).astype(np.uint8))


def _grid(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Enlarged from a half or a quarter with the uneven gains of a badly tuned upsampling: a faint grid."""
    step = int(rng.choice([2, 4]))
    height, width = image.shape[:2]
    gains = 1 + rng.normal(0, 0.06 * strength, (step, step, 3)).astype(np.float32)
    gains /= gains.mean(axis=(0, 1))
    lattice = np.tile(gains, (height // step + 1, width // step + 1, 1))[:height, :width]
    small = cv2.resize(image, (max(1, width // 2), max(1, height // 2)), interpolation=cv2.INTER_AREA)
    large = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    # Some of the lost detail is kept: the trace is the grid, not blur.
    kept = rng.uniform(0.3, 0.9)
    return np.asarray(np.rint((large + kept * (image - large)) * lattice).clip(0, 255).astype(np.uint8))
