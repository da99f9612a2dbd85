"""A stored crop has the quality that serving measures on its frame."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pipeline.types import Floats, Image
from tests import media
from trainers.augment import degrade
from trainers.augment.outline import template_landmarks
from trainers.evaluation.crop_quality import crop_quality

NOWHERE = np.full((5, 2), np.nan, np.float32)


@pytest.fixture(scope="module")
def crop() -> Image:
    picture = media.face_picture()[64:160, 176:272]
    return np.asarray(cv2.resize(picture, (224, 224), interpolation=cv2.INTER_CUBIC))


@pytest.fixture(scope="module")
def points() -> Floats:
    return template_landmarks(224)


def test_quality_grows_with_the_size_in_the_source(crop: Image, points: Floats) -> None:
    found = [crop_quality(crop, points, width) for width in (28, 40, 60, 90, 140)]
    assert all(0 <= value <= 1 for value in found)
    assert found == sorted(found)
    assert found[0] < 0.2
    assert found[-1] > 2 * found[1]


def test_enlarging_for_storage_does_not_change_the_quality(crop: Image, points: Floats) -> None:
    small = np.asarray(cv2.resize(crop, (56, 56), interpolation=cv2.INTER_AREA))
    stored = np.asarray(cv2.resize(small, (224, 224), interpolation=cv2.INTER_LINEAR))
    assert crop_quality(stored, points, 56) == pytest.approx(crop_quality(small, points / 4, 56), abs=0.15)


def test_a_blurred_crop_has_lower_quality(crop: Image, points: Floats) -> None:
    assert crop_quality(degrade.blur(crop, 8), points, 224) < crop_quality(crop, points, 224)


def test_unknown_landmarks_and_sizes_have_a_default(crop: Image, points: Floats) -> None:
    known = crop_quality(crop, points, 224)
    assert crop_quality(crop, NOWHERE, 224) == pytest.approx(known)
    assert crop_quality(crop, points, np.nan) == pytest.approx(known)
    # A crop shrunk for storage cannot be enlarged again.
    assert crop_quality(crop, points, 600) == pytest.approx(known)
