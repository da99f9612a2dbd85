"""Quality: each measure on synthetic faces, and their combination."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.faces.detector import FaceDetector
from pipeline.faces.flaws import SMALLEST_FACE_PX, Flaw
from pipeline.faces.quality import MIN_QUALITY, Pose, pose_of, quality_of, visible_share, with_quality
from pipeline.types import Faces, Floats, Image
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


@given(st.floats(0, 5000), shares, angles, angles, angles, shares)
def test_quality_is_a_share(size: float, clear: float, yaw: float, pitch: float, roll: float, visible: float) -> None:
    quality = quality_of(one(size), one(clear), Pose(one(yaw), one(pitch), one(roll)), one(visible))
    assert quality.shape == (1,)
    assert quality.dtype == np.float32
    assert 0 <= quality[0] <= 1


@given(st.lists(st.floats(1, 2000), min_size=2, max_size=2), st.floats(0, 1), shares)
def test_quality_grows_with_size(sizes: list[float], clear: float, visible: float) -> None:
    low, high = (quality_of(one(size), one(clear), frontal(), one(visible))[0] for size in sorted(sizes))
    assert low <= high


@given(st.floats(1, 2000), st.lists(shares, min_size=2, max_size=2), shares)
def test_quality_grows_with_clarity(size: float, clear: list[float], visible: float) -> None:
    low, high = (quality_of(one(size), one(value), frontal(), one(visible))[0] for value in sorted(clear))
    assert low <= high


@given(angles, angles)
def test_quality_falls_as_the_head_turns_away(a: float, b: float) -> None:
    less, more = sorted((abs(a), abs(b)))
    near, far = (quality_of(one(100), one(1), pose_of(turned(yaw=yaw)), one(1))[0] for yaw in (less, more))
    assert far <= near + 1e-4


@pytest.mark.parametrize(
    ("size", "clear", "yaw_deg", "visible", "scored"),
    [
        (29, 1, 0, 1, True),
        (27, 1, 0, 1, False),
        (60, 1, 78, 1, True),
        (60, 1, 81, 1, False),
        (112, 1, 0, 0.56, True),
        (112, 1, 0, 0.54, False),
        (112, 0.11, 0, 1, True),
        (112, 0.09, 0, 1, False),
    ],
)
def test_the_floor_is_where_the_comment_puts_it(
    size: float, clear: float, yaw_deg: float, visible: float, scored: bool
) -> None:
    pose = Pose(one(math.radians(yaw_deg)), one(0), one(0))
    assert (quality_of(one(size), one(clear), pose, one(visible))[0] >= MIN_QUALITY) == scored


@given(st.floats(-200, 400), st.floats(-200, 300), st.floats(1, 200))
def test_the_visible_share_is_the_part_inside(x: float, y: float, side: float) -> None:
    box = np.array([[x, y, x + side, y + side]], np.float32)
    width = max(0.0, min(x + side, 320) - max(x, 0))
    height = max(0.0, min(y + side, 240) - max(y, 0))
    assert visible_share(box, 320, 240)[0] == pytest.approx(width * height / side**2, abs=1e-2)


def test_a_smaller_or_softer_real_face_has_less_quality(mtcnn: FaceDetector) -> None:
    picture = face_picture()
    half = cv2.resize(picture, (200, 200), interpolation=cv2.INTER_AREA)
    soft = cv2.GaussianBlur(picture, (0, 0), 1.5)
    best, smaller, softer = (
        with_quality(image, faces).quality[0]
        for image, faces in zip((picture, half, soft), mtcnn.detect([picture, half, soft]), strict=True)
    )
    assert best > 0.7
    assert MIN_QUALITY < smaller < best
    assert MIN_QUALITY < softer < best


FACE = np.array([[172, 55, 277, 190]], np.float32)  # the astronaut's, in her picture
EYES_TO_MOUTH = np.array([[[200, 108], [248, 106], [226, 130], [206, 158], [246, 157]]], np.float32)


def astronaut(box: Floats = FACE, landmarks: Floats = EYES_TO_MOUTH) -> Faces:
    return Faces.of(box, np.ones(1, np.float32), landmarks)


def flaw_of(image: Image, faces: Faces) -> Flaw:
    rated = with_quality(image, faces)
    assert (rated.quality[0] < MIN_QUALITY) == (rated.flaws[0] != Flaw.NONE)
    return Flaw(rated.flaws[0])


def test_a_clear_face_has_no_flaw() -> None:
    assert flaw_of(face_picture(), astronaut()) is Flaw.NONE


@pytest.mark.parametrize(("side_px", "flaw"), [(SMALLEST_FACE_PX - 1, Flaw.TINY), (SMALLEST_FACE_PX + 4, Flaw.NONE)])
def test_below_the_smallest_size_a_face_is_tiny(side_px: float, flaw: Flaw) -> None:
    factor = side_px / math.sqrt((FACE[0, 2] - FACE[0, 0]) * (FACE[0, 3] - FACE[0, 1]))
    side = round(512 * factor)
    picture = cv2.resize(face_picture(), (side, side), interpolation=cv2.INTER_AREA)
    assert flaw_of(picture, astronaut(FACE * side / 512, EYES_TO_MOUTH * side / 512)) is flaw


def test_a_face_that_is_mostly_outside_the_picture_is_cut_off() -> None:
    left = 225
    picture = np.ascontiguousarray(face_picture()[:, left:])
    shift = np.array([left, 0], np.float32)
    assert flaw_of(picture, astronaut(FACE - np.tile(shift, 2), EYES_TO_MOUTH - shift)) is Flaw.CUT_OFF


def test_a_profile_is_turned_away() -> None:
    # The nose is to one side of both eyes, which are nearly behind each other.
    profile = np.array([[[200, 108], [204, 106], [226, 130], [206, 158], [212, 157]]], np.float32)
    assert flaw_of(face_picture(), astronaut(landmarks=profile)) is Flaw.TURNED


@pytest.mark.parametrize("cells", [8, 16])
def test_a_mosaic_over_the_face_is_unclear(cells: int) -> None:
    picture = face_picture().copy()
    face = picture[50:195, 160:290]
    small = cv2.resize(face, (cells, cells), interpolation=cv2.INTER_AREA)
    face[:] = cv2.resize(small, face.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    assert flaw_of(picture, astronaut()) is Flaw.UNCLEAR


def test_a_heavily_blurred_face_is_unclear() -> None:
    # Sigma 8 at a face of 224 px.
    assert flaw_of(cv2.GaussianBlur(face_picture(), (0, 0), 5), astronaut()) is Flaw.UNCLEAR


@pytest.mark.parametrize(("gain", "flaw"), [(0.3, Flaw.NONE), (0.1, Flaw.DARK)])
def test_a_face_without_bright_parts_is_dark(gain: float, flaw: Flaw) -> None:
    assert flaw_of((face_picture() * gain).round().astype(np.uint8), astronaut()) is flaw


@pytest.mark.parametrize("colour", [(120, 170, 200), (225, 228, 230), (40, 40, 45)])
def test_a_mask_over_mouth_and_nose_covers_a_face(colour: tuple[int, int, int]) -> None:
    picture = face_picture().copy()
    outline = [
        (186, 132),
        (210, 124),
        (225, 120),
        (240, 124),
        (266, 130),
        (262, 178),
        (240, 196),
        (208, 196),
        (188, 178),
    ]
    cv2.fillPoly(picture, [np.array(outline)], colour, cv2.LINE_AA)
    assert flaw_of(picture, astronaut()) is Flaw.COVERED


@pytest.mark.parametrize("gain", [0.4, 1.0, 1.2])
def test_light_is_no_cover(gain: float) -> None:
    assert flaw_of((face_picture() * gain).clip(0, 255).astype(np.uint8), astronaut()) is Flaw.NONE


def test_the_border_of_the_picture_is_not_an_edge_in_the_face() -> None:
    """A face that loses a tenth to the border keeps its clarity: only its visible part counts."""
    left = 182
    picture = np.ascontiguousarray(face_picture()[:, left:])
    shift = np.array([left, 0], np.float32)
    whole = with_quality(face_picture(), astronaut()).quality[0]
    cut = with_quality(picture, astronaut(FACE - np.tile(shift, 2), EYES_TO_MOUTH - shift)).quality[0]
    lost = float(2 * (left - FACE[0, 0]) / (FACE[0, 2] - FACE[0, 0]))
    assert cut == pytest.approx(whole * (1 - lost), rel=0.1)


def test_invalid_landmarks_have_no_quality_and_an_empty_frame_is_valid() -> None:
    broken = with_quality(face_picture(), astronaut(landmarks=np.full((1, 5, 2), np.nan, np.float32)))
    assert broken.quality.tolist() == [0]
    assert broken.flaws.tolist() == [Flaw.TURNED]
    assert len(with_quality(face_picture(), Faces.none())) == 0
