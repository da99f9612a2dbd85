"""The only crop function: training and serving both use it, so they cannot differ."""

from __future__ import annotations

import cv2
import numpy as np

from models.spec import BoxMargin, CropGeometry, InputSpec, Interpolation, LandmarkTemplate
from pipeline.types import Crops, Faces, Floats, Frame, Image

# Side of the template's square over the box's longer side; outside, the landmarks are not those of the face in the box.
# Faces of the shared clips, frontal to profile, have 0.78 to 1.06 by MTCNN and YuNet.
TEMPLATE_TO_BOX = (0.5, 1.7)
# Where a face has its eyes, nose and mouth in parts of its box: mean of MTCNN and YuNet on the shared clips.
_AVERAGE = np.array([[0.265, 0.39], [0.735, 0.39], [0.5, 0.585], [0.305, 0.755], [0.695, 0.755]], np.float32)

_INTERPOLATIONS = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
}


def cut_crops(image: Image, faces: Faces, spec: InputSpec, *, zoom: float = 1.0) -> Image:
    """Cut each face for a deepfake detector.

    The squares of `crop_squares` are rounded to whole pixels and resized. Interpolation "area" takes the mean of the
    pixels covered when it shrinks, so that nothing aliases, and is bilinear when it enlarges; the others are OpenCV's
    of their names. Outside the frame its edge pixels are repeated.

    Args:
        image: uint8 [H, W, 3], RGB.
        faces: N faces in pixels of `image`.
        spec: size, geometry and interpolation of the crops.
        zoom: side of the squares in parts of the geometry's, with the same middle.

    Returns:
        uint8 [N, size, size, 3], RGB.
    """
    crops = np.empty((len(faces), spec.size, spec.size, 3), np.uint8)
    for crop, (x0, y0, side) in zip(crops, crop_squares(faces, spec.geometry).tolist(), strict=True):
        border = side * (1 - zoom) / 2
        crop[:] = cut_square(image, x0 + border, y0 + border, side * zoom, spec.size, spec.interpolation)
    return crops


def crops_of(frame: Frame, faces: Faces, spec: InputSpec) -> Crops:
    """The crops of a frame's faces, N of them, with the keys that lead back to them."""
    return Crops(
        pixels=cut_crops(frame.image, faces, spec),
        clip_id=frame.clip_id,
        index=np.full(len(faces), frame.index, np.int64),
        t_s=np.full(len(faces), frame.t_s, np.float64),
        track_ids=faces.track_ids,
        quality=faces.quality,
        boxes=faces.boxes,
        faces=faces,
    )


def cut_square(image: Image, x0: float, y0: float, side: float, size: int, interpolation: Interpolation) -> Image:
    """Cut one square, rounded to whole pixels, and resize it as `cut_crops` does.

    Args:
        image: uint8 [H, W, 3].
        x0: left edge in px; the square may reach over the picture's edge.
        y0: upper edge in px.
        side: of the square in px.
        size: side of the result in px.
        interpolation: as in `InputSpec`.

    Returns:
        uint8 [size, size, 3].
    """
    window = _window(image, round(x0), round(y0), max(1, round(side)))
    return resized(window, size, interpolation)


def resized(square: Image, size: int, interpolation: Interpolation) -> Image:
    """A square picture at another size, resampled as in `cut_crops`: uint8 [size, size, 3]."""
    enlarges = len(square) < size
    how = "bilinear" if interpolation == "area" and enlarges else interpolation
    return np.asarray(cv2.resize(square, (size, size), interpolation=_INTERPOLATIONS[how]))


def crop_squares(faces: Faces, geometry: CropGeometry) -> Floats:
    """Where the crops are.

    A `LandmarkTemplate` falls back on an average face's landmarks in the box where the detector's cannot be right: not
    finite, or the square out of proportion to the box (`TEMPLATE_TO_BOX`).

    Args:
        faces: N faces.
        geometry: how a crop is placed on its face; its class has the formulas.

    Returns:
        float32 [N, 3]: x0, y0 and side in pixels of the frame. They may reach over its edge.
    """
    sides = faces.boxes[:, 2:] - faces.boxes[:, :2]
    longer = np.maximum(sides, 1).max(axis=1, initial=1)
    if isinstance(geometry, BoxMargin):
        side = longer * (1 + 2 * geometry.margin)
        corner = (faces.boxes[:, :2] + faces.boxes[:, 2:] - side[:, None]) / 2
        return np.concatenate([corner, side[:, None]], axis=1, dtype=np.float32)
    average = faces.boxes[:, None, :2] + _AVERAGE * sides[:, None]
    finite = np.isfinite(faces.landmarks).all(axis=(1, 2), keepdims=True)
    fitted = _template_squares(np.where(finite, faces.landmarks, average), geometry)
    proportion = fitted[:, 2] / longer
    sound = (proportion >= TEMPLATE_TO_BOX[0]) & (proportion <= TEMPLATE_TO_BOX[1])
    return np.where(sound[:, None], fitted, _template_squares(average, geometry))


def _template_squares(landmarks: Floats, template: LandmarkTemplate) -> Floats:
    eyes, mouth = landmarks[:, :2].mean(axis=1), landmarks[:, 3:].mean(axis=1)
    eye_distance = np.linalg.norm(landmarks[:, 1] - landmarks[:, 0], axis=1)
    eyes_to_mouth = np.linalg.norm(mouth - eyes, axis=1)
    side = np.maximum(eye_distance / template.eye_distance, eyes_to_mouth / template.eyes_to_mouth)
    x0 = (eyes[:, 0] + mouth[:, 0]) / 2 - side / 2
    y0 = eyes[:, 1] - template.eyes_y * side
    return np.stack([x0, y0, side], axis=1).astype(np.float32)


def _window(image: Image, x0: int, y0: int, side: int) -> Image:
    """A square of whole pixels: a view if it is inside, else a copy with the frame's edge repeated."""
    height, width = image.shape[:2]
    # A square completely outside gets the same edge as one that is one pixel inside.
    x0, y0 = min(max(x0, 1 - side), width - 1), min(max(y0, 1 - side), height - 1)
    inside = image[max(y0, 0) : y0 + side, max(x0, 0) : x0 + side]
    missing = (max(-y0, 0), max(y0 + side - height, 0), max(-x0, 0), max(x0 + side - width, 0))
    if not any(missing):
        return inside
    return np.asarray(cv2.copyMakeBorder(inside, *missing, borderType=cv2.BORDER_REPLICATE))
