"""Areas of a crop: soft windows to hide, the marked part of a map, and random areas like it."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.types import Floats

Area = npt.NDArray[np.bool_]

# A hard edge is a trace of its own, which a forgery detector sees; in parts of the crop's side.
_SOFT: Final = 0.015


def windows(side: float, count: int, size_px: int) -> Floats:
    """Squares that slide over a crop, `count` places along each side; their edges are soft.

    The outer ones reach over the crop's edge by half a window, so that its rim is hidden as often as its middle.

    Args:
        side: of a window, in parts of the crop's.
        count: places along each side.
        size_px: of the crop.

    Returns:
        float32 [count * count, size_px, size_px] in 0..1; 1 is hidden.
    """
    middles = (np.arange(count) + 0.5) / count * size_px
    pixels = np.arange(size_px) + 0.5
    along = np.abs(pixels[None] - middles[:, None]) <= side * size_px / 2
    hard = along[:, None, :, None] & along[None, :, None, :]
    return softened(hard.reshape(-1, size_px, size_px))


def softened(areas: Area) -> Floats:
    """Areas [N, S, S] as masks with soft edges: float32 [N, S, S] in 0..1, of about the same size."""
    size_px = areas.shape[-1]
    return np.stack([cv2.GaussianBlur(each.astype(np.float32), (0, 0), _SOFT * size_px) for each in areas])


def marked(heat: Floats, share: float) -> Area:
    """The pixels of a map [S, S] with the highest values: bool [S, S], `share` of all, to a pixel."""
    count = max(1, round(share * heat.size))
    # A stable order, so that equal values give the same area on every machine.
    highest = np.argsort(-heat, axis=None, kind="stable")[:count]
    area = np.zeros(heat.size, np.bool_)
    area[highest] = True
    return area.reshape(heat.shape)


def random_places(area: Area, count: int, rng: np.random.Generator) -> Area:
    """The same area at random places: bool [count, S, S].

    Each is mirrored or not, turned by a multiple of 90 degrees and shifted; what leaves the crop at one side comes in
    at the other. So all have the size and the shape of `area`.

    Args:
        area: bool [S, S].
        count: how many.
        rng: of the places.
    """
    placed = []
    for _ in range(count):
        other = np.rot90(area[:, ::-1] if rng.integers(2) else area, int(rng.integers(4)))
        placed.append(np.roll(other, rng.integers(len(area), size=2), axis=(0, 1)))
    return np.stack(placed)
