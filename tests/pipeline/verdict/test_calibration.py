"""From log-odds to a probability, and from a probability to a label."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.checkpoint import Calibration, Thresholds
from pipeline.contracts import Label
from pipeline.verdict.calibration import label, probability

log_odds = st.floats(-1e6, 1e6, width=32)
platt = st.builds(Calibration, scale=st.floats(0.01, 10), bias=st.floats(-10, 10))
THRESHOLDS = Thresholds(
    fpr=0.05,
    fake=(0.60, 0.70, 0.75, 0.80, 0.85, 0.90, 0.92, 0.95),
    real=(0.30, 0.35, 0.40, 0.45, 0.45, 0.45, 0.45, 0.45),
)


def test_without_calibration_it_is_the_sigmoid() -> None:
    got = probability(np.array([0.0, math.log(3), -math.log(3)], np.float32), None)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, [0.5, 0.75, 0.25], atol=1e-6)


def test_platt_scaling_is_applied_to_the_log_odds() -> None:
    got = probability(np.array([1.0], np.float32), Calibration(scale=2.0, bias=-2.0 + math.log(3)))
    np.testing.assert_allclose(got, [0.75], atol=1e-6)


@given(st.lists(log_odds, min_size=1), platt)
def test_probabilities_are_in_0_to_1_and_grow_with_the_log_odds(values: list[float], calibration: Calibration) -> None:
    got = probability(np.array(sorted(values), np.float32), calibration)
    assert np.isfinite(got).all()
    assert got.min() >= 0
    assert got.max() <= 1
    assert (np.diff(got) >= 0).all()


@given(log_odds)
def test_fake_and_real_add_up_to_one(value: float) -> None:
    both = probability(np.array([value, -value], np.float32), None)
    assert both.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("people", "value", "expected"),
    [
        (1, 0.60, Label.FAKE),
        (1, 0.5999, Label.INCONCLUSIVE),
        (1, 0.30, Label.INCONCLUSIVE),
        (1, 0.2999, Label.REAL),
        (2, 0.60, Label.INCONCLUSIVE),
        (2, 0.70, Label.FAKE),
        (8, 0.94, Label.INCONCLUSIVE),
        (8, 0.95, Label.FAKE),
        (8, 0.44, Label.REAL),
    ],
)
def test_the_label_depends_on_the_number_of_people(people: int, value: float, expected: Label) -> None:
    assert label(value, people, THRESHOLDS) is expected


@given(st.integers(8, 1000))
def test_beyond_eight_people_the_last_thresholds_hold(people: int) -> None:
    assert THRESHOLDS.of(people) == (0.45, 0.95)


@given(st.floats(0, 1), st.integers(1, 20))
def test_weights_without_thresholds_are_inconclusive(value: float, people: int) -> None:
    assert label(value, people, None) is Label.INCONCLUSIVE


def test_zero_people_have_no_thresholds() -> None:
    with pytest.raises(ValueError, match="at least one"):
        label(0.5, 0, THRESHOLDS)
