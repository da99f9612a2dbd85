"""Views: the crops of a face, each cut once from the frame itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.spec import INCEPTION_MEAN, BoxMargin, InputSpec
from pipeline.faces.crop import crop_squares, cut_crops, cut_square
from pipeline.faces.views import ZOOMS, Looks, View, crops_with_views
from pipeline.types import Faces, Frame, Image

SPEC = InputSpec(size=64)
FACES = Faces.of(
    np.array([[60, 50, 160, 180], [-10, 90, 70, 170]], np.float32),
    np.ones(2, np.float32),
    np.array([[[88, 100], [132, 102], [110, 128], [94, 150], [128, 150]]] * 2, np.float32),
)


@pytest.fixture
def image() -> Image:
    return np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)


def test_looks_are_read_and_written() -> None:
    assert not Looks.parse(None)
    assert not Looks.parse("")
    for text in ("flip", "scales", "flip,scales"):
        assert Looks.parse(text).describe() == text
        assert Looks.parse(text)
    assert Looks.parse(" scales, flip") == Looks(True, True)
    with pytest.raises(ValueError, match="unknown looks: rotate; there are: flip, scales"):
        Looks.parse("flip,rotate")


def test_the_plain_look_comes_first_and_each_cost_is_known() -> None:
    for looks, count in ((Looks(), 1), (Looks(flip=True), 2), (Looks(scales=True), 3), (Looks(True, True), 6)):
        views = looks.views(SPEC)
        assert views[0] == View.of(SPEC)
        assert len(set(views)) == count


def test_specs_that_differ_in_normalisation_share_their_views() -> None:
    assert View.of(SPEC) == View.of(replace(SPEC, mean=INCEPTION_MEAN, std=(0.5,) * 3))
    others = (replace(SPEC, size=96), replace(SPEC, geometry=BoxMargin()), replace(SPEC, interpolation="bilinear"))
    assert len({View.of(SPEC), *(View.of(other) for other in others)}) == 4


def test_every_view_is_cut_from_the_frame_as_its_own_spec_wants(image: Image) -> None:
    large = replace(SPEC, size=96, geometry=BoxMargin())
    views = (View.of(SPEC), View.of(large), View.of(SPEC, flipped=True))
    crops = crops_with_views(Frame(image, 0.5, 7, "clip"), FACES, large, views)
    assert np.array_equal(crops.pixels, cut_crops(image, FACES, large))
    assert np.array_equal(crops.views[0], cut_crops(image, FACES, SPEC))
    assert crops.views[1] is crops.pixels
    assert np.array_equal(crops.views[2], crops.views[0][:, :, ::-1])


@pytest.mark.parametrize("zoom", ZOOMS)
def test_a_zoomed_view_is_the_middle_of_the_square(image: Image, zoom: float) -> None:
    (pixels,) = crops_with_views(Frame(image, 0.0, 0, "clip"), FACES, SPEC, [View.of(SPEC, zoom)]).views
    for found, (x0, y0, side) in zip(pixels, crop_squares(FACES, SPEC.geometry).tolist(), strict=True):
        border = side * (1 - zoom) / 2
        expected = cut_square(image, x0 + border, y0 + border, side * zoom, SPEC.size, SPEC.interpolation)
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("zoom", ZOOMS)
@pytest.mark.parametrize("flipped", [False, True])
def test_a_stored_crop_gives_nearly_the_views_of_the_frame(image: Image, zoom: float, flipped: bool) -> None:
    smooth = np.asarray(image.astype(float).cumsum(0).cumsum(1))
    picture = (smooth / smooth.max() * 255).astype(np.uint8)
    x0, y0, side = (round(value) for value in crop_squares(FACES, SPEC.geometry)[0].tolist())
    stored = picture[y0 : y0 + side, x0 : x0 + side]
    view = View.of(SPEC, zoom, flipped)
    (pixels,) = crops_with_views(Frame(picture, 0.0, 0, "clip"), FACES, SPEC, [view]).views
    assert np.abs(view.of_picture(stored).astype(int) - pixels[0].astype(int)).max() <= 4
