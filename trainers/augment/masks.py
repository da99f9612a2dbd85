"""Masks of forgeries, from the face's mesh: hulls, unions of parts, hulls with parts taken out.

The kinds follow those of self-blending's and Face X-ray's code (Shiohara and Yamasaki, CVPR 2022; Li et al., "Face
X-ray for More General Face Forgery Detection", CVPR 2020): hulls of landmarks with and without the forehead, unions
of the face's parts, hulls of random landmarks.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

from pipeline.types import Floats
from trainers.augment import mean_mesh as mesh
from trainers.augment.blend_config import choose
from trainers.augment.face import Face, mesh_of
from trainers.augment.outline import REGIONS, Region, region_mask

MASKS = ("region", "full", "extended", "parts", "holes", "random")
# Parts that forgeries replace alone, and that hulls leave out. The jaw's halves include the corner of the mouth.
PARTS: dict[str, tuple[int, ...]] = {
    "left_eye": (*mesh.LEFT_EYE, *mesh.LEFT_BROW),
    "right_eye": (*mesh.RIGHT_EYE, *mesh.RIGHT_BROW),
    "nose": mesh.NOSE,
    "mouth": mesh.OUTER_LIPS,
    "right_jaw": (*mesh.JAW[:11], 291, 18),
    "left_jaw": (*mesh.JAW[10:], 61, 18),
    "left_cheek": (234, 93, 132, 205, 50, 117, 129, 36),
    "right_cheek": (454, 323, 361, 425, 280, 346, 358, 266),
}
_FULL = (*mesh.JAW, *mesh.LEFT_BROW, *mesh.RIGHT_BROW)
# Smallest part of the picture that a mask covers; below it, the whole face is used.
_SMALLEST = 0.004
_MIDDLE = np.array([[0.2, 0.2], [0.8, 0.2], [0.5, 0.9]], np.float32)


def hull(points: Floats, size: tuple[int, int]) -> Floats:
    """The convex hull of points float32 [P, 2] as a hard mask, float32 [H, W]."""
    mask = np.zeros(size, np.float32)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.rint(points).astype(np.int32)), 1.0)
    return mask


def part_mask(points: Floats, part: str, size: tuple[int, int], grow_px: float = 0.0) -> Floats:
    """One of `PARTS` of a mesh [163, 2] as a hard mask, its corners moved away from its middle by `grow_px`."""
    corners = points[mesh.places(*PARTS[part])]
    away = corners - corners.mean(axis=0)
    lengths = np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-3)
    return hull(corners + away / lengths * grow_px, size)


def hard_mask(face: Face, kind: str, rng: np.random.Generator, region_shares: tuple[float, ...] = ()) -> Floats:
    """A mask of one of `MASKS`, float32 [H, W] of 0 and 1; never empty.

    Args:
        face: its mesh gives the place.
        kind: region, one of `outline.REGIONS`; full, jaw to brows; extended, with the forehead; parts, a union of
            some; holes, full or extended without some; random, the hull of random points.
        rng: source of randomness.
        region_shares: of `outline.REGIONS`, for the kind region; empty: equal shares.
    """
    size = (face.image.shape[0], face.image.shape[1])
    if kind == "region":
        region: Region = choose(REGIONS, region_shares or (1.0,) * len(REGIONS), rng)  # type: ignore[assignment]
        mask = region_mask(face.landmarks, region, size, rng)
    else:
        mask = _mesh_mask(face, kind, rng, size)
    if mask.mean() < _SMALLEST:
        mask = hull(mesh_of(face), size)
    # A face outside of its picture: use the middle of the picture.
    return mask if mask.any() else hull(_MIDDLE * np.array(size[::-1], np.float32), size)


def _mesh_mask(face: Face, kind: str, rng: np.random.Generator, size: tuple[int, int]) -> Floats:
    unit = face.unit_px
    points = mesh_of(face)
    points = points + np.float32(unit) * rng.normal(0, 0.03, points.shape).astype(np.float32)
    if kind == "full":
        return hull(points[mesh.places(*_FULL)], size)
    if kind == "extended":
        return hull(points, size)
    if kind == "parts":
        chosen = _some(rng, low=1, high=5)
        return _union(part_mask(points, part, size, rng.uniform(0.05, 0.2) * unit) for part in chosen)
    if kind == "holes":
        whole = hull(points if rng.random() < 0.4 else points[mesh.places(*_FULL)], size)
        inner = _some(rng, low=1, high=3, of=("left_eye", "right_eye", "nose", "mouth"))
        return whole * (1 - _union(part_mask(points, part, size, rng.uniform(0.02, 0.12) * unit) for part in inner))
    return hull(points[rng.choice(len(points), int(rng.integers(5, 16)), replace=False)], size)


def _some(rng: np.random.Generator, *, low: int, high: int, of: tuple[str, ...] = tuple(PARTS)) -> list[str]:
    return [of[i] for i in rng.choice(len(of), int(rng.integers(low, high + 1)), replace=False)]


def _union(masks: Iterable[Floats]) -> Floats:
    together: Floats = np.maximum.reduce(list(masks))
    return together


def soft_mask(hard: Floats, rng: np.random.Generator, soften: tuple[float, float], *, elastic: float = 0.0) -> Floats:
    """A hard mask deformed and softened, float32 [H, W] in 0..1 with a peak of 1.

    Args:
        hard: float32 [H, W] of 0 and 1, not empty.
        rng: source of randomness.
        soften: sigma of the Gaussian in parts of the width, range.
        elastic: largest displacement in parts of the width.
    """
    width = hard.shape[1]
    deformed = _elastic(hard, rng, elastic * width) if elastic > 0 else hard
    # Erode by blurring and thresholding, like the paper's inner and outer softening: the seam moves in or out.
    sigma = rng.uniform(*soften) * width
    soft = cv2.GaussianBlur(deformed, (0, 0), sigma)
    low = rng.uniform(0.0, 0.4)
    soft = ((soft - low) / (1 - low)).clip(0, 1)
    soft = cv2.GaussianBlur(soft, (0, 0), max(0.5, sigma / 3))
    peak = float(soft.max())
    # A small mask can vanish under a wide blur.
    return np.asarray(soft / peak if peak > 1e-3 else hard, np.float32)


def _elastic(mask: Floats, rng: np.random.Generator, largest_px: float) -> Floats:
    """Deform by a smooth random field (Simard et al. 2003), drawn on a coarse grid and enlarged."""
    height, width = mask.shape
    field = rng.uniform(-1, 1, (5, 5, 2)).astype(np.float32) * np.float32(largest_px)
    field = cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC)
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.asarray(cv2.remap(mask, x + field[..., 0], y + field[..., 1], cv2.INTER_LINEAR))
