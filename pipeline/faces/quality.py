"""How much a face can tell: size, sharpness, pose and truncation, and one number from them, 0..1.

quality = size x sharpness x pose x visible (`quality_of`), each in 0..1: a product, because each of them alone can
make a face useless. It weighs the frames of a person against each other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from pipeline.faces.boxes import areas, intersections, squares
from pipeline.faces.pyramid import Pyramid
from pipeline.types import Faces, Floats, Image

# A face below this is not scored: enlarged to a detector's 224 px or more it would be the resampler's invention, or a
# part of a face. Of ordinary sharpness (0.1) it is reached facing the camera at 29 px, at 60 px turned away by 79
# degrees, at 112 px with 56 % in the frame.
MIN_QUALITY = 0.1
# From nothing to full, by the logarithm: 24 px is what R-Net looks at, and compression in blocks of 8 px leaves nothing
# of a forgery there; 112 px is the size of the crops of face recognition.
SIZE_PX = (24.0, 112.0)
# From blurred to sharp, by the logarithm. Talking heads in the shared clips have 0.1 to 0.6, walkers out of focus or in
# motion 0.02 to 0.15. Blur alone takes half at most: whole videos are soft, and are scored.
SHARPNESS, SHARPNESS_FLOOR = (0.01, 0.2), 0.5
PATCH_PX = 64  # the face is brought to this size before sharpness is measured, so that size counts once
VISIBLE = (0.5, 1.0)  # part of the box inside the frame; from nothing to full
# Of a head: how far the tip of the nose stands out before the plane of eyes and mouth, in eye distances and in
# distances from eyes to mouth; and how far below the eyes it lies in the latter (mean of MTCNN and YuNet on the shared
# clips, which differ by 0.06).
NOSE_TO_EYES, NOSE_TO_MOUTH, NOSE_BELOW = 0.5, 0.45, 0.53


@dataclass(frozen=True, slots=True)
class Pose:
    """Of N heads, float32 [N] each, in radians; 0 is frontal and upright.

    Attributes:
        yaw: positive towards the right of the picture.
        pitch: positive upwards.
        roll: positive clockwise as seen.
    """

    yaw: Floats
    pitch: Floats
    roll: Floats


def with_quality(image: Image, faces: Faces) -> Faces:
    """The same faces with `quality` filled in.

    Args:
        image: uint8 [H, W, 3], RGB.
        faces: N faces in pixels of `image`.
    """
    if not len(faces):
        return faces
    height, width = image.shape[:2]
    quality = quality_of(
        np.sqrt(areas(faces.boxes)),
        np.array([sharpness(_patch(image, square)) for square in squares(faces.boxes)], np.float32),
        pose_of(faces.landmarks),
        visible_share(faces.boxes, width, height),
    )
    return replace(faces, quality=quality)


def quality_of(size_px: Floats, sharp: Floats, pose: Pose, visible: Floats) -> Floats:
    """Combine the measures of N faces: float32 [N] in 0..1.

    size and sharpness grow with the logarithm between `SIZE_PX` and between `SHARPNESS`; pose is the product of the
    angles' cosines, 0 from 90 degrees; visible grows evenly between `VISIBLE`.

    Args:
        size_px: float32 [N], square root of the box's area.
        sharp: float32 [N], see `sharpness`.
        pose: see `pose_of`. Angles that are not finite make a quality of 0.
        visible: float32 [N], see `visible_share`.
    """
    size = _log_ramp(size_px, SIZE_PX)
    clear = SHARPNESS_FLOOR + (1 - SHARPNESS_FLOOR) * _log_ramp(sharp, SHARPNESS)
    facing = np.cos(pose.yaw).clip(0) * np.cos(pose.pitch).clip(0) * np.cos(pose.roll).clip(0)
    whole = ((visible - VISIBLE[0]) / (VISIBLE[1] - VISIBLE[0])).clip(0, 1)
    quality: Floats = np.nan_to_num(size * clear * facing * whole, nan=0.0).astype(np.float32)
    return quality


def sharpness(patch: Image) -> float:
    """Variance of the Laplacian (Pech-Pacheco et al. 2000, doi:10.1109/ICPR.2000.903548) over the variance.

    The division takes contrast out.

    Args:
        patch: uint8 [S, S], grey. A plain one has 0.
    """
    _, spread = cv2.meanStdDev(patch)
    _, edges = cv2.meanStdDev(cv2.Laplacian(patch, cv2.CV_32F))
    # One grey level: below it the variance is rounding.
    return float((edges[0, 0] / max(spread[0, 0], 1.0)) ** 2)


def pose_of(landmarks: Floats) -> Pose:
    """Head pose from five landmarks, by how the nose stands out before the plane of eyes and mouth.

    Let x run along the line of the eyes, d be their distance, and the nose's tip stand out by NOSE_TO_EYES d0. A turn
    by yaw moves it by NOSE_TO_EYES d0 sin(yaw) and shrinks d to d0 cos(yaw), so tan(yaw) = x / (NOSE_TO_EYES d). In
    the same way, with h from eyes to mouth and y from eyes to nose,
    tan(pitch) = (NOSE_BELOW h - y) / (NOSE_TO_MOUTH h). Roll is the direction of the line of the eyes.

    Args:
        landmarks: float32 [N, 5, 2].
    """
    eyes, mouth = landmarks[:, :2].mean(axis=1), landmarks[:, 3:].mean(axis=1)
    line = landmarks[:, 1] - landmarks[:, 0]
    roll = np.arctan2(line[:, 1], line[:, 0])
    along = np.stack([np.cos(roll), np.sin(roll)], axis=1)
    down = np.stack([-np.sin(roll), np.cos(roll)], axis=1)
    nose, height = landmarks[:, 2] - eyes, _dot(mouth - eyes, down)
    # Measured from the line between the eyes' middle and the mouth's, which need not stand upright on the eyes' line.
    lean = _dot(mouth - eyes, along) / np.where(height == 0, 1, height)
    y = _dot(nose, down)
    yaw = np.arctan2(_dot(nose, along) - lean * y, NOSE_TO_EYES * np.linalg.norm(line, axis=1))
    pitch = np.arctan2(NOSE_BELOW * height - y, NOSE_TO_MOUTH * height)
    return Pose(yaw, pitch, roll)


def visible_share(boxes: Floats, width: int, height: int) -> Floats:
    """Part of each box [N, 4] that lies inside the frame: float32 [N] in 0..1; 0 for a box without area."""
    frame = np.array([[0, 0, width, height]], np.float32)
    area: Floats = np.maximum(areas(boxes), np.float32(1e-9))
    return intersections(boxes, frame)[:, 0] / area


def _patch(image: Image, square: Floats) -> Image:
    patch = Pyramid.around(image, square).patches(square[None], PATCH_PX)[0]
    return np.asarray(cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY))


def _dot(a: Floats, b: Floats) -> Floats:
    return np.asarray((a * b).sum(axis=1))


def _log_ramp(values: Floats, limits: tuple[float, float]) -> Floats:
    """0 up to the lower limit, 1 from the upper one, linear in the logarithm between."""
    low, high = np.log(limits)
    return np.asarray(((np.log(np.maximum(values, 1e-6)) - low) / (high - low)).clip(0, 1))
