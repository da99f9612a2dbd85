"""Which video a canary judges, and when its arm differs too far."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.contracts import Label, Outcome
from pipeline.weights.arms import Arm, alarm, bounds, counted, is_in_canary
from tests.pipeline.records import record


@given(st.text(min_size=1, max_size=40), st.floats(0.01, 0.5))
def test_a_video_keeps_its_arm_and_a_larger_share_takes_more(video_id: str, share: float) -> None:
    inside = is_in_canary(video_id, "a" * 64, share)
    assert inside is is_in_canary(video_id, "a" * 64, share)
    assert not inside or is_in_canary(video_id, "a" * 64, min(0.5, share + 0.1))


def test_the_share_is_met_and_another_canary_gets_other_videos() -> None:
    ids = [f"video-{number}" for number in range(4000)]
    first, second = ({id_ for id_ in ids if is_in_canary(id_, sha256, 0.1)} for sha256 in ("a" * 64, "b" * 64))
    assert 340 < len(first) < 460
    assert len(first & second) < 80


def arm(videos: int, fake: int, failed: int = 0) -> Arm:
    return Arm(videos=videos, failed=failed, fake=fake, real=videos - failed - fake)


@pytest.mark.parametrize(
    ("canary", "active", "why"),
    [
        (arm(20, 20), arm(2000, 0), None),
        (arm(100, 5), arm(900, 45), None),
        (arm(100, 40), arm(900, 45), "40 of 100 scored videos are called fake, with the active weights 45 of 900"),
        (arm(400, 0), arm(3600, 900), "0 of 400 scored videos are called fake"),
        (arm(200, 10, failed=40), arm(1800, 90, failed=2), "40 of 200 videos end in an error"),
        (arm(200, 10), arm(1800, 90, failed=400), None),
    ],
)
def test_arms_that_differ_too_far_raise_an_alarm(canary: Arm, active: Arm, why: str | None) -> None:
    found = alarm(canary, active, 0.02)
    assert (found is None) if why is None else (found is not None and found.startswith(why))


def test_equal_arms_that_are_looked_at_after_each_video_raise_no_false_alarms() -> None:
    alarms = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        hits = {True: np.cumsum(rng.random(400) < 0.1), False: np.cumsum(rng.random(3600) < 0.1)}
        alarms += any(
            not low <= 0 <= high
            for n in range(30, 400)
            for low, high in [bounds(int(hits[True][n]), n + 1, int(hits[False][9 * n]), 9 * n + 1) or (-1.0, 1.0)]
        )
    assert alarms <= 3, "1 % are allowed; plain 95 % intervals, looked at after each video, alarm in 92 of 300"


@given(st.integers(30, 400), st.integers(0, 400), st.integers(30, 4000), st.integers(0, 4000))
def test_bounds_hold_the_difference_and_change_their_sign(of: int, hits: int, other_of: int, other: int) -> None:
    hits, other = min(hits, of), min(other, other_of)
    low, high = bounds(hits, of, other, other_of) or (0.0, 0.0)
    assert low < hits / of - other / other_of < high
    assert bounds(other, other_of, hits, of) == (pytest.approx(-high), pytest.approx(-low))


@pytest.mark.parametrize(
    ("outcome", "label", "names"),
    [
        (Outcome.SCORED, Label.FAKE, ("videos", "fake")),
        (Outcome.SCORED, Label.INCONCLUSIVE, ("videos", "inconclusive")),
        (Outcome.NO_FACE, None, ("videos",)),
        (Outcome.MODEL_ERROR, None, ("videos", "failed")),
    ],
)
def test_each_verdict_is_counted_once(outcome: Outcome, label: Label | None, names: tuple[str, ...]) -> None:
    assert counted(record(outcome=outcome, label=label)) == names
