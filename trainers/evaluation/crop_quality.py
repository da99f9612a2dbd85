"""The quality of a stored crop, as serving would measure it on the frame that the crop was cut from."""

from __future__ import annotations

import cv2
import numpy as np

from models.spec import LandmarkTemplate
from pipeline.faces.quality import with_quality
from pipeline.types import Faces, Floats, Image
from trainers.augment.outline import template_landmarks

# Where an average face has its eyes and its mouth in parts of its box, see `pipeline.faces.crop`: between the eyes .47
# of the width, eyes at .39 and mouth at .755 of the height.
_EYES_WIDE, _EYES_Y, _MOUTH_Y = 0.47, 0.39, 0.755
# A face box reaches over the tight crop, at the forehead by 18 % of its side. Mirrored pixels are as sharp as the face.
_MARGIN = 0.4


def crop_quality(image: Image, landmarks: Floats, source_px: float) -> float:
    """Quality in 0..1 of the face in a crop, by `pipeline.faces.quality.with_quality` at its source size.

    A crop that was enlarged to be stored is shrunk to its source's size first: resampled pixels add
    no detail. A crop that was shrunk stays as stored: lost detail cannot be recovered.

    Args:
        image: uint8 [S, S, 3], RGB, as stored, or degraded.
        landmarks: float32 [5, 2] in px of `image`; an average face's are used if they are not finite.
        source_px: width of the crop before it was resized, in px of its frame; for a copy that is shrunk and enlarged
            again, times the factor. Not finite: unknown, so the stored width is used.
    """
    stored = image.shape[1]
    if not np.isfinite(landmarks).all():
        landmarks = template_landmarks(stored, LandmarkTemplate())
    side = stored if not np.isfinite(source_px) else max(1, min(stored, round(float(source_px))))
    scaled = image if side == stored else np.asarray(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA))
    margin = min(round(_MARGIN * side), side - 1)
    framed = np.asarray(cv2.copyMakeBorder(scaled, margin, margin, margin, margin, borderType=cv2.BORDER_REFLECT_101))
    points = (np.asarray(landmarks, np.float32) * (side / stored) + margin).astype(np.float32)
    faces = Faces.of(_box(points)[None], np.ones(1, np.float32), points[None])
    return float(with_quality(framed, faces).quality[0])


def face_width_px(landmarks: Floats, stored_px: float, source_px: float) -> float:
    """Width of the face's box in px of the frame that a crop was cut from, as the boxes of a record have it; about.

    Args:
        landmarks: float32 [5, 2] in px of the stored crop; an average face's are used if they are not finite.
        stored_px: width of the stored crop; nan, as for the next one: unknown, and so is the result.
        source_px: width of the crop before it was resized, in px of its frame.
    """
    if not np.isfinite(stored_px):
        return float("nan")
    if not np.isfinite(landmarks).all():
        landmarks = template_landmarks(round(stored_px), LandmarkTemplate())
    box = _box(np.asarray(landmarks, np.float32))
    return float(box[2] - box[0]) * source_px / stored_px


def _box(landmarks: Floats) -> Floats:
    """A face box, float32 [4], that has the landmarks where an average face has them."""
    eyes, mouth = landmarks[:2].mean(axis=0), landmarks[3:].mean(axis=0)
    between = float(np.linalg.norm(landmarks[1] - landmarks[0]))
    height = max(1.0, float(np.linalg.norm(mouth - eyes)) / (_MOUTH_Y - _EYES_Y))
    # A turned head's eyes are close together, and its box is as wide as before: never narrower than half its height.
    width = max(between / _EYES_WIDE, height / 2)
    x, y = float((eyes[0] + mouth[0]) / 2), float(eyes[1]) - _EYES_Y * height
    return np.array([x - width / 2, y, x + width / 2, y + height], np.float32)
