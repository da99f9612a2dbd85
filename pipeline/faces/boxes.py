"""Arithmetic on boxes: float32 [N, 4], x0 y0 x1 y1."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.types import Floats, Ints

_SMALLEST_AREA = np.float32(1e-9)  # avoids 0 / 0 for a box without area


def areas(boxes: Floats) -> Floats:
    """Area of each box, float32 [N]; 0 for an inverted one."""
    sides: Floats = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    return sides[:, 0] * sides[:, 1]


def intersections(a: Floats, b: Floats) -> Floats:
    """Area that each box of `a` [N, 4] shares with each of `b` [M, 4]: float32 [N, M]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    sides: Floats = np.maximum(high - low, 0)
    return sides[..., 0] * sides[..., 1]


def iou(a: Floats, b: Floats) -> Floats:
    """Intersection over union of each box of `a` [N, 4] with each of `b` [M, 4]: float32 [N, M] in 0..1."""
    shared = intersections(a, b)
    union: Floats = np.maximum(areas(a)[:, None] + areas(b)[None, :] - shared, _SMALLEST_AREA)
    return shared / union


def containment(a: Floats, b: Floats) -> Floats:
    """Intersection over the smaller of the two areas, for each pair: float32 [N, M] in 0..1."""
    smaller: Floats = np.maximum(np.minimum(areas(a)[:, None], areas(b)[None, :]), _SMALLEST_AREA)
    return intersections(a, b) / smaller


def squares(boxes: Floats) -> Floats:
    """The square about each box's centre with its longer side: float32 [N, 3], x0 y0 side."""
    sides = boxes[:, 2:] - boxes[:, :2]
    side = sides.max(axis=1, keepdims=True)
    return np.concatenate([boxes[:, :2] + (sides - side) / 2, side], axis=1)


def grown(around: Floats, factor: float) -> Floats:
    """Squares [N, 3] about the same centres with `factor` times the side."""
    x0, y0, side = around.T
    margin = side * ((factor - 1) / 2)
    return np.stack([x0 - margin, y0 - margin, side * factor], axis=1).astype(np.float32)


def suppressed_by_iou(boxes: Floats, scores: Floats, max_iou: float) -> Ints:
    """Non-maximum suppression: indices of the kept boxes, best score first.

    A box is dropped if its IoU with a better kept one is above `max_iou`.
    """
    if len(boxes) < 2:
        return np.arange(len(boxes))
    xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    # OpenCV converts lists faster than arrays.
    kept = cv2.dnn.NMSBoxes(xywh.tolist(), scores.tolist(), 0.0, max_iou)
    return np.asarray(kept, np.int64).reshape(-1)


def suppressed_by_containment(boxes: Floats, scores: Floats, max_share: float) -> Ints:
    """The same with `containment` instead of IoU, so that a small box inside a better large one is dropped too."""
    share = containment(boxes, boxes)
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable").tolist():
        if not (share[i, kept] > max_share).any():
            kept.append(i)
    return np.asarray(kept, np.int64)
