"""From a clip's scores to its verdict."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.checkpoint import Calibration, Thresholds
from models.checkpoint_info import LOGIT_LIMIT
from pipeline.contracts import Label, Outcome, Verdict
from pipeline.types import Scores
from pipeline.verdict.aggregate import (
    ClipFacts,
    Failure,
    judge,
    support_needed,
    supported_people,
)
from pipeline.verdict.calibration import probability
from pipeline.verdict.evidence import track_probability
from tests.pipeline.records import PROVENANCE

FPS = 2.0
THRESHOLDS = Thresholds(fpr=0.05, fake=(0.6, *[0.8] * 7), real=(0.4,) * 8)
FACTS = ClipFacts(
    id="clip",
    source="clip.mp4",
    duration_s=10.0,
    frames_sampled=20,
    faces_seen=1,
    failure=None,
    provenance=PROVENANCE,
    elapsed_s=1.5,
)

Row = tuple[int, int, float]
"""track, number of the sampled frame, log-odds"""


def scores(rows: Sequence[Row], quality: Sequence[float] | None = None) -> Scores:
    track, frame, logit = (np.array(column) for column in zip(*rows, strict=True)) if rows else (np.zeros(0),) * 3
    logits = logit.astype(np.float32)
    return Scores(
        "clip",
        index=(frame * 15).astype(np.int64),
        t_s=frame.astype(np.float64) / FPS,
        track_ids=track.astype(np.int64),
        quality=np.array(quality if quality is not None else np.ones(len(rows)), np.float32),
        boxes=np.tile(np.array([[1.0, 2.0, 30.0, 40.0]], np.float32), (len(rows), 1)),
        logits=logits,
        probability=probability(logits, None),
    )


def track(number: int, frames: int, logit: float, start: int = 0) -> list[Row]:
    return [(number, frame, logit) for frame in range(start, start + frames)]


def verdict(
    rows: Sequence[Row], *, sampled: int = 20, thresholds: Thresholds | None = THRESHOLDS, faces: int | None = None
) -> Verdict:
    facts = replace(FACTS, frames_sampled=sampled, faces_seen=len(rows) if faces is None else faces)
    return judge(facts, scores(rows), None, thresholds)


def test_the_clip_is_as_suspicious_as_its_worst_person() -> None:
    got = verdict(track(0, 20, -2.0) + track(1, 20, 1.0) + track(2, 20, -3.0))
    assert got.outcome is Outcome.SCORED
    assert got.probability == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-6)
    assert got.probability == max(person.probability for person in got.people)


def test_the_threshold_is_that_for_the_people_who_were_judged() -> None:
    suspicious = track(0, 20, 1.0)  # P = .73
    assert verdict(suspicious).label is Label.FAKE
    assert verdict(suspicious + track(1, 20, -3.0)).label is Label.INCONCLUSIVE
    passer_by = track(1, 2, -3.0)
    assert verdict(suspicious + passer_by).label is Label.FAKE
    assert verdict(track(0, 20, -1.0)).label is Label.REAL
    assert verdict(suspicious, thresholds=None).label is Label.INCONCLUSIVE


@pytest.mark.parametrize(
    ("sampled", "needed"),
    [(1, 1), (2, 2), (4, 4), (5, 5), (20, 5), (33, 5), (34, 6), (40, 6), (41, 7), (100, 15), (1000, 150)],
)
def test_support_is_five_frames_and_fifteen_percent(sampled: int, needed: int) -> None:
    assert support_needed([sampled], sampled, sampled) == needed
    enough, short = verdict(track(0, needed, 0.0), sampled=sampled), verdict(track(0, needed - 1, 0.0), sampled=sampled)
    assert enough.outcome is Outcome.SCORED
    assert short.outcome in ((Outcome.NO_FACE,) if needed == 1 else (Outcome.LOW_QUALITY,))


@given(st.integers(1, 100_000))
def test_support_is_at_most_the_number_of_frames(sampled: int) -> None:
    needed = support_needed([sampled], sampled, sampled)
    assert min(5, sampled) <= needed <= sampled
    assert 100 * needed >= 15 * sampled
    assert needed == min(5, sampled) or 100 * (needed - 1) < 15 * sampled


def test_a_passer_by_is_reported_but_does_not_decide() -> None:
    got = verdict(track(0, 20, -2.0) + track(1, 4, 5.0))
    assert [person.track for person in got.people] == [0, 1]
    assert [person.track for person in supported_people(got)] == [0]
    assert got.probability == pytest.approx(got.people[0].probability)


@pytest.mark.parametrize("frames", [5, 40])
def test_people_of_many_short_shots_decide_together(frames: int) -> None:
    shots = [item for shot in range(8) for item in track(shot, frames, 2.0 - shot, start=shot * frames)]
    got = verdict(shots, sampled=8 * frames)
    assert got.outcome is Outcome.SCORED
    assert len(supported_people(got)) == 8
    assert got.probability == pytest.approx(got.people[0].probability)


def test_a_glimpse_between_many_short_shots_does_not_decide() -> None:
    shots = [item for shot in range(8) for item in track(shot, 40, -2.0, start=shot * 40)]
    got = verdict(shots + track(8, 5, 5.0), sampled=320)
    assert 8 not in [person.track for person in supported_people(got)]


def test_short_shots_with_faces_in_little_of_the_clip_do_not_decide() -> None:
    shots = [item for shot in range(8) for item in track(shot, 40, 2.0, start=shot * 40)]
    assert verdict(shots, sampled=2133).outcome is Outcome.SCORED
    assert verdict(shots, sampled=2134).outcome is Outcome.LOW_QUALITY


def test_a_face_seen_once_is_not_a_person() -> None:
    got = verdict(track(0, 20, -2.0) + track(1, 1, 5.0))
    assert [person.track for person in got.people] == [0]
    assert {face.track for face in got.frames} == {0}


def test_one_frame_is_enough_in_a_picture() -> None:
    got = verdict([(0, 0, 2.0), (1, 0, -2.0)], sampled=1)
    assert got.outcome is Outcome.SCORED
    assert got.frames_scored == 1
    assert len(got.people) == 2
    assert got.probability == pytest.approx(1 / (1 + math.exp(-2)), abs=1e-6)


def test_people_and_frames_are_counted() -> None:
    got = verdict(track(3, 6, 0.0) + track(7, 8, 0.0, start=4))
    assert [(p.track, p.frames, p.first_s, p.last_s) for p in got.people] == [(3, 6, 0.0, 2.5), (7, 8, 2.0, 5.5)]
    assert got.frames_scored == 12
    assert len(got.frames) == 14
    assert [(face.t_s, face.track) for face in got.frames] == sorted((face.t_s, face.track) for face in got.frames)
    face = got.frames[0]
    assert (face.index, face.box, face.probability, face.quality) == (0, (1.0, 2.0, 30.0, 40.0), 0.5, 1.0)


def test_one_wild_frame_cannot_outvote_a_track() -> None:
    calm = np.full(9, -1.0)
    wild = np.append(calm, 1e6)
    clipped = np.append(calm, LOGIT_LIMIT)
    ones = np.ones(10)
    assert track_probability(wild, ones, None) == track_probability(clipped, ones, None) < 0.5


def test_clear_frames_count_for_more() -> None:
    logits = np.array([3.0, -3.0])
    assert track_probability(logits, np.array([1.0, 0.1]), None) > 0.9
    assert track_probability(logits, np.array([0.1, 1.0]), None) < 0.1
    assert track_probability(logits, np.array([1.0, 1.0]), None) == pytest.approx(0.5)
    assert track_probability(logits, np.zeros(2), None) == pytest.approx(0.5)


def test_the_calibration_is_that_of_the_weights() -> None:
    got = judge(FACTS, scores(track(0, 20, 1.0)), Calibration(scale=2.0, bias=-2.0), None)
    assert got.probability == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("sampled", "faces", "rows", "outcome", "says"),
    [
        (20, 0, [], Outcome.NO_FACE, "no face in 20 sampled frames"),
        (1, 0, [], Outcome.NO_FACE, "no face in 1 sampled frame"),
        (20, 7, [], Outcome.LOW_QUALITY, "7 faces in 20 sampled frames"),
        (20, 3, track(0, 1, 9.0), Outcome.LOW_QUALITY, "3 faces in 20 sampled frames, none seen in a second frame"),
        (20, 4, track(0, 4, 9.0), Outcome.LOW_QUALITY, "4 scored frames of 20 sampled; 5 are needed"),
        (0, 0, [], Outcome.UNDECODABLE, "no frame"),
    ],
)
def test_an_unjudged_clip_has_a_reason_and_no_probability(
    sampled: int, faces: int, rows: list[Row], outcome: Outcome, says: str
) -> None:
    got = verdict(rows, sampled=sampled, faces=faces)
    assert got.outcome is outcome
    assert got.error is not None
    assert says in got.error
    assert got.probability is None
    assert got.label is None


@pytest.mark.parametrize(
    "outcome", [Outcome.UNDECODABLE, Outcome.OVER_LIMIT, Outcome.UNAVAILABLE, Outcome.MODEL_ERROR, Outcome.SHED]
)
def test_a_failure_wins_over_scores_and_keeps_them(outcome: Outcome) -> None:
    facts = replace(FACTS, failure=Failure(outcome, "it broke"))
    got = judge(facts, scores(track(0, 20, 3.0)), None, THRESHOLDS)
    assert (got.outcome, got.error, got.probability, got.label) == (outcome, "it broke", None, None)
    assert len(got.people) == 1
    assert len(got.frames) == 20


rows_of_a_clip = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 19), st.floats(-1e4, 1e4, width=32)),
    max_size=60,
    unique_by=lambda row: row[:2],
)


@given(rows_of_a_clip, st.randoms(use_true_random=False))
def test_the_order_of_scores_does_not_matter(rows: list[Row], random: object) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert verdict(shuffled) == verdict(rows)


@given(rows_of_a_clip)
def test_the_record_of_any_scores_is_consistent(rows: list[Row]) -> None:
    got = verdict(rows)
    decided = supported_people(got)
    assert (got.outcome is Outcome.SCORED) == bool(decided)
    if got.probability is not None:
        tracks = [person.probability for person in got.people]
        assert min(tracks) <= got.probability <= max(tracks)
    assert {face.track for face in got.frames} == {person.track for person in got.people}
    assert got.frames_scored == len({face.index for face in got.frames}) <= got.frames_sampled
    for person in got.people:
        mine = [face for face in got.frames if face.track == person.track]
        assert person.frames == len(mine) >= 2
        assert (person.first_s, person.last_s) == (mine[0].t_s, mine[-1].t_s)
    assert Verdict.model_validate_json(got.to_json()) == got
    assert json.loads(got.to_json())["schema"] == 1


@given(rows_of_a_clip, st.floats(0.1, 5.0))
def test_more_suspicious_frames_never_make_a_clip_less_suspicious(rows: list[Row], more: float) -> None:
    before, after = verdict(rows), verdict([(t, frame, logit + more) for t, frame, logit in rows])
    assert before.outcome is after.outcome
    if before.probability is not None and after.probability is not None:
        assert after.probability >= before.probability
