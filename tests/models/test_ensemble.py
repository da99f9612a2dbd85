"""Ensembles: the mean of calibrated log-odds, and thresholds with a bounded error rate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.calibration import LikelihoodBounds
from models.checkpoint import Calibration, Thresholds
from models.checkpoint_info import LOGIT_LIMIT
from models.ensemble import Combination, combined_thresholds

calibrations = st.builds(Calibration, st.floats(0.05, 5), st.floats(-4, 4))
members = st.lists(calibrations, min_size=2, max_size=4)


def sigmoid(log_odds: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-np.asarray(log_odds, np.float64))))


@given(members=members, data=st.data())
def test_the_probability_uses_the_mean_of_calibrated_log_odds(members: list[Calibration], data: st.DataObject) -> None:
    row = st.lists(st.floats(-LOGIT_LIMIT, LOGIT_LIMIT), min_size=3, max_size=3)
    logits = np.array([data.draw(row) for _ in members])
    together = Combination.of(members)
    found = together.calibration.probability(together.combine(logits))
    by_hand = np.mean([each.scale * row + each.bias for each, row in zip(members, logits, strict=True)], axis=0)
    np.testing.assert_allclose(found, sigmoid(by_hand), atol=1e-5)


@given(members=members, wild=st.floats(-1e6, 1e6))
def test_outlier_members_are_clipped_and_frames_are_not_clipped_twice(members: list[Calibration], wild: float) -> None:
    logits = np.zeros((len(members), 1))
    logits[0] = wild
    together = Combination.of(members)
    assert abs(together.combine(logits)[0]) <= LOGIT_LIMIT + 1e-5
    held = logits.copy()
    held[0] = np.clip(wild, -LOGIT_LIMIT, LOGIT_LIMIT)
    assert together.combine(logits) == together.combine(held)


def test_one_member_stays_as_it_is() -> None:
    alone = Combination.of([Calibration(2.0, 0.5)])
    logits = np.array([[-9.0, 0.25, 30.0]], np.float32)
    assert alone.combine(logits).tolist() == logits[0].tolist()
    assert alone.calibration == Calibration(2.0, 0.5)


def test_members_with_a_broken_line_are_averaged_by_it() -> None:
    bent = Calibration(curve=((-2.0, -4.0), (0.0, 0.0), (6.0, 3.0)))
    together = Combination.of([bent, Calibration()])
    logits = np.array([[-2.0, 2.0], [-2.0, 2.0]])
    np.testing.assert_allclose(together.calibration.log_odds(together.combine(logits)), [-3.0, 1.5], atol=1e-6)


def test_trust_is_the_mean_of_the_members_and_bounds_are_the_narrowest() -> None:
    first = Calibration(quality=((0.1, 0.0), (0.5, 1.0)), bounds=LikelihoodBounds(0.1, 40.0, 100, 80))
    second = Calibration(quality=((0.1, 0.5), (0.9, 1.0)), bounds=LikelihoodBounds(0.05, 20.0, 200, 50))
    together = Combination.of([first, second]).calibration
    qualities = np.linspace(0, 1, 11)
    expected = (first.trust(qualities) + second.trust(qualities)) / 2
    np.testing.assert_allclose(together.trust(qualities), expected)
    assert together.bounds == LikelihoodBounds(0.1, 20.0, 100, 50)
    assert Combination.of([first, Calibration()]).calibration.bounds is None


def thresholds(fake: float, real: float, fpr: float = 0.01) -> Thresholds:
    return Thresholds(fpr, (fake,) * 8, (real,) * 8)


def test_thresholds_are_the_mean_in_log_odds() -> None:
    found = combined_thresholds([thresholds(0.9, 0.2), thresholds(0.5, 0.2, 0.02)])
    assert found is not None
    assert found.of(3) == (pytest.approx(0.2), pytest.approx(0.75))  # sqrt(9 x 1) = 3 to 1
    assert found.fpr == 0.02
    alone = thresholds(0.9, 0.2)
    assert combined_thresholds([alone]) is alone
    assert combined_thresholds([alone, None]) is None
    assert combined_thresholds([thresholds(1.0, 0.0), thresholds(1.0, 0.0)]) is not None


@settings(deadline=None)
@given(correlation=st.floats(0, 1), seed=st.integers(0, 1000))
def test_the_ensemble_error_rate_does_not_exceed_the_members_rate(correlation: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    common, own = rng.normal(size=(1, 4000)), rng.normal(size=(2, 4000))
    odds = np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own
    odds = odds * [[1.0], [2.5]] + [[0.3], [-1.0]]
    singles = [thresholds(float(sigmoid(np.quantile(row, 0.99))), 0.001) for row in odds]
    found = combined_thresholds(singles)
    assert found is not None
    # Sampling noise of a 1 % quantile over 4,000 draws: a third of it.
    assert (sigmoid(odds.mean(axis=0)) >= found.fake[0]).mean() <= 0.0134
