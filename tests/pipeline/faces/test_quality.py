"""Quality: what each measure says of made faces, and how they combine."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.faces.detector import FaceDetector
from pipeline.faces.quality import MIN_QUALITY, Pose, pose_of, quality_of, sharpness, visible_share, with_quality
from pipeline.types import Faces, Floats
from tests.media import face_picture

# A head in eye distances: x to the right of the picture, y down, z towards the camera.
HEAD = np.array([[-0.5, 0, 0], [0.5, 0, 0], [0, 0.53, 0.5], [-0.4, 1, 0], [0.4, 1, 0]])
angles = st.floats(-math.radians(50), math.radians(50))
shares = st.floats(0, 1)


def turned(yaw: float = 0, pitch: float = 0, roll: float = 0) -> Floats:
    """Landmarks [1, 5, 2] of the head, turned to the right of the picture, up, and clockwise, far from the camera."""
    cos, sin = math.cos, math.sin
    right = np.array([[cos(yaw), 0, sin(yaw)], [0, 1, 0], [-sin(yaw), 0, cos(yaw)]])
    up = np.array([[1, 0, 0], [0, cos(pitch), -sin(pitch)], [0, sin(pitch), cos(pitch)]])
    clockwise = np.array([[cos(roll), -sin(roll), 0], [sin(roll), cos(roll), 0], [0, 0, 1]])
    return (HEAD @ (clockwise @ up @ right).T)[None, :, :2].astype(np.float32) * 60 + 200


def frontal(n: int = 1) -> Pose:
    return Pose(*(np.zeros(n, np.float32) for _ in range(3)))


def one(value: float) -> Floats:
    return np.array([value], np.float32)


@given(angles)
def test_yaw_is_what_the_head_was_turned_by(yaw: float) -> None:
    pose = pose_of(turned(yaw=yaw))
    assert pose.yaw[0] == pytest.approx(yaw, abs=0.01)
    assert pose.pitch[0] == pytest.approx(0, abs=0.01)


@given(angles)
def test_pitch_grows_as_the_head_is_raised(pitch: float) -> None:
    # Eye distance and eyes-to-mouth distance are one here; of the nose's 0.5 pitch assumes 0.45.
    assert math.tan(pose_of(turned(pitch=pitch)).pitch[0]) == pytest.approx(math.tan(pitch) * 0.5 / 0.45, abs=0.01)


@given(angles, angles)
def test_roll_is_the_slope_of_the_eyes_and_moves_no_other_angle(roll: float, yaw: float) -> None:
    pose = pose_of(turned(roll=roll, yaw=yaw))
    assert pose.roll[0] == pytest.approx(roll, abs=0.01)
    assert pose.yaw[0] == pytest.approx(yaw, abs=0.02)


@given(st.floats(0, 5000), st.floats(0, 10), angles, angles, angles, shares)
def test_quality_is_a_share(size: float, sharp: float, yaw: float, pitch: float, roll: float, visible: float) -> None:
    quality = quality_of(one(size), one(sharp), Pose(one(yaw), one(pitch), one(roll)), one(visible))
    assert quality.shape == (1,)
    assert quality.dtype == np.float32
    assert 0 <= quality[0] <= 1


@given(st.lists(st.floats(1, 2000), min_size=2, max_size=2), st.floats(0, 1), shares)
def test_quality_grows_with_size(sizes: list[float], sharp: float, visible: float) -> None:
    low, high = (quality_of(one(size), one(sharp), frontal(), one(visible))[0] for size in sorted(sizes))
    assert low <= high


@given(st.floats(1, 2000), st.lists(st.floats(0, 2), min_size=2, max_size=2), shares)
def test_quality_grows_with_sharpness(size: float, sharp: list[float], visible: float) -> None:
    low, high = (quality_of(one(size), one(value), frontal(), one(visible))[0] for value in sorted(sharp))
    assert low <= high


@given(angles, angles)
def test_quality_falls_as_the_head_turns_away(a: float, b: float) -> None:
    less, more = sorted((abs(a), abs(b)))
    near, far = (quality_of(one(100), one(0.2), pose_of(turned(yaw=yaw)), one(1))[0] for yaw in (less, more))
    assert far <= near + 1e-4


@pytest.mark.parametrize(
    ("size", "yaw_deg", "visible", "scored"),
    [
        (29.5, 0, 1, True),
        (28, 0, 1, False),
        (60, 77, 1, True),
        (60, 81, 1, False),
        (112, 0, 0.57, True),
        (112, 0, 0.55, False),
    ],
)
def test_the_floor_lies_where_it_is_said_to_lie(size: float, yaw_deg: float, visible: float, scored: bool) -> None:
    pose = Pose(one(math.radians(yaw_deg)), one(0), one(0))
    assert (quality_of(one(size), one(0.1), pose, one(visible))[0] >= MIN_QUALITY) == scored


@given(st.floats(0.3, 4), st.floats(0.3, 4))
def test_blur_lowers_sharpness(a: float, b: float) -> None:
    grey = cv2.cvtColor(face_picture()[62:190, 170:298], cv2.COLOR_RGB2GRAY)
    less, more = sorted((a, b))
    assert sharpness(cv2.GaussianBlur(grey, (0, 0), more)) <= sharpness(cv2.GaussianBlur(grey, (0, 0), less)) + 1e-6


def test_contrast_and_brightness_leave_sharpness_alone() -> None:
    grey = cv2.cvtColor(face_picture()[62:190, 170:298], cv2.COLOR_RGB2GRAY)
    assert sharpness((grey * 0.5 + 60).astype(np.uint8)) == pytest.approx(sharpness(grey), rel=0.15)
    assert sharpness(np.full((64, 64), 90, np.uint8)) == 0


@given(st.floats(-200, 400), st.floats(-200, 300), st.floats(1, 200))
def test_the_visible_share_is_the_part_inside(x: float, y: float, side: float) -> None:
    box = np.array([[x, y, x + side, y + side]], np.float32)
    width = max(0.0, min(x + side, 320) - max(x, 0))
    height = max(0.0, min(y + side, 240) - max(y, 0))
    assert visible_share(box, 320, 240)[0] == pytest.approx(width * height / side**2, abs=1e-2)


def test_of_a_real_face_smaller_and_softer_is_worse(mtcnn: FaceDetector) -> None:
    picture = face_picture()
    half = cv2.resize(picture, (200, 200), interpolation=cv2.INTER_AREA)
    soft = cv2.GaussianBlur(picture, (0, 0), 4)
    best, smaller, softer = (
        with_quality(image, faces).quality[0]
        for image, faces in zip((picture, half, soft), mtcnn.detect([picture, half, soft]), strict=True)
    )
    assert best > 0.7
    assert MIN_QUALITY < smaller < best
    assert MIN_QUALITY < softer < best


def test_landmarks_that_are_none_make_no_quality_and_none_is_fine() -> None:
    box = np.array([[20, 20, 120, 140]], np.float32)
    broken = Faces.of(box, np.ones(1, np.float32), np.full((1, 5, 2), np.nan, np.float32))
    assert with_quality(face_picture(), broken).quality.tolist() == [0]
    assert len(with_quality(face_picture(), Faces.none())) == 0
