"""Positions of patches and scaled copies, to a fraction of a pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.faces.pyramid import Pyramid
from pipeline.types import Image


def ramp(width: int = 250, height: int = 200) -> Image:
    """Red is the column, green the row, blue 255 minus the column: a patch shows where it was cut."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(width), np.arange(height)[:, None]
    image[..., 2] = 255 - image[..., 0]
    return image


@given(
    x0=st.floats(0, 120),
    y0=st.floats(0, 90),
    side=st.floats(12, 100),
    size=st.sampled_from([12, 24, 48]),
    near=st.booleans(),
)
def test_patches_are_at_the_requested_place(x0: float, y0: float, side: float, size: int, near: bool) -> None:
    square = np.array([[x0, y0, side]], np.float32)
    pyramid = Pyramid.around(ramp(), square[0], reach=0.5) if near else Pyramid(ramp())
    patch = pyramid.patches(square, size)[0].astype(float)
    # The middle of a patch's pixel i is i + 0.5 steps from its edge. The outermost may reach over the picture's.
    middles, inner = ((np.arange(size) + 0.5) * side / size - 0.5)[2:-2], slice(2, -2)
    columns, rows = patch[inner, inner, 0].mean(0), patch[inner, inner, 1].mean(1)
    # Each halving rounds half levels up, and the last step rounds to whole levels.
    np.testing.assert_allclose(columns, x0 + middles, atol=1.5)
    np.testing.assert_allclose(rows, y0 + middles, atol=1.5)
    # Blue runs down, so its rounding goes the other way.
    assert abs((columns + 255 - patch[inner, inner, 2].mean(0)).mean() / 2 - (x0 + middles).mean()) < 0.55


def test_outside_the_picture_is_black() -> None:
    white = np.full((40, 40, 3), 255, np.uint8)
    patch = Pyramid(white).patches(np.array([[-20, 0, 40]], np.float32), 20)[0]
    assert patch[:, :9].max() == 0
    assert patch[1:-1, 11:].min() == 255
    far = np.array([900, -900, 30], np.float32)
    assert Pyramid.around(white, far).patches(far[None], 24).max() == 0


@pytest.mark.parametrize("scale", [1.0, 0.75, 0.5, 0.3, 0.25, 0.1, 0.01])
@pytest.mark.parametrize("shape", [(200, 250), (37, 251), (1, 3), (3, 1), (1, 1)])
def test_scaled_copies_have_their_exact_scale(scale: float, shape: tuple[int, int]) -> None:
    height, width = shape
    copy, exact = Pyramid(ramp(width, height)).scaled(scale)
    assert copy.shape[:2] == (max(1, round(height * scale)), max(1, round(width * scale)))
    if min(copy.shape[:2]) > 4:
        columns = (np.arange(copy.shape[1]) + 0.5) / exact[0] - 0.5
        np.testing.assert_allclose(copy[..., 0].mean(0)[1:-1], columns[1:-1], atol=1.5)


def test_halving_does_not_alias() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    assert np.ptp(Pyramid(stripes).patches(np.array([[0, 0, 64]], np.float32), 16)) <= 1
