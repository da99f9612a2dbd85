"""The counters of a stream's state, for segments in any order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.calibration import Calibration
from pipeline.contracts import Outcome
from pipeline.live.state import MAX_GAPS, StreamState
from pipeline.types import Scores
from pipeline.verdict.evidence import LogitSum, track_probability
from tests.pipeline.records import PROVENANCE


def fresh() -> StreamState:
    return StreamState(stream_id="s", started_at=1.0, updated_at=1.0)


def scores(logits: list[float], tracks: list[int], first: int = 0) -> Scores:
    n = len(logits)
    return Scores(
        "s",
        np.arange(first, first + n),
        np.arange(first, first + n) / 2,
        np.array(tracks, np.int64),
        np.full(n, 0.5, np.float32),
        np.zeros((n, 4), np.float32),
        np.array(logits, np.float32),
        np.full(n, 0.5, np.float32),
    )


@given(st.lists(st.integers(0, 12), max_size=40))
def test_each_segment_is_applied_once_and_gaps_are_missing(order: list[int]) -> None:
    state = fresh()
    admitted = [sequence for sequence in order if state.admit(sequence)]
    assert sorted(admitted) == sorted(set(order))
    assert state.duplicated == len(order) - len(set(order))
    assert state.missing == max(order, default=-1) + 1 - len(set(order))
    came_late = [s for i, s in enumerate(admitted) if s < max(admitted[:i], default=-1)]
    assert state.late == len(came_late)


def test_a_closed_stream_admits_nothing() -> None:
    state = fresh()
    assert state.admit(0)
    state.closed = True
    assert not state.admit(1)


def test_a_very_long_gap_stays_missing() -> None:
    state = fresh()
    state.admit(10 * MAX_GAPS)
    assert state.missing == 10 * MAX_GAPS
    assert len(state.gaps) == MAX_GAPS
    assert not state.admit(0)


@given(st.data())
def test_sums_of_segments_equal_those_of_the_whole(data: st.DataObject) -> None:
    logits = data.draw(st.lists(st.floats(-20, 20), min_size=2, max_size=30))
    cut = data.draw(st.integers(1, len(logits) - 1))
    state = fresh()
    state.frames_sampled = len(logits)
    state.add(scores(logits[:cut], [3] * cut))
    state.add(scores(logits[cut:], [3] * (len(logits) - cut), first=cut))
    (person,) = state.people(None)
    whole = track_probability(np.array(logits), np.full(len(logits), 0.5), None)
    assert person.probability == pytest.approx(whole, abs=1e-6)
    assert (person.track, person.frames) == (3, len(logits))
    assert (person.first_s, person.last_s) == (0.0, round((len(logits) - 1) / 2, 3))


def test_a_person_seen_once_long_ago_is_forgotten() -> None:
    state = fresh()
    state.add(scores([1.0, 1.0, 1.0], [0, 1, 1]))
    later = scores([1.0, 1.0], [2, 2], first=1000)
    state.add(later)
    assert set(state.tracks) == {1, 2}


def test_the_state_round_trips_through_json() -> None:
    state = fresh()
    state.add(scores([0.1, 0.2, 1 / 3], [0, 1, 0]))
    state.admit(3)
    assert StreamState.model_validate_json(state.model_dump_json()) == state


def test_a_stream_without_frames_has_a_reason() -> None:
    state = fresh()
    assert state.verdict(PROVENANCE, None, None, []).outcome is Outcome.UNDECODABLE
    state.shed = 2
    assert state.verdict(PROVENANCE, None, None, []).outcome is Outcome.SHED
    state.segments = state.failed = 1
    state.last_error = "no video stream"
    verdict = state.verdict(PROVENANCE, None, None, [])
    assert (verdict.outcome, verdict.error) == (
        Outcome.UNDECODABLE,
        "none of 1 segments could be judged: no video stream",
    )
    state.frames_sampled = 3
    assert state.verdict(PROVENANCE, None, None, []).outcome is Outcome.NO_FACE


def test_sums_of_logits_add_up() -> None:
    a, b = LogitSum.of(np.array([1.0]), np.array([0.0])), LogitSum.of(np.array([3.0]), np.array([0.0]))
    assert (a + b).probability(None) == pytest.approx(1 / (1 + np.exp(-2.0)))


def test_a_state_of_an_earlier_version_is_read() -> None:
    trusting = Calibration(quality=((0.0, 0.0), (0.5, 0.25), (0.9, 1.0)))
    old = {"weighted": 4.0, "weight": 2.0, "plain": 8.0, "count": 4, "frames": 4, "first_s": 0.0, "last_s": 2.0}
    state = fresh().model_copy(update={"frames_sampled": 6})
    state = StreamState.model_validate(state.model_dump() | {"tracks": {"3": old}})
    assert state.people(trusting)[0].probability == pytest.approx(1 / (1 + np.exp(-2.0)))
    state.add(scores([-1.0, -1.0], [3, 3], first=4), trusting)
    # Four frames that were trusted in whole, two of quality .5 that are trusted by a quarter.
    mean, trust = (4.0 - 0.25) / (2.0 + 0.25), (2.0 + 0.25) / (2.0 + 1.0)
    assert state.people(trusting)[0].probability == pytest.approx(1 / (1 + np.exp(-trust * mean)))
