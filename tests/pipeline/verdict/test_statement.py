"""What a verdict says in words, from its scores."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.calibration import Calibration, LikelihoodBounds
from pipeline.contracts import Label, LimitCode, Strength, Verdict
from pipeline.verdict.aggregate import judge
from pipeline.verdict.statement import evidence_of
from tests.pipeline.verdict.test_aggregate import FACTS, THRESHOLDS, scores, track, verdict

BOUNDS = LikelihoodBounds(1 / 50, 40.0, 900, 1100)
BOUNDED = Calibration(bounds=BOUNDS)


def codes(found: Verdict, of: int | None = None) -> set[LimitCode]:
    return {limit.code for limit in found.limits if limit.track == of}


@pytest.mark.parametrize(
    ("ratio", "strength", "supports"),
    [
        (1.0, Strength.NONE, "neither"),
        (1.99, Strength.NONE, "neither"),
        (2.0, Strength.WEAK, "forged"),
        (1 / 9, Strength.WEAK, "real"),
        (10.0, Strength.MODERATE, "forged"),
        (1 / 100, Strength.MODERATELY_STRONG, "real"),
        (1e3, Strength.STRONG, "forged"),
        (1e4, Strength.VERY_STRONG, "forged"),
        (1e6, Strength.EXTREMELY_STRONG, "forged"),
    ],
)
def test_ratios_in_the_words_of_the_scale(ratio: float, strength: Strength, supports: str) -> None:
    found = evidence_of(ratio, None)
    assert found is not None
    assert (found.strength, found.supports, found.at_bound, found.validation_clips) == (strength, supports, False, None)


@given(st.floats(-30, 30))
def test_evidence_never_passes_what_validation_supports(logit: float) -> None:
    found = judge(FACTS, scores(track(0, 20, logit)), BOUNDED, THRESHOLDS)
    assert found.evidence is not None
    assert found.likelihood_ratio is not None
    assert found.evidence.strength in (Strength.NONE, Strength.WEAK, Strength.MODERATE)
    assert found.evidence.validation_clips == 2000
    assert found.evidence.at_bound == (logit >= math.log(40) or logit <= -math.log(50)) or math.isclose(
        abs(logit), math.log(40 if logit > 0 else 50), rel_tol=1e-6
    )


def test_a_fake_has_an_extent_and_others_have_none() -> None:
    forged = verdict(track(0, 20, -3.0) + track(1, 8, 4.0, start=4))
    assert forged.label is Label.FAKE
    assert forged.extent is not None
    assert forged.extent.tracks == [1]
    assert forged.extent.stretches == [(2.0, 5.5)]
    assert forged.extent.share == pytest.approx(0.35)
    assert verdict(track(0, 20, -3.0)).extent is None
    assert verdict(track(0, 20, 0.2)).extent is None
    assert verdict(track(0, 20, 4.0), thresholds=None).extent is None


def test_stretches_of_several_people_are_merged() -> None:
    found = verdict(track(0, 6, 4.0) + track(1, 6, 4.0, start=4) + track(2, 5, 4.0, start=15))
    assert found.extent is not None
    assert found.extent.tracks == [0, 1, 2]
    assert found.extent.stretches == [(0.0, 4.5), (7.5, 9.5)]


def test_limits_of_people() -> None:
    small = verdict(track(0, 20, 1.0))  # faces of 28 x 38 px
    assert codes(small, 0) == {LimitCode.SMALL_FACE}
    few = verdict(track(0, 8, 1.0))
    assert codes(few, 0) == {LimitCode.SMALL_FACE, LimitCode.FEW_FRAMES}
    doubtful = Calibration(quality=((0.0, 0.0), (0.2, 0.1), (1.0, 1.0)))
    poor = judge(FACTS, scores(track(0, 20, 1.0), [0.2] * 20), doubtful, THRESHOLDS)
    assert LimitCode.POOR_PICTURE in codes(poor, 0)


def test_limits_of_the_clip() -> None:
    many = verdict([row for person in range(4) for row in track(person, 20, -1.0)])
    assert LimitCode.MANY_PEOPLE in codes(many)
    assert codes(verdict(track(0, 20, -1.0))) == set()
    facts = replace(FACTS, not_judged={"tiny": 30, "turned": 2})
    assert codes(judge(facts, scores(track(0, 20, 1.0)), None, THRESHOLDS)) == {LimitCode.TINY, LimitCode.TURNED}
    facts = replace(FACTS, not_judged={"tiny": 3})
    assert codes(judge(facts, scores(track(0, 20, 1.0)), None, THRESHOLDS)) == set()


def test_a_clip_that_is_not_scored_says_why_and_no_more() -> None:
    found = judge(replace(FACTS, faces_seen=9, not_judged={"unclear": 9}), scores([]), BOUNDED, THRESHOLDS)
    assert (found.evidence, found.extent, codes(found)) == (None, None, {LimitCode.UNCLEAR})
