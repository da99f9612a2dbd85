from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.types import Image
from tests.trainers.crops import face
from trainers.augment import degrade


def distance(a: Image, b: Image) -> float:
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


@pytest.fixture(scope="module")
def image() -> Image:
    return face(3, 112)


@pytest.mark.parametrize(
    ("weak", "strong"),
    [
        (lambda x: degrade.jpeg(x, 95), lambda x: degrade.jpeg(x, 10)),
        (lambda x: degrade.h264(x, 18), lambda x: degrade.h264(x, 45)),
        (lambda x: degrade.resize(x, 0.8), lambda x: degrade.resize(x, 0.2)),
        (lambda x: degrade.blur(x, 0.5), lambda x: degrade.blur(x, 4)),
        (
            lambda x: degrade.noise(x, 1, np.random.default_rng(0)),
            lambda x: degrade.noise(x, 20, np.random.default_rng(0)),
        ),
        (lambda x: degrade.sharpen(x, 0.1), lambda x: degrade.sharpen(x, 2)),
        (lambda x: degrade.sharpen(x, 1, 0.8), lambda x: degrade.sharpen(x, 1, 3)),
        (lambda x: degrade.defocus(x, 1), lambda x: degrade.defocus(x, 7)),
        (lambda x: degrade.motion_blur(x, 3, 20), lambda x: degrade.motion_blur(x, 16, 20)),
        (lambda x: degrade.mosaic(x, 2), lambda x: degrade.mosaic(x, 9)),
        (lambda x: degrade.sepia(x, 0.1), lambda x: degrade.sepia(x, 1)),
        (
            lambda x: degrade.noise(x, 2, np.random.default_rng(0), luma=True, grain_px=1),
            lambda x: degrade.noise(x, 20, np.random.default_rng(0), luma=True, grain_px=1),
        ),
    ],
    ids=[
        "jpeg",
        "h264",
        "resize",
        "blur",
        "noise",
        "sharpen",
        "sharpen radius",
        "defocus",
        "motion",
        "mosaic",
        "sepia",
        "luma noise",
    ],
)
def test_stronger_degradation_is_worse_and_keeps_the_picture(image: Image, weak, strong) -> None:
    little, much = weak(image), strong(image)
    assert little.shape == much.shape == image.shape
    assert little.dtype == much.dtype == np.uint8
    assert distance(little, image) < distance(much, image) < 40
    # It is still the same picture, with the same channel order.
    for channel in range(3):
        assert np.corrcoef(much[..., channel].ravel(), image[..., channel].ravel())[0, 1] > 0.7


def point(side: int = 41) -> Image:
    image = np.zeros((side, side, 3), np.uint8)
    image[side // 2, side // 2] = 255
    return image


@given(length_px=st.floats(2, 20), angle=st.floats(0, 180))
@settings(max_examples=40, deadline=None)
def test_motion_blur_of_a_point_is_a_line_of_that_length_and_direction(length_px: float, angle: float) -> None:
    weight = degrade.motion_blur(point(), length_px, angle)[..., 0].astype(float)
    y, x = np.mgrid[-20:21, -20:21]
    covariance = np.cov(np.stack([x.ravel(), y.ravel()]), aweights=weight.ravel(), ddof=0)
    values, vectors = np.linalg.eigh(covariance)
    assert values[1] == pytest.approx(length_px**2 / 12, rel=0.1, abs=0.6)
    assert values[0] < 0.6
    if length_px > 6:
        direction = np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1])) % 180
        assert min(abs(direction - angle), 180 - abs(direction - angle)) < 6


@given(radius_px=st.floats(1.5, 12))
@settings(max_examples=20, deadline=None)
def test_a_point_out_of_focus_is_an_even_disc(radius_px: float) -> None:
    weight = degrade.defocus(point(), radius_px)[..., 0]
    y, x = np.mgrid[-20:21, -20:21]
    distance_px = np.hypot(x, y)
    inside = weight[distance_px < radius_px - 0.5]
    assert inside.max() - inside.min() <= 1
    assert not weight[distance_px > radius_px + 0.5].any()


@given(cell_px=st.floats(2, 16))
@settings(max_examples=20, deadline=None)
def test_a_mosaic_has_one_colour_per_cell(cell_px: float) -> None:
    colours = np.unique(degrade.mosaic(face(1, 96), cell_px).reshape(-1, 3), axis=0)
    assert len(colours) <= round(96 / cell_px) ** 2


def test_luma_noise_has_no_colour_and_grain_is_coarse() -> None:
    grey = np.full((96, 96, 3), 128, np.uint8)
    luma = degrade.noise(grey, 15, np.random.default_rng(0), luma=True, grain_px=1.5).astype(float)
    assert (luma[..., 0] == luma[..., 2]).all()
    assert luma.std() == pytest.approx(15, rel=0.1)
    white = degrade.noise(grey, 15, np.random.default_rng(0)).astype(float)
    neighbours = [float(np.corrcoef(n[:, 1:, 0].ravel(), n[:, :-1, 0].ravel())[0, 1]) for n in (luma, white)]
    assert neighbours[0] > 0.6 > 0.1 > abs(neighbours[1])


def test_sepia_is_yellowish() -> None:
    grey = np.full((16, 16, 3), 120, np.uint8)
    red, green, blue = degrade.sepia(grey, 1)[0, 0]
    assert red > green > blue


@pytest.mark.parametrize("side", [(63, 80), (64, 81), (33, 47)])
def test_video_accepts_odd_sides(side: tuple[int, int]) -> None:
    image = face(1, 96)[: side[0], : side[1]]
    assert degrade.h264(np.ascontiguousarray(image), 20).shape == image.shape


def test_video_keeps_the_position_of_the_last_frame(image: Image) -> None:
    """The motion ends at the original position, or mask and landmarks would be wrong."""
    moved = degrade.h264(image, 12, motion_px=(1.5, 1.5))
    assert distance(moved, image) < distance(moved[1:, 1:], image[:-1, :-1])


def test_video_is_reproducible(image: Image) -> None:
    np.testing.assert_array_equal(degrade.h264(image, 33), degrade.h264(image, 33))


def test_a_smooth_picture_is_a_small_jpeg(image: Image) -> None:
    assert degrade.jpeg_size_bytes(degrade.blur(image, 3), 90) < degrade.jpeg_size_bytes(image, 90)
