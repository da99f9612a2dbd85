"""How much evidence of a forgery a face can carry: one number in 0..1 from size, clarity, pose and truncation.

quality = size x clarity x pose x visible (`quality_of`), each in 0..1: a product, because each of them alone can make
a face useless. It weights the frames of a person. A face that is not judged carries the reason (`Flaw`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.faces.boxes import areas, intersections, squares
from pipeline.faces.clarity import PATCH_PX, clarity
from pipeline.faces.covered import MIN_COVERED, cover_log_odds, cover_patches
from pipeline.faces.flaws import SMALLEST_FACE_PX, Flaw
from pipeline.faces.pyramid import Pyramid
from pipeline.types import Faces, Floats, Image, Ints

# A face below this is not scored. A clear one that faces the camera reaches it at 28 px (but see `SMALLEST_FACE_PX`),
# turned away at 60 px by 80 degrees, at 112 px with 55 % in the frame, and at 112 px with a clarity of 0.1.
MIN_QUALITY = 0.1
# A face is too dark if even its bright parts (this percentile of grey; skin of any colour is brighter in daylight) are
# below this of 255. On 1,000 crops of DFDC unmask-small has an AUC of .91, and of at most .70 when they are darkened so
# far: few steps of 8 bits are left. None of them is that dark as it is.
BRIGHT_PERCENT, DARKEST = 98, 32
# From 0 to full, by the logarithm: 24 px is R-Net's input, and compression in blocks of 8 px leaves no trace of a
# forgery at that size; 112 px is the size of the crops of face recognition.
SIZE_PX = (24.0, 112.0)
VISIBLE = (0.5, 1.0)  # part of the box inside the frame; from 0 to full
# Of a head: how far the tip of the nose protrudes from the plane of eyes and mouth, in eye distances and in
# eye-to-mouth distances; and how far below the eyes it is, in the latter (mean of MTCNN and YuNet on the shared clips,
# which differ by 0.06).
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
    """The same faces with `quality` and `flaws` filled in. Those with a flaw have a quality below `MIN_QUALITY`.

    Args:
        image: uint8 [H, W, 3], RGB.
        faces: N faces in pixels of `image`.
    """
    if not len(faces):
        return faces
    height, width = image.shape[:2]
    size_px = np.sqrt(areas(faces.boxes))
    large = size_px >= SMALLEST_FACE_PX
    clear = np.zeros(len(faces), np.float32)
    dark = np.zeros(len(faces), np.bool_)
    for i in np.flatnonzero(large):
        patch = _patch(image, squares(faces.boxes[i : i + 1])[0])
        clear[i] = clarity(patch)
        dark[i] = patch.size > 0 and float(np.percentile(patch, BRIGHT_PERCENT)) < DARKEST
    pose, visible = pose_of(faces.landmarks), visible_share(faces.boxes, width, height)
    quality = np.where(large & ~dark, quality_of(size_px, clear, pose, visible), np.float32(0))
    flaws = _flaws(quality, large, np.stack([_whole(visible), _facing(pose), clear]))
    flaws = np.where(large & dark, np.int64(Flaw.DARK), flaws)
    whole = np.flatnonzero(flaws == Flaw.NONE)
    patches = cover_patches(image, faces.take(whole))
    covered = whole[[cover_log_odds(patch) > MIN_COVERED for patch in patches]]
    quality[covered], flaws[covered] = 0, Flaw.COVERED
    return replace(faces, quality=quality, flaws=flaws)


def quality_of(size_px: Floats, clear: Floats, pose: Pose, visible: Floats) -> Floats:
    """Combine the measures of N faces: float32 [N] in 0..1.

    size grows with the logarithm between `SIZE_PX`; clarity counts as it is; pose is the product of the angles'
    cosines, 0 from 90 degrees; visible grows evenly between `VISIBLE`.

    Args:
        size_px: float32 [N], square root of the box's area.
        clear: float32 [N] in 0..1, see `pipeline.faces.clarity`.
        pose: see `pose_of`. Angles that are not finite make a quality of 0.
        visible: float32 [N], see `visible_share`.
    """
    product = _log_ramp(size_px, SIZE_PX) * clear * _facing(pose) * _whole(visible)
    quality: Floats = np.nan_to_num(product, nan=0.0).astype(np.float32)
    return quality


def pose_of(landmarks: Floats) -> Pose:
    """Head pose from five landmarks: the nose protrudes from the plane of eyes and mouth.

    Let x run along the line of the eyes, d be their distance, and the nose's tip protrude by NOSE_TO_EYES d0. A turn
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
    # Measured from the line between the middles of eyes and mouth, which need not be perpendicular to the eyes' line.
    lean = _dot(mouth - eyes, along) / np.where(height == 0, 1, height)
    y = _dot(nose, down)
    yaw = np.arctan2(_dot(nose, along) - lean * y, NOSE_TO_EYES * np.linalg.norm(line, axis=1))
    pitch = np.arctan2(NOSE_BELOW * height - y, NOSE_TO_MOUTH * height)
    return Pose(yaw, pitch, roll)


def visible_share(boxes: Floats, width: int, height: int) -> Floats:
    """Part of each box [N, 4] inside the frame: float32 [N] in 0..1; 0 for a box without area."""
    frame = np.array([[0, 0, width, height]], np.float32)
    area: Floats = np.maximum(areas(boxes), np.float32(1e-9))
    return intersections(boxes, frame)[:, 0] / area


def _flaws(quality: Floats, large: npt.NDArray[np.bool_], shares: Floats) -> Ints:
    """The reason for each face that is not judged: too small, else the lowest of its shares [3, N]."""
    named = np.array([Flaw.CUT_OFF, Flaw.TURNED, Flaw.UNCLEAR], np.int64)
    least = named[np.nan_to_num(shares, nan=0.0).argmin(axis=0)]
    reasons = np.where(large, least, np.int64(Flaw.TINY))
    return np.asarray(np.where(quality < MIN_QUALITY, reasons, np.int64(Flaw.NONE)))


def _facing(pose: Pose) -> Floats:
    return np.asarray(np.cos(pose.yaw).clip(0) * np.cos(pose.pitch).clip(0) * np.cos(pose.roll).clip(0))


def _whole(visible: Floats) -> Floats:
    return np.asarray(((visible - VISIBLE[0]) / (VISIBLE[1] - VISIBLE[0])).clip(0, 1))


def _patch(image: Image, square: Floats) -> Image:
    """The part of a square inside the picture, grey, the whole square at `PATCH_PX`.

    The outside would be black, and its border a false edge.
    """
    patch = Pyramid.around(image, square).patches(square[None], PATCH_PX)[0]
    x0, y0, side = square.tolist()
    scale, (height, width) = PATCH_PX / max(side, 1.0), image.shape[:2]
    top, left = (max(0, math.ceil(-start * scale) + 1) if start < 0 else 0 for start in (y0, x0))
    bottom, right = (
        math.floor((end - start) * scale) - 1 if start + side > end else PATCH_PX
        for start, end in ((y0, height), (x0, width))
    )
    return np.asarray(cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY)[top : max(bottom, top), left : max(right, left)])


def _dot(a: Floats, b: Floats) -> Floats:
    return np.asarray((a * b).sum(axis=1))


def _log_ramp(values: Floats, limits: tuple[float, float]) -> Floats:
    """0 up to the lower limit, 1 from the upper one, linear in the logarithm between."""
    low, high = np.log(limits)
    return np.asarray(((np.log(np.maximum(values, 1e-6)) - low) / (high - low)).clip(0, 1))
