"""When few frames settle a verdict."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.checkpoint_info import Thresholds
from pipeline.contracts import Label, Provenance, Verdict
from pipeline.types import Scores
from pipeline.verdict.aggregate import ClipFacts, judge
from pipeline.verdict.evidence import Floats64
from pipeline.verdict.sequential import RISK, is_settled, pooled, student_quantile

THRESHOLDS = Thresholds(0.01, (0.97,) * 8, (0.3,) * 8, (4.0, 4.5, 5.0, 5.5))
REAL, FAKE = math.log(0.3 / 0.7), math.log(0.97 / 0.03)
PROVENANCE = Provenance(
    model="m", weights_sha256=[], input_spec="s", detector="d", sampling="fps=2,adaptive", decoder="x", software="u",
    source_sha256=None, untrained=False,
)  # fmt: skip


def scores(logits: Floats64 | list[float], track: int = 0, at: list[int] | None = None) -> Scores:
    """One person, in the best quality, in these frames; 0, 1, 2 ... if not given."""
    index = np.asarray(at if at is not None else range(len(logits)), np.int64)
    return Scores(
        "clip",
        index,
        index * 5.0,
        np.full(len(logits), track),
        np.ones(len(logits), np.float32),
        np.zeros((len(logits), 4), np.float32),
        np.asarray(logits, np.float32),
        np.full(len(logits), 0.5, np.float32),
    )


def judged(together: Scores, frames: int) -> Verdict:
    facts = ClipFacts("clip", "clip.mp4", frames * 5.0, frames, len(together.index), None, PROVENANCE, 0.1)
    return judge(facts, together, None, THRESHOLDS)


def settled(*tracks: Scores, frames: int = 5, planned: int = 100) -> bool:
    together = Scores.join("clip", tracks)
    return is_settled(judged(together, frames), together, planned, None, THRESHOLDS)


@pytest.mark.parametrize(
    ("logits", "label"),
    [([-4.0, -3.5, -4.2, -3.8, -4.1], Label.REAL), ([6.0, 5.5, 6.3, 5.9, 6.1], Label.FAKE),
     ([1.0, 1.4, 0.8, 1.1, 1.3], Label.INCONCLUSIVE)],
)  # fmt: skip
def test_a_clip_far_from_the_thresholds_is_settled(logits: list[float], label: Label) -> None:
    assert judged(scores(logits), 5).label is label
    assert settled(scores(logits))


@pytest.mark.parametrize("threshold", [REAL, FAKE])
@pytest.mark.parametrize("side", [-0.1, 0.1])
def test_a_clip_close_to_a_threshold_is_open(threshold: float, side: float) -> None:
    assert not settled(scores([threshold + side + noise for noise in (-0.2, 0.1, 0.0, 0.2, -0.1)]))


def test_the_whole_scan_itself_is_always_settled() -> None:
    assert settled(scores([REAL - 0.01] * 5), planned=5)


def test_a_frame_that_looks_forged_leaves_a_real_clip_open() -> None:
    assert settled(scores([-6.0] * 20), frames=20)
    assert not settled(scores([-6.0] * 19 + [FAKE + 0.1]), frames=20)


def test_someone_hardly_seen_who_may_be_forged_leaves_a_real_clip_open() -> None:
    assert settled(scores([-6.0] * 5), scores([-6.0], track=1))
    assert not settled(scores([-6.0] * 5), scores([0.0], track=1))


def test_someone_hardly_seen_does_not_make_a_clip_fake_early() -> None:
    assert not settled(scores([-6.0] * 5), scores([8.0, 8.0], track=1))
    assert settled(scores([-6.0] * 5), scores([8.0] * 5, track=1))


def test_without_a_label_nothing_is_settled() -> None:
    assert not settled(scores([-6.0] * 3))  # seen too seldom
    assert not settled(scores([]))


def test_labels_differ_from_the_whole_scan_more_rarely_than_the_risk() -> None:
    """Clips at any distance from the thresholds, persons of any spread, 80 frames each."""
    random = np.random.default_rng(0)
    early, wrong = 0, 0
    for _ in range(1500):
        whole = random.normal(random.uniform(-5, 6), random.uniform(0.1, 1.5), 80)
        few = scores(random.choice(whole, 5, replace=False))
        verdict = judged(few, 5)
        if is_settled(verdict, few, 80, None, THRESHOLDS):
            early += 1
            wrong += verdict.label is not judged(scores(whole), 80).label
    assert early > 600
    assert wrong / early < RISK / 2


@given(st.lists(st.floats(-12, 12), min_size=5, max_size=40), st.integers(41, 10_000))
def test_a_settled_clip_stays_settled_if_the_rest_is_shorter(logits: list[float], planned: int) -> None:
    if settled(scores(logits), frames=len(logits), planned=planned):
        assert settled(scores(logits), frames=len(logits), planned=max(len(logits), planned // 2))


def test_looks_at_one_person_are_one_track_by_time() -> None:
    together = pooled([scores([1.0, 2.0], track=3, at=[4, 8]), scores([3.0], track=0, at=[6])])
    assert together is not None
    assert together.index.tolist() == [4, 6, 8]
    assert together.logits.tolist() == [1.0, 3.0, 2.0]
    assert together.track_ids.tolist() == [3, 3, 3]


def test_looks_at_several_people_are_not_joined() -> None:
    two = Scores.join("clip", [scores([1.0]), scores([1.0], track=1)])
    assert pooled([two]) is two
    assert pooled([two, scores([1.0])]) is None
    assert pooled([scores([1.0]), scores([])]) is None


@pytest.mark.parametrize(
    ("probability", "freedom", "value"), [(0.9, 7, 1.415), (0.9, 3, 1.638), (0.95, 10, 1.812), (0.05, 30, -1.697)]
)
def test_students_quantiles(probability: float, freedom: int, value: float) -> None:
    """From the table of Student's distribution."""
    assert student_quantile(probability, freedom) == pytest.approx(value, abs=0.01)
