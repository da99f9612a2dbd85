"""Drift: the index and its test, measures of records, references, and what a check says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.contracts import Outcome, Person, ScoredFace
from pipeline.drift.check import Judged, check, novelty, typical
from pipeline.drift.measures import FACE_WIDTH, MEASURES, OUTCOME, QUALITY, SCORE, counts_of
from pipeline.drift.reference import (
    LEAST_VIDEOS,
    DriftError,
    Origin,
    Reference,
    make_reference,
    read_reference,
    write_reference,
)
from pipeline.drift.stability import compare, median, psi, shares_of
from tests.pipeline.records import PROVENANCE, record

WEIGHTS = tuple(PROVENANCE.weights_sha256)
shares = arrays.arrays(np.float64, 7, elements=st.floats(0, 1)).map(lambda x: (x + 1e-9) / (x + 1e-9).sum())


@given(shares, shares)
def test_the_index_is_a_symmetric_divergence(first: np.ndarray, second: np.ndarray) -> None:
    assert psi(first, second) >= 0
    assert psi(first, first) == 0
    assert psi(first, second) == pytest.approx(psi(second, first))


@given(st.lists(st.lists(st.integers(0, 50), min_size=5, max_size=5), min_size=1, max_size=30))
def test_each_video_weighs_the_same(counts: list[list[int]]) -> None:
    once, thrice = (shares_of(np.array(counts) * times) for times in (1, 3))
    assert np.allclose(once, thrice)
    assert len(once) == sum(map(any, counts))
    assert np.allclose(once.sum(axis=1), 1)


@given(st.floats(35, 600))
def test_a_median_is_within_its_bin(width_px: float) -> None:
    found = np.array(FACE_WIDTH.counts([width_px] * 3), np.float64) / 3
    edges = np.array(FACE_WIDTH.edges)
    at = int(found.argmax())
    low, high = (edges[max(at - 1, 0)], edges[min(at, len(edges) - 1)])
    assert low <= median(found, edges, logarithmic=True) <= high


def video(rng: np.random.Generator, id_: str, *, factor: float = 1.0, fake: float = 0.1, faces: int = 20) -> Judged:
    """A made video: its frames are much alike, as real ones are."""
    width_px = 130 * 2 ** rng.normal(0, 0.8) * factor
    quality = rng.beta(6, 2)
    people = [
        Person(
            track=0,
            probability=float(rng.beta(6, 1) if rng.random() < fake else rng.beta(1, 6)),
            frames=faces,
            first_s=0,
            last_s=1,
        )
    ]
    frames = []
    for i in range(faces):
        side = float(width_px * 2 ** rng.normal(0, 0.05))
        frames.append(
            ScoredFace(
                t_s=i,
                index=i,
                track=0,
                box=(0, 0, side, side * 1.3),
                probability=0.5,
                quality=float(np.clip(quality + rng.normal(0, 0.03), 0, 1)),
            )
        )
    return Judged(id_, WEIGHTS, counts_of(record(id_, people=people, frames=frames)))


def many(n: int, seed: int, **how: Any) -> list[Judged]:
    rng = np.random.default_rng(seed)
    return [video(rng, f"v{i}", **how) for i in range(n)]


def reference_of(videos: list[Judged]) -> Reference:
    origin = Origin(kind="service", since_s=0.0, until_s=1.0)
    return make_reference([v.counts for v in videos], origin, weights_sha256=WEIGHTS, model="xception", made_at=1.0)


@pytest.fixture(scope="module")
def pool() -> list[Judged]:
    return many(1500, 1)


@pytest.fixture(scope="module")
def reference(pool: list[Judged]) -> Reference:
    return reference_of(pool[:300])


def test_unchanged_videos_alarm_in_1_of_100_samples_at_most(pool: list[Judged]) -> None:
    rng = np.random.default_rng(2)
    # Half of the measures and of the videos, to be fast.
    part = [Judged(v.id, v.weights_sha256, {name: v.counts[name] for name in ("score", "face_width")}) for v in pool]
    reference, later = reference_of(part[:150]), part[150:]
    samples = [[later[i] for i in rng.choice(len(later), LEAST_VIDEOS, replace=False)] for _ in range(100)]
    assert sum(bool(check(reference, sample).alarms) for sample in samples) <= 1


def test_halved_faces_alarm_in_a_small_sample(reference: Reference) -> None:
    # With widths that spread over a factor of 13, as here, 30 halved videos alarm in 29 of 40 samples, 50 in all.
    drift = check(reference, many(50, 3, factor=0.5))
    assert drift.alarms == ("face_width",)
    found = {each.name: each for each in drift.measures}["face_width"]
    assert found.low <= found.high
    assert found.psi >= found.limit >= 0.1
    assert found.p < 0.001
    assert found.said.startswith("faces are smaller than in the reference: median ")
    assert found.reference_median is not None
    assert found.now_median is not None
    assert found.now_median / found.reference_median == pytest.approx(0.5, abs=0.15)
    assert sum(each.psi for each in found.moved) <= found.psi + 1e-9


def test_a_change_that_is_too_small_to_matter_never_alarms() -> None:
    rng = np.random.default_rng(0)
    first, second = (shares_of(rng.multinomial(40, p, 4000)) for p in ([0.3, 0.4, 0.3], [0.33, 0.4, 0.27]))
    found = compare(first, second)
    assert found.p < 0.001, "it is no chance"
    assert not found.alarm
    assert found.limit == 0.1


def test_typical_videos_are_those_that_moved(pool: list[Judged], reference: Reference) -> None:
    small = [Judged(f"small {v.id}", v.weights_sha256, v.counts) for v in many(40, 4, factor=0.2)]
    videos = pool[300:340] + small
    drift = check(reference, videos)
    assert drift.alarms == ("face_width",)
    ranked = sorted(typical(reference, drift, videos).items(), key=lambda item: -item[1])
    assert sum(id_.startswith("small") for id_, _ in ranked[:30]) >= 28
    unusual = novelty(reference, videos)
    assert np.mean([unusual[v.id] for v in small]) > np.mean([unusual[v.id] for v in pool[300:340]])
    assert typical(reference, check(reference, pool[300:400]), pool[300:400]) == {}


def test_records_are_counted_in_fixed_bins() -> None:
    people = [Person(track=0, probability=p, frames=3, first_s=0, last_s=1) for p in (0.0, 0.5, 1.0)]
    face = ScoredFace(t_s=0, index=0, track=0, box=(10, 0, 74, 90), probability=0.5, quality=1.0)
    found = counts_of(record(people=people, frames=[face]))
    assert found[SCORE.name] == [1, 0, 0, 0, 0, 1, 0, 0, 0, 1]
    assert found[QUALITY.name] == [0] * 9 + [1]
    assert found[FACE_WIDTH.name] == [0, 0, 1, 0, 0, 0, 0, 0, 0], "64 px begin a bin"
    assert (FACE_WIDTH.label(2), OUTCOME.label(0)) == ("64 to 91 px", "scored")
    for outcome in Outcome:
        assert sum(counts_of(record(outcome=outcome))[OUTCOME.name]) == 1


def test_scores_of_other_weights_are_not_compared(reference: Reference) -> None:
    others = [Judged(v.id, ("f" * 64,), v.counts) for v in many(40, 5)]
    drift = check(reference, others)
    assert "judged by the reference's weights" in drift.missing["score"]
    assert {each.name for each in drift.measures} == {"quality", "face_width", "outcome"}
    with pytest.raises(DriftError, match="too few videos"):
        check(reference, others[: LEAST_VIDEOS - 1])


def test_more_videos_without_a_face_are_said_so(reference: Reference) -> None:
    blind = [Judged(f"b{i}", WEIGHTS, counts_of(record(f"b{i}", Outcome.NO_FACE))) for i in range(30)]
    drift = check(reference, many(40, 6) + blind)
    assert drift.alarms == ("outcome",)
    assert "more videos end as no_face than in the reference: 43%, 0% there" in drift.measures[-1].said


def test_a_reference_is_read_as_it_was_written(reference: Reference, tmp_path: Path) -> None:
    write_reference(file := tmp_path / "reference.json", reference)
    assert read_reference(file) == reference
    written = json.loads(file.read_text())
    assert set(written) == {"schema", "made_at", "origin", "weights_sha256", "model", "measures"}
    assert {len(row) for row in written["measures"]["face_width"]["videos"]} == {FACE_WIDTH.bins}
    for edit, why in (
        ({"schema": 2}, "schema"),
        ({"measures": {"quality": {"edges": [0.5], "kinds": [], "videos": [[1, 2]]}}}, "another version"),
        ({"measures": {"quality": {"edges": list(QUALITY.edges), "kinds": [], "videos": [[0] * 10]}}}, "10 counts"),
    ):
        file.write_text(json.dumps(written | edit))
        with pytest.raises(DriftError, match=why):
            read_reference(file)
    file.write_bytes(b"\xff\x00")
    with pytest.raises(DriftError, match="no reference"):
        read_reference(file)
    with pytest.raises(DriftError, match="at least 30 videos"):
        reference_of(many(3, 7))
    assert {measure.name for measure in MEASURES} == set(written["measures"])
