"""The parts of a face from five landmarks: masks for blending and for cutting parts out."""

from __future__ import annotations

from typing import Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from models.spec import LandmarkTemplate
from pipeline.types import Floats

Region = Literal["face", "forehead", "lower", "eyes", "inner"]
REGIONS: tuple[Region, ...] = get_args(Region)

# A frontal face in eye distances, from the middle between the eyes, y down: eyes, nose, corners of the mouth. The mean
# of YuNet's landmarks on the reals of the DFDC crops agrees to 0.05.
FIVE_POINTS = np.array([[-0.5, 0.0], [0.5, 0.0], [0.0, 0.57], [-0.41, 1.07], [0.41, 1.07]], np.float32)
# Half of the outline, ear to chin, and the brows, in the same units: an estimated average of adult faces; the vertices
# are moved at random anyway.
_JAW = np.array(
    [[1.02, -0.1], [1.0, 0.35], [0.93, 0.8], [0.8, 1.2], [0.58, 1.52], [0.3, 1.72], [0.0, 1.78]], np.float32
)
_BROWS = np.array([[0.95, -0.28], [0.62, -0.48], [0.2, -0.4]], np.float32)
_FOREHEAD = np.array([[0.98, -0.4], [0.8, -0.85], [0.4, -1.1], [0.0, -1.15]], np.float32)
_HALVES: dict[Region, Floats] = {
    "face": np.concatenate([_JAW, _BROWS]),
    "forehead": np.concatenate([_JAW, _FOREHEAD]),
    "lower": np.concatenate([_JAW[2:], [[0.62, 0.72], [0.25, 0.62]]]).astype(np.float32),
    "eyes": np.array([[0.98, -0.3], [0.6, -0.5], [0.1, -0.45], [0.95, 0.25], [0.5, 0.32], [0.1, 0.25]], np.float32),
    "inner": np.array([[0.85, -0.35], [0.2, -0.35], [0.8, 0.3], [0.55, 1.25], [0.2, 1.4]], np.float32),
}


def template_landmarks(size_px: int, template: LandmarkTemplate | None = None) -> Floats:
    """Landmarks float32 [5, 2] of a frontal face in a crop of `size_px` cut with `template`."""
    template = template or LandmarkTemplate()
    eye_distance = template.eye_distance * size_px
    return np.asarray(FIVE_POINTS * eye_distance + [size_px / 2, template.eyes_y * size_px], np.float32)


def affine_to(landmarks: Floats) -> npt.NDArray[np.float64]:
    """The least-squares affine map, float64 [3, 2], from `FIVE_POINTS` to landmarks float32 [5, 2]."""
    known = np.concatenate([FIVE_POINTS, np.ones((5, 1), np.float32)], axis=1)
    return np.asarray(np.linalg.lstsq(known, landmarks.astype(np.float64), rcond=None)[0])


def region_mask(
    landmarks: Floats,
    region: Region,
    size: tuple[int, int],
    rng: np.random.Generator | None = None,
    spread: float = 0.06,
) -> Floats:
    """A part of the face as a hard mask.

    The mean outline is fitted to the landmarks by the least-squares affine map, which includes a turned head's
    foreshortening, and filled as its convex hull.

    Args:
        landmarks: float32 [5, 2], px.
        region: part of the face.
        size: height and width of the mask in px.
        rng: moves each vertex of the outline at random; None leaves them.
        spread: standard deviation of the movement in eye distances.

    Returns:
        float32 [H, W] of 0 and 1.
    """
    half = _HALVES[region]
    outline = np.concatenate([half, half * [-1, 1]])
    if rng is not None:
        outline = outline + rng.normal(0, spread, outline.shape)
    points = np.concatenate([outline, np.ones((len(outline), 1))], axis=1) @ affine_to(landmarks)
    mask = np.zeros(size, np.float32)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.rint(points).astype(np.int32)), 1.0)
    return mask
