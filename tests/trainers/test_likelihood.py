"""Bounds of likelihood ratios, and their cost."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.calibration import probability_of
from trainers.likelihood import elub
from trainers.metrics import cllr, cllr_min

scored = st.integers(2, 40).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 1), min_size=n, max_size=n).filter(lambda labels: len(set(labels)) == 2),
        st.lists(st.floats(-12, 12), min_size=n, max_size=n),
    )
)


def normal(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and log-odds that are their own log-likelihood ratios."""
    labels = np.repeat([0, 1], count)
    return labels, rng.normal(np.where(labels == 1, 2.0, -2.0), 2.0)


@settings(deadline=None)
@given(scored)
def test_bounds_enclose_one_and_stay_below_the_number_of_clips(drawn: tuple[list[int], list[float]]) -> None:
    labels, odds = np.array(drawn[0]), np.array(drawn[1])
    lower, upper = elub(labels, odds)
    assert 0 < lower <= 1 <= upper
    assert upper <= (labels == 0).sum() + 1
    assert 1 / lower <= (labels == 1).sum() + 1
    assert math.log(upper) <= max(odds.max(), 0) + 1e-9
    assert math.log(lower) >= min(odds.min(), 0) - 1e-9


@settings(deadline=None)
@given(scored)
def test_swapping_the_classes_mirrors_the_bounds(drawn: tuple[list[int], list[float]]) -> None:
    labels, odds = np.array(drawn[0]), np.array(drawn[1])
    lower, upper = elub(labels, odds)
    assert elub(1 - labels, -odds) == pytest.approx((1 / upper, 1 / lower))


def test_ratios_help_only_between_the_bounds() -> None:
    labels, odds = normal(np.random.default_rng(0), 200)
    _, upper = elub(labels, odds)

    def loss(t: float) -> float:
        misses = ((odds[labels == 1] <= math.log(t)).sum() + 1) / 201
        alarms = ((odds[labels == 0] > math.log(t)).sum() + 1) / 201
        return float(misses + t * alarms)

    assert all(loss(t) < 1 for t in np.geomspace(1.001, 0.999 * upper, 50))
    assert loss(1.001 * upper) >= 1


def test_fewer_clips_give_narrower_bounds() -> None:
    found = [[elub(*normal(np.random.default_rng(seed), n))[1] for seed in range(20)] for n in (20, 200, 2000)]
    means = [np.mean(each) for each in found]
    assert means[0] < means[1] < means[2]


def test_weights_count_clips() -> None:
    labels, odds = normal(np.random.default_rng(1), 50)
    twice = elub(np.tile(labels, 2), np.tile(odds, 2), np.full(200, 0.5))
    assert twice == pytest.approx(elub(labels, odds))


def test_scores_of_one_class_have_no_bounds() -> None:
    with pytest.raises(ValueError, match="reals and fakes"):
        elub(np.zeros(5, int), np.zeros(5))


@settings(deadline=None)
@given(st.integers(1, 50), st.integers(1, 50))
def test_even_odds_cost_one_bit(reals: int, fakes: int) -> None:
    labels = np.array([0] * reals + [1] * fakes)
    assert cllr(labels, np.full(len(labels), 0.5)) == pytest.approx(1)
    assert cllr_min(labels, np.full(len(labels), 0.5)) == pytest.approx(1)


@settings(deadline=None)
@given(scored)
def test_the_best_calibration_costs_no_more_than_this_one_or_none(drawn: tuple[list[int], list[float]]) -> None:
    labels, chance = np.array(drawn[0]), probability_of(np.array(drawn[1]))
    least = cllr_min(labels, chance)
    assert -1e-9 <= least <= min(cllr(labels, chance), 1) + 1e-9


@settings(deadline=None, max_examples=30)
@given(scored, st.floats(0.2, 5), st.floats(-3, 3))
def test_the_best_calibration_does_not_depend_on_the_given_one(
    drawn: tuple[list[int], list[float]], scale: float, shift: float
) -> None:
    labels, odds = np.array(drawn[0]), np.round(np.array(drawn[1]), 3)
    assert cllr_min(labels, scale * odds + shift) == pytest.approx(cllr_min(labels, odds))


def test_cllr_matches_its_definition() -> None:
    ratios = np.array([0.1, 0.5, 3.0, 20.0])
    labels = np.array([0, 0, 1, 1])
    expected = (np.log2(1 + ratios[:2]).mean() + np.log2(1 + 1 / ratios[2:]).mean()) / 2
    assert cllr(labels, ratios / (1 + ratios)) == pytest.approx(expected)


def test_a_certain_and_wrong_probability_has_a_high_finite_cost() -> None:
    assert 20 < cllr(np.array([0, 1]), np.array([1.0, 0.0])) < 30


def test_cllr_min_is_zero_for_separable_scores_and_nan_for_one_class() -> None:
    assert cllr_min(np.array([0, 0, 1]), np.array([0.1, 0.2, 0.3])) == pytest.approx(0)
    assert math.isnan(cllr(np.array([1, 1]), np.array([0.5, 0.6])))
