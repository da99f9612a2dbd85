"""How the quality of a person's frames affects the evidence."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.calibration import Calibration, LikelihoodBounds
from pipeline.contracts import Label
from pipeline.verdict.aggregate import judge
from pipeline.verdict.evidence import LogitSum, LogitSums, track_probability
from tests.pipeline.verdict.test_aggregate import FACTS, THRESHOLDS, scores, track

TRUST = ((0.0, 0.0), (0.3, 0.2), (0.6, 1.0))
TRUSTING = Calibration(quality=TRUST)
BOUNDED = Calibration(quality=TRUST, bounds=LikelihoodBounds(0.05, 30.0, 400, 400))
frames = st.lists(st.tuples(st.floats(-12, 12), st.floats(0, 1)), min_size=1, max_size=20)


def columns(drawn: list[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([x for x, _ in drawn]), np.array([q for _, q in drawn])


@settings(deadline=None)
@given(frames, st.integers(0, 20))
def test_sums_over_parts_are_those_of_the_whole(drawn: list[tuple[float, float]], cut: int) -> None:
    logits, quality = columns(drawn)
    parts = [LogitSum.of(logits[half], quality[half], TRUSTING) for half in (slice(None, cut), slice(cut, None))]
    whole = LogitSum.of(logits, quality, TRUSTING)
    assert (parts[0] + parts[1]).log_odds(TRUSTING) == pytest.approx(whole.log_odds(TRUSTING), abs=1e-5)


@settings(deadline=None)
@given(frames, st.data())
def test_sums_of_groups_are_those_of_each_group(drawn: list[tuple[float, float]], data: st.DataObject) -> None:
    logits, quality = columns(drawn)
    group = np.array(data.draw(st.lists(st.integers(3, 6), min_size=len(drawn), max_size=len(drawn))))
    found = LogitSums.of_groups(logits, quality, group, TRUSTING)
    each = LogitSums.of([LogitSum.of(logits[group == g], quality[group == g], TRUSTING) for g in np.unique(group)])
    np.testing.assert_allclose(found.values, each.values, rtol=1e-9, atol=1e-9)


@settings(deadline=None)
@given(frames)
def test_evidence_is_the_weighted_mean_over_frames(drawn: list[tuple[float, float]]) -> None:
    logits, quality = columns(drawn)
    calibration = Calibration(1.7, -0.4, quality=TRUST)
    if quality.sum() < 1e-3:
        return
    each = calibration.log_odds(logits.clip(-6, 6), quality)
    expected = (each * quality).sum() / quality.sum()
    assert LogitSum.of(logits, quality, calibration).log_odds(calibration) == pytest.approx(expected, abs=1e-4)


@settings(deadline=None)
@given(frames)
def test_trust_never_makes_evidence_stronger(drawn: list[tuple[float, float]]) -> None:
    logits, quality = columns(drawn)
    assert LogitSum.of(logits, quality, TRUSTING).trust(TRUSTING) <= 1
    worst = np.full(len(logits), 0.1)
    poor, good = (abs(LogitSum.of(logits, worst, each).log_odds(each)) for each in (TRUSTING, Calibration()))
    assert poor <= good + 1e-9


@settings(deadline=None)
@given(frames)
def test_equal_trust_gives_the_quality_weighted_mean(drawn: list[tuple[float, float]]) -> None:
    logits, quality = columns(drawn)
    clipped = logits.clip(-6, 6)
    weights = quality if quality.sum() > 0 else np.ones(len(quality))
    mean = np.float32((clipped * weights).sum() / weights.sum())
    calibration = Calibration(0.53, 0.97)
    expected = float(calibration.probability(np.array([mean]))[0])
    assert track_probability(logits, quality, calibration) == pytest.approx(expected, abs=1e-5)


def test_wild_scores_of_poor_frames_do_not_outvote_clear_ones() -> None:
    logits, quality = np.array([6.0] * 50 + [-2.0] * 10), np.array([0.2] * 50 + [0.8] * 10)
    assert track_probability(logits, quality, None) > 0.9
    assert track_probability(logits, quality, TRUSTING) < 0.5


def test_a_small_face_behind_the_speaker_cannot_make_a_clip_fake() -> None:
    speaker, behind = track(0, 20, -2.0), track(1, 20, 6.0)
    quality = [0.9] * 20 + [0.15] * 20
    assert judge(FACTS, scores(speaker + behind, quality), Calibration(), THRESHOLDS).label is Label.FAKE
    got = judge(FACTS, scores(speaker + behind, quality), BOUNDED, THRESHOLDS)
    assert got.label is Label.INCONCLUSIVE


def test_the_clips_likelihood_ratio_is_that_of_the_person_who_decides() -> None:
    got = judge(FACTS, scores(track(0, 20, -1.0) + track(1, 20, 2.0) + track(2, 20, 9.0), [1.0] * 60), BOUNDED, None)
    ratios = [person.likelihood_ratio for person in got.people]
    assert ratios == pytest.approx([math.exp(-1), math.exp(2), 30.0])
    assert got.likelihood_ratio == ratios[2]
    assert judge(FACTS, scores(track(0, 20, -9.0)), BOUNDED, None).likelihood_ratio == pytest.approx(0.05)


def test_no_likelihood_ratio_without_bounds_from_validation() -> None:
    got = judge(FACTS, scores(track(0, 20, 1.0)), TRUSTING, None)
    assert got.likelihood_ratio is got.people[0].likelihood_ratio is None
