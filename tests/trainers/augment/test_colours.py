from __future__ import annotations

import numpy as np
import pytest

from tests.trainers.crops import face
from trainers.augment.colours import MATCHINGS, Matching, match_colours

SOURCE, TARGET = face(1), np.asarray(face(2) // 2 + 20, np.uint8)
WHERE = np.zeros(SOURCE.shape[:2], np.float32)
WHERE[20:70, 20:70] = 1
INSIDE = WHERE > 0.5


@pytest.mark.parametrize("how", sorted(set(MATCHINGS) - {"none"}))
def test_matched_colours_have_the_mean_of_the_target(how: Matching) -> None:
    matched = match_colours(SOURCE, TARGET, WHERE, how)
    wanted = TARGET[INSIDE].mean(axis=0)
    assert np.abs(matched[INSIDE].mean(axis=0) - wanted).max() < 6
    assert np.abs(SOURCE[INSIDE].mean(axis=0) - wanted).max() > 10


def test_no_matching_keeps_the_picture() -> None:
    assert match_colours(SOURCE, TARGET, WHERE, "none") is SOURCE
    assert match_colours(SOURCE, TARGET, np.zeros_like(WHERE), "reinhard") is SOURCE


def test_an_overexposed_source_does_not_get_the_brightest_target_level() -> None:
    source, target = SOURCE.copy(), (TARGET // 2).astype(np.uint8)
    source[20:70, 45:70] = 255
    target[40:42, 40:42] = 255
    assert match_colours(source, target, WHERE, "histogram")[20:70, 45:70].max() < 200


def test_histogram_matching_stays_in_the_range_of_the_target() -> None:
    """Also outside the mask, where the source is brighter and darker than anything inside."""
    source = SOURCE.copy()
    source[:5], source[5:10] = 255, 0
    matched = match_colours(source, TARGET, WHERE, "histogram")
    assert (matched <= TARGET[INSIDE].max(axis=0)).all()
    assert (matched >= TARGET[INSIDE].min(axis=0)).all()
