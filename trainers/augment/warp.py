"""Piecewise affine warps: a picture moved triangle by triangle, from one mesh onto another."""

from __future__ import annotations

import functools

import cv2
import numpy as np

from pipeline.types import Floats, Image
from trainers.augment.mean_mesh import OVAL, Indices, mean_mesh, places, signed_areas, triangulated

# Vertices are rasterised in sixteenths of a px.
_SHIFT = 4
# How far around the face's oval a whole-picture warp fades out, in parts of the oval's radius.
_RING = 1.35


def warp(image: Image, source: Floats, target: Floats, corners: Indices, size: tuple[int, int]) -> tuple[Image, Floats]:
    """Move a picture so that the mesh `source` matches the mesh `target`.

    Args:
        image: uint8 [H, W, 3]; mirrored beyond its edges.
        source: float32 [P, 2], px of `image`.
        target: float32 [P, 2], px of the result.
        corners: int64 [T, 3], triangles of the same orientation; one with the other orientation in `target` faces away
            and is not drawn.
        size: height and width of the result.

    Returns:
        uint8 [h, w, 3], and where triangles were drawn from pixels inside the picture, float32 [h, w] of 0 and 1.
    """
    height, width = size
    x, y = (np.arange(n, dtype=np.float32) for n in (width, height))
    map_x, map_y = np.tile(x, (height, 1)), np.tile(y[:, None], (1, width))
    drawn = _into(map_x, map_y, source, target, corners)
    moved = cv2.remap(image, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    # Up to a twelfth of a picture beyond its edge, mirrored skin still looks like skin.
    beyond = max(image.shape[:2]) / 12
    inside = (map_x > -beyond) & (map_y > -beyond)
    inside &= (map_x < image.shape[1] + beyond) & (map_y < image.shape[0] + beyond)
    return np.asarray(moved), (drawn & inside).astype(np.float32)


def deform(image: Image, source: Floats, target: Floats) -> Image:
    """Move a picture's face from the mesh `source` to `target`, [163, 2]; nothing changes outside a ring around it."""
    oval = source[places(*OVAL)]
    centre = oval.mean(axis=0)
    ring = centre + (oval - centre) * np.float32(_RING)
    height, width = image.shape[:2]
    moved, _ = warp(
        image,
        np.concatenate([source, ring]),
        np.concatenate([target, ring]),
        _ringed_triangles(),
        (height, width),
    )
    return moved


@functools.cache
def _ringed_triangles() -> Indices:
    mesh = mean_mesh()[:, :2]
    oval = mesh[places(*OVAL)]
    centre = oval.mean(axis=0)
    return triangulated(np.concatenate([mesh, centre + (oval - centre) * np.float32(_RING)]))


def _into(map_x: Floats, map_y: Floats, source: Floats, target: Floats, corners: Indices) -> Floats:
    """Fill the maps inside the target's triangles; returns bool [H, W] of the filled pixels."""
    height, width = map_x.shape
    corners = corners[signed_areas(target, corners) > 0.05]
    number = np.full((height, width), -1, np.int32)
    fixed = np.rint(target * 2**_SHIFT).astype(np.int32)[corners]
    for i, triangle in enumerate(fixed):
        cv2.fillConvexPoly(number, triangle, i, cv2.LINE_8, _SHIFT)
    rows, columns = np.nonzero(number >= 0)
    if not len(rows):
        return np.zeros((height, width), bool)
    # Barycentric: source = affine [T, 3, 2] applied to (x, y, 1) of the target.
    known = np.concatenate([target[corners], np.ones((len(corners), 3, 1))], axis=2)
    affine = np.linalg.solve(known, source[corners].astype(np.float64)).astype(np.float32)
    chosen = affine[number[rows, columns]]
    x, y = columns.astype(np.float32), rows.astype(np.float32)
    map_x[rows, columns] = x * chosen[:, 0, 0] + y * chosen[:, 1, 0] + chosen[:, 2, 0]
    map_y[rows, columns] = x * chosen[:, 0, 1] + y * chosen[:, 1, 1] + chosen[:, 2, 1]
    return np.asarray(number >= 0)
