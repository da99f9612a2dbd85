"""Crops: their position, their content, and the edge of the picture."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.spec import BoxMargin, InputSpec, Interpolation, LandmarkTemplate
from pipeline.faces.crop import crop_squares, cut_crops
from pipeline.types import Faces, Floats, Image
from tests.media import face_picture

coordinate = st.floats(-300, 900)


def faces_at(boxes: Floats, landmarks: Floats | None = None) -> Faces:
    if landmarks is None:
        landmarks = np.full((len(boxes), 5, 2), np.nan, np.float32)
    return Faces.of(np.asarray(boxes, np.float32), np.ones(len(boxes), np.float32), landmarks)


def upright(x: float, y: float, eye_distance: float, eyes_to_mouth: float) -> Faces:
    """A face whose eyes' middle is at x, y."""
    d, m = eye_distance / 2, eyes_to_mouth
    points = [[x - d, y], [x + d, y], [x, y + m / 2], [x - 0.8 * d, y + m], [x + 0.8 * d, y + m]]
    box = [x - 1.1 * eye_distance, y - m, x + 1.1 * eye_distance, y + 1.6 * m]
    return faces_at(np.array([box]), np.array([points], np.float32))


def dotted(faces: Faces, width: int = 640, height: int = 480) -> Image:
    """Eyes in red, mouth corners in green."""
    image = np.full((height, width, 3), 30, np.uint8)
    for n, point in enumerate(faces.landmarks[0]):
        if n != 2:
            cv2.circle(image, tuple(int(v) for v in point.round()), 6, (255, 0, 0) if n < 2 else (0, 255, 0), -1)
    return image


def dots(crop: Image, channel: int) -> Floats:
    """Centres of the two dots of one colour, in parts of the crop, left one first."""
    _, _, _, centres = cv2.connectedComponentsWithStats((crop[..., channel] > 140).astype(np.uint8))
    assert len(centres) == 3  # the background is the first
    return (centres[1:][centres[1:, 0].argsort()] + 0.5) / len(crop)


def test_the_template_puts_eyes_and_mouth_where_it_says() -> None:
    faces = upright(300, 200, eye_distance=80, eyes_to_mouth=90)
    crop = cut_crops(dotted(faces), faces, InputSpec(224, geometry=LandmarkTemplate()))[0]
    side = max(80 / 0.403, 90 / 0.426)
    eyes, mouth = dots(crop, 0), dots(crop, 1)
    np.testing.assert_allclose(eyes, [[0.5 - 40 / side, 0.28], [0.5 + 40 / side, 0.28]], atol=0.01)
    np.testing.assert_allclose(mouth.mean(0), [0.5, 0.28 + 90 / side], atol=0.01)


@given(
    x=coordinate, y=coordinate, d=st.floats(10, 120), stretch=st.floats(0.8, 1.4),
    template=st.builds(LandmarkTemplate, st.floats(0.3, 0.5), st.floats(0.35, 0.5), st.floats(0.2, 0.5)),
)  # fmt: skip
def test_template_squares_hold_to_their_formula(
    x: float, y: float, d: float, stretch: float, template: LandmarkTemplate
) -> None:
    ((x0, y0, side),) = crop_squares(upright(x, y, d, d * stretch), template)
    assert side == pytest.approx(max(d / template.eye_distance, d * stretch / template.eyes_to_mouth), rel=1e-4)
    assert (y - y0) / side == pytest.approx(template.eyes_y, abs=1e-3)
    assert x0 + side / 2 == pytest.approx(x, abs=0.05)


@given(coordinate, coordinate, st.floats(1, 300), st.floats(1, 300), st.floats(-0.4, 2))
def test_margin_squares_hold_to_their_formula(x: float, y: float, w: float, h: float, margin: float) -> None:
    ((x0, y0, side),) = crop_squares(faces_at(np.array([[x, y, x + w, y + h]])), BoxMargin(margin))
    assert side == pytest.approx(max(w, h) * (1 + 2 * margin), rel=1e-3)
    assert (x0 + side / 2, y0 + side / 2) == pytest.approx((x + w / 2, y + h / 2), abs=0.1)


def test_a_turned_head_is_cut_between_its_eyes_and_mouth() -> None:
    faces = upright(300, 200, 60, 80)
    faces.landmarks[0, 3:, 0] += 20
    x0, _, side = crop_squares(faces, LandmarkTemplate())[0]
    assert x0 + side / 2 == pytest.approx(310, abs=0.1)


@pytest.mark.parametrize("broken", [np.nan, np.inf, 0.0, 1e6])
def test_the_box_replaces_impossible_landmarks(broken: float) -> None:
    faces = upright(300, 200, 80, 85)
    sound = crop_squares(faces, LandmarkTemplate())[0]
    faces.landmarks[0] = broken * np.arange(1, 11).reshape(5, 2)
    fallback = crop_squares(faces, LandmarkTemplate())[0]
    assert np.isfinite(fallback).all()
    assert fallback == pytest.approx(sound, abs=0.25 * float(sound[2]))


@given(
    st.lists(st.tuples(coordinate, coordinate, st.floats(0, 400), st.floats(0, 400)), max_size=3),
    st.sampled_from([(1, 1), (1, 200), (200, 1), (60, 80)]),
    st.sampled_from([BoxMargin(), BoxMargin(-0.4), LandmarkTemplate()]),
    st.sampled_from(["area", "bilinear", "bicubic", "nearest"]),
)
def test_any_box_in_any_frame_has_a_crop(
    boxes: list[tuple[float, float, float, float]],
    shape: tuple[int, int],
    geometry: BoxMargin | LandmarkTemplate,
    interpolation: Interpolation,
) -> None:
    image = np.random.default_rng(0).integers(100, 200, (*shape, 3), np.uint8)
    corners = np.array([(x, y, x + w, y + h) for x, y, w, h in boxes]).reshape(-1, 4)
    crops = cut_crops(image, faces_at(corners), InputSpec(32, geometry=geometry, interpolation=interpolation))
    assert crops.shape == (len(boxes), 32, 32, 3)
    assert crops.dtype == np.uint8
    # Nothing but pixels of the frame; bicubic overshoots.
    assert interpolation == "bicubic" or not len(crops) or (crops.min() >= 100 and crops.max() < 200)


def test_beyond_the_edge_its_pixels_are_repeated() -> None:
    image = np.arange(100, dtype=np.uint8)[:, None, None] * np.ones((1, 80, 3), np.uint8)
    crop = cut_crops(image, faces_at(np.array([[10, 80, 50, 120]])), InputSpec(40, geometry=BoxMargin(0)))[0]
    assert crop[:, 0, 0].tolist() == [*range(80, 100), *[99] * 20]
    above = cut_crops(
        image[:, :, ::-1], faces_at(np.array([[-900, -900, -860, -860]])), InputSpec(40, geometry=BoxMargin(0))
    )
    assert not above.any()


def test_whole_pixels_at_their_own_size_are_copied() -> None:
    faces = faces_at(np.array([[180, 60, 276, 156]]))
    crop = cut_crops(face_picture(), faces, InputSpec(96, geometry=BoxMargin(0)))[0]
    np.testing.assert_array_equal(crop, face_picture()[60:156, 180:276])


def test_shrinking_by_area_does_not_alias_and_takes_the_mean() -> None:
    stripes = np.zeros((200, 200, 3), np.uint8)
    stripes[:, ::2] = 200
    crop = cut_crops(stripes, faces_at(np.array([[20, 20, 180, 180]])), InputSpec(40, geometry=BoxMargin(0)))[0]
    assert np.ptp(crop) <= 1
    assert crop.mean() == pytest.approx(100, abs=1)


def test_enlarging_by_area_is_smooth() -> None:
    step = np.zeros((64, 64, 3), np.uint8)
    step[:, 32:] = 200
    row = cut_crops(step, faces_at(np.array([[24, 24, 40, 40]])), InputSpec(64, geometry=BoxMargin(0)))[0][30, :, 0]
    assert len(np.unique(row)) > 3
    assert (np.diff(row.astype(int)) >= 0).all()
