"""The paired difference of two detectors' AUC."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from trainers.paired import auc_difference


@given(st.integers(0, 10_000), st.integers(4, 60))
def test_the_difference_is_that_of_the_two_aucs_and_changes_its_sign(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    ours, theirs = rng.normal(labels, 1.0), rng.normal(labels, 1.5)
    groups = np.arange(count) // 2
    there, back = (auc_difference(labels, *pair, groups, resamples=60) for pair in ((ours, theirs), (theirs, ours)))
    assert there is not None
    assert back is not None
    assert there.value == pytest.approx(roc_auc_score(labels, ours) - roc_auc_score(labels, theirs))
    assert there.value == pytest.approx(-back.value)
    assert (there.low, there.high) == (pytest.approx(-back.high), pytest.approx(-back.low))
    assert there.low <= there.high
    assert 0 < there.p_worse <= 1


def test_equal_scores_have_no_difference() -> None:
    scores = np.random.default_rng(0).normal(size=40)
    found = auc_difference(np.arange(40) % 2, scores, scores, np.arange(40))
    assert found is not None
    assert (found.value, found.low, found.high, found.p_worse) == (0, 0, 0, 1)


def test_a_small_constant_gain_is_found_that_single_intervals_hide() -> None:
    rng = np.random.default_rng(1)
    labels = np.arange(400) % 2
    theirs = rng.normal(labels, 1.0)
    found = auc_difference(labels, theirs + 0.15 * labels, theirs, np.arange(400))
    assert found is not None
    assert found.low is not None
    assert found.low > 0
    assert found.value < 0.05, "the interval of either AUC alone is wider"


def test_dependent_videos_widen_the_interval() -> None:
    rng = np.random.default_rng(2)
    labels = np.tile(np.repeat([0, 1], 10), 12)
    shift = np.repeat(rng.normal(size=24), 10) * 0.8
    theirs = rng.normal(labels, 1.0)
    ours = theirs + shift
    groups = np.repeat(np.arange(24), 10)
    together, apart = (auc_difference(labels, ours, theirs, each) for each in (groups, np.arange(240)))
    assert together is not None
    assert apart is not None
    assert together.high - together.low > 1.5 * (apart.high - apart.low)  # type: ignore[operator]


def test_without_a_class_there_is_no_difference_and_one_group_has_no_interval() -> None:
    scores = np.arange(6.0)
    assert auc_difference(np.ones(6, int), scores, scores, np.arange(6)) is None
    found = auc_difference(np.arange(6) % 2, scores, -scores, np.zeros(6, int))
    assert found is not None
    assert found.low is None
    assert found.p_worse is None
    with pytest.raises(ValueError, match="one entry"):
        auc_difference(np.ones(6, int), scores, scores[:-1], np.arange(6))
