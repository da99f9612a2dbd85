from __future__ import annotations

import numpy as np
import pytest

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
    ],
    ids=["jpeg", "h264", "resize", "blur", "noise", "sharpen"],
)
def test_more_is_worse_and_the_picture_stays(image: Image, weak, strong) -> None:
    little, much = weak(image), strong(image)
    assert little.shape == much.shape == image.shape
    assert little.dtype == much.dtype == np.uint8
    assert distance(little, image) < distance(much, image) < 40
    # It is still the same picture, with its channels in their places.
    for channel in range(3):
        assert np.corrcoef(much[..., channel].ravel(), image[..., channel].ravel())[0, 1] > 0.7


@pytest.mark.parametrize("side", [(63, 80), (64, 81), (33, 47)])
def test_video_takes_odd_sides(side: tuple[int, int]) -> None:
    image = face(1, 96)[: side[0], : side[1]]
    assert degrade.h264(np.ascontiguousarray(image), 20).shape == image.shape


def test_video_leaves_the_last_frame_in_its_place(image: Image) -> None:
    """The motion ends where the picture is: a moved mask or landmark would be wrong otherwise."""
    moved = degrade.h264(image, 12, motion_px=(1.5, 1.5))
    assert distance(moved, image) < distance(moved[1:, 1:], image[:-1, :-1])


def test_video_is_reproducible(image: Image) -> None:
    np.testing.assert_array_equal(degrade.h264(image, 33), degrade.h264(image, 33))


def test_a_smooth_picture_is_a_small_jpeg(image: Image) -> None:
    assert degrade.jpeg_size_bytes(degrade.blur(image, 3), 90) < degrade.jpeg_size_bytes(image, 90)
