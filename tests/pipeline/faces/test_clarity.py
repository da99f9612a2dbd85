"""Clarity: lower under stronger degradation, unchanged by harmless edits."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.faces.clarity import PATCH_PX, SMALLEST_PX, clarity
from pipeline.types import Image
from tests.media import face_picture
from trainers.augment import degrade

# Noise and the finest texture look alike: if a degradation removes texture that counted as noise, clarity may rise a
# little first.
SLACK = 0.12
SIDE_PX = 224


def face(margin_px: int = 0) -> Image:
    """uint8 [224, 224, 3]: the astronaut's, enlarged from 150 px, with some of her surroundings."""
    around = face_picture()[48 - margin_px : 198 + margin_px, 150 - margin_px : 300 + margin_px]
    return np.asarray(cv2.resize(around, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_CUBIC))


PICTURES = {
    "face": face(),
    "dark face": np.asarray(cv2.convertScaleAbs(face(), alpha=0.5, beta=10)),
    "wider": face(margin_px=10),
}


def clarity_of(image: Image) -> float:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return clarity(np.asarray(cv2.resize(grey, (PATCH_PX, PATCH_PX), interpolation=cv2.INTER_AREA)))


def motion(image: Image, length_px: int, angle_deg: float = 0.0) -> Image:
    """Smeared along a line."""
    kernel = np.zeros((length_px, length_px), np.float32)
    kernel[length_px // 2] = 1
    middle = (length_px - 1) / 2
    kernel = cv2.warpAffine(kernel, cv2.getRotationMatrix2D((middle, middle), angle_deg, 1), (length_px, length_px))
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE))


def defocus(image: Image, radius_px: int) -> Image:
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius_px + 1,) * 2).astype(np.float32)
    return np.asarray(cv2.filter2D(image, -1, disc / disc.sum(), borderType=cv2.BORDER_REPLICATE))


def mosaic(image: Image, cells: int) -> Image:
    small = cv2.resize(image, (cells, cells), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, image.shape[1::-1], interpolation=cv2.INTER_NEAREST))


def noisy(image: Image, sigma: float) -> Image:
    return degrade.noise(image, sigma, np.random.default_rng(0))


LADDERS = {
    "blur": (degrade.blur, (0.8, 1.5, 3, 5, 8)),
    "defocus": (defocus, (1, 3, 6, 10)),
    "motion": (motion, (5, 9, 15, 25)),
    "slanted motion": (lambda image, length: motion(image, length, 30), (5, 9, 15, 25)),
    "resize": (degrade.resize, (0.5, 0.25, 0.125, 0.0625)),
    "noise": (noisy, (3, 6, 10, 25)),
}


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("kind", LADDERS)
def test_the_stronger_the_degradation_the_lower_the_clarity(kind: str, picture: str) -> None:
    degraded, strengths = LADDERS[kind]
    steps = [clarity_of(PICTURES[picture])] + [clarity_of(degraded(PICTURES[picture], s)) for s in strengths]
    assert all(later <= before + SLACK for before, later in pairwise(steps)), steps
    assert steps[-1] < 0.85 * steps[0]


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(sorted(PICTURES)), st.floats(0.3, 8), st.floats(0.3, 8))
def test_more_blur_is_never_clearer(picture: str, a: float, b: float) -> None:
    less, more = sorted((a, b))
    image = PICTURES[picture]
    assert clarity_of(degrade.blur(image, more)) <= clarity_of(degrade.blur(image, less)) + SLACK


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(sorted(PICTURES)), st.integers(5, 40))
def test_a_mosaic_holds_nothing(picture: str, cells: int) -> None:
    assert clarity_of(mosaic(PICTURES[picture], cells)) < 0.1


def test_a_mosaic_that_was_compressed_or_made_noisy_holds_little() -> None:
    hidden = mosaic(face(), 14)
    for image in (degrade.h264(hidden, 28), degrade.jpeg(hidden, 75), noisy(hidden, 6)):
        assert clarity_of(image) < 0.25 * clarity_of(face())


@pytest.mark.parametrize("codec", [lambda im: degrade.jpeg(im, 8), lambda im: degrade.h264(im, 47)])
def test_few_bits_take_much_away(codec) -> None:  # type: ignore[no-untyped-def]
    dark = PICTURES["dark face"]
    assert clarity_of(codec(dark)) < 0.8 * clarity_of(dark)


HARMLESS = {
    "mirrored": lambda image: np.ascontiguousarray(image[:, ::-1]),
    "upside down": lambda image: np.ascontiguousarray(image[::-1]),
    "brighter": lambda image: cv2.convertScaleAbs(image, alpha=1, beta=15),
    "softer contrast": lambda image: cv2.convertScaleAbs(image, alpha=0.8, beta=20),
    "grey": lambda image: cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB),
    "JPEG 90": lambda image: degrade.jpeg(image, 90),
    "larger": lambda image: cv2.resize(image, None, fx=1.1, fy=1.1, interpolation=cv2.INTER_CUBIC),
    "smaller": lambda image: cv2.resize(image, None, fx=0.9, fy=0.9, interpolation=cv2.INTER_AREA),
}


@pytest.mark.parametrize("change", HARMLESS)
@pytest.mark.parametrize("picture", PICTURES)
def test_changes_that_keep_detail_keep_clarity(picture: str, change: str) -> None:
    image = PICTURES[picture]
    assert clarity_of(np.asarray(HARMLESS[change](image))) == pytest.approx(clarity_of(image), abs=0.1)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 160), st.integers(1, 160), st.integers(0, 2**32 - 1), st.integers(0, 255))
def test_clarity_is_a_share_for_any_patch(height: int, width: int, seed: int, most: int) -> None:
    patch = np.random.default_rng(seed).integers(0, most + 1, (height, width), np.uint8)
    first = clarity(patch)
    assert 0 <= first <= 1
    assert first == clarity(patch.copy())


def test_a_plain_patch_and_a_sliver_hold_nothing() -> None:
    assert clarity(np.full((PATCH_PX, PATCH_PX), 90, np.uint8)) == 0
    assert clarity(np.zeros((SMALLEST_PX - 1, PATCH_PX), np.uint8)) == 0
