"""Short forgeries: stretches of a person that look forged though the whole track does not."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.checkpoint_info import Calibration, CheckpointInfo, Thresholds
from models.ensemble import combined_thresholds
from models.spec import InputSpec
from pipeline.contracts import Label, Outcome, Provenance, Verdict
from pipeline.live.state import StreamState
from pipeline.types import Scores
from pipeline.verdict.aggregate import ClipFacts, judge
from pipeline.verdict.evidence import Floats64, LogitSum
from pipeline.verdict.segments import MAX_RUN_S, MIN_RUN_S, Run, independent_frames, stretches, strongest_runs

CONTRAST = (4.0, 4.5, 5.0, 5.5)
THRESHOLDS = Thresholds(0.01, (0.97,) * 8, (0.3,) * 8, CONTRAST)
PROVENANCE = Provenance(
    model="m", weights_sha256=[], input_spec="s", detector="d", sampling="fps=2", decoder="x", software="u",
    source_sha256=None, untrained=False,
)  # fmt: skip


def scores(logits: Floats64, step_s: float = 0.5, track: int = 0, first: int = 0) -> Scores:
    """One person seen at equal steps, in the best quality."""
    count = len(logits)
    index = np.arange(first, first + count)
    return Scores(
        "clip",
        index,
        index * step_s,
        np.full(count, track),
        np.ones(count, np.float32),
        np.zeros((count, 4), np.float32),
        np.asarray(logits, np.float32),
        np.full(count, 0.5, np.float32),
    )


def judged(*tracks: Scores, thresholds: Thresholds = THRESHOLDS) -> Verdict:
    together = Scores.join("clip", tracks)
    frames = len(np.unique(together.index))
    facts = ClipFacts("clip", "clip.mp4", frames / 2, frames, len(together.index), None, PROVENANCE, 0.1)
    return judge(facts, together, None, thresholds)


def real(count: int, seed: int = 0) -> Floats64:
    return np.random.default_rng(seed).normal(-2.0, 0.5, count)


@pytest.mark.parametrize(("count", "frames"), [(22, slice(10, 12)), (48, slice(24, 28)), (240, slice(100, 104))])
def test_a_short_forgery_makes_a_clip_fake_and_is_named(count: int, frames: slice) -> None:
    logits = real(count)
    logits[frames] = 4.0
    verdict = judged(scores(logits))
    assert (verdict.outcome, verdict.label) == (Outcome.SCORED, Label.FAKE)
    assert verdict.probability is not None
    assert verdict.probability < 0.3
    (segment,) = verdict.segments
    assert (segment.from_s, segment.to_s) == (frames.start / 2, (frames.stop - 1) / 2)
    assert segment.probability == pytest.approx(0.982, abs=0.001)
    assert segment.frames == frames.stop - frames.start
    assert verdict.suspicion == segment.probability
    assert Verdict.model_validate_json(verdict.to_json()) == verdict


@pytest.mark.parametrize(
    "logits",
    [
        pytest.param(real(60), id="a real person"),
        pytest.param(np.where(np.arange(60) == 30, 6.0, real(60)), id="one frame"),
        pytest.param(np.where(np.arange(60) % 8 == 0, 6.0, real(60)), id="single frames"),
        pytest.param(np.where(abs(np.arange(60) - 30) < 2, 2.0, real(60)), id="below the threshold for fake"),
        pytest.param(np.where(abs(np.arange(60) - 30) < 2, 4.0, 2.9), id="like the rest"),
        pytest.param(np.array([-2.0, -2.0, 4.0, 4.0, -2.0]), id="too short to compare"),
    ],
)
def test_what_is_no_short_forgery(logits: Floats64) -> None:
    verdict = judged(scores(logits))
    assert verdict.segments == []
    assert verdict.label is not Label.FAKE


def test_a_person_who_is_fake_as_a_whole_has_no_segments() -> None:
    verdict = judged(scores(np.where(np.arange(40) < 36, 4.5, 6.0)))
    assert (verdict.label, verdict.segments) == (Label.FAKE, [])


def test_weights_without_a_contrast_find_no_segments() -> None:
    logits = np.where(abs(np.arange(60) - 30) < 3, 5.0, real(60))
    verdict = judged(scores(logits), thresholds=Thresholds(0.01, (0.97,) * 8, (0.3,) * 8))
    assert (verdict.label, verdict.segments) == (Label.REAL, [])


def test_frames_far_apart_are_no_stretch() -> None:
    logits = np.where(abs(np.arange(60) - 30) < 3, 5.0, real(60))
    assert judged(scores(logits, step_s=3.0)).segments == []


def test_each_person_has_segments_of_their_own() -> None:
    forged = np.where(abs(np.arange(60) - 40) < 3, 5.0, real(60, seed=1))
    verdict = judged(scores(real(60)), scores(forged, track=1))
    assert [(segment.track, segment.from_s, segment.to_s) for segment in verdict.segments] == [(1, 19.0, 21.0)]


def test_a_longer_stretch_is_one_segment() -> None:
    logits = np.where((np.arange(120) >= 40) & (np.arange(120) < 56), 4.5, real(120))
    (segment,) = judged(scores(logits)).segments
    assert segment.from_s == pytest.approx(20.0, abs=0.5)
    assert segment.to_s == pytest.approx(27.5, abs=0.5)


def test_frames_that_say_the_same_count_once() -> None:
    """Twelve frames of one second are worth three, however many there are."""
    around = np.full(60, -2.0)
    contrasts = []
    for count in (3, 12):
        run = Run(15.0, 16.0, LogitSum.of(np.full(count, 4.0), np.ones(count)))
        contrasts.append(run.contrast(LogitSum.of(around, np.ones(60)) + run.sums, 31.0, None))
    assert contrasts[0] == pytest.approx(contrasts[1])
    assert contrasts[0] == pytest.approx(6 / np.sqrt(1 / 3 + 1 / 60))
    assert independent_frames(12, 1.0) == 3


TRACKS = st.lists(st.tuples(st.floats(0.01, 1.2), st.floats(-8, 8), st.floats(0, 1)), min_size=2, max_size=40)
TRUSTING = Calibration(scale=0.8, bias=0.2, quality=((0.0, 0.0), (0.5, 0.4), (1.0, 1.0)))


@given(TRACKS)
def test_the_strongest_run_is_the_strongest_of_all(track: list[tuple[float, float, float]]) -> None:
    steps, logits, quality = (np.array(column) for column in zip(*track, strict=True))
    times = np.cumsum(steps)
    whole, span_s = LogitSum.of(logits, quality, TRUSTING), float(times[-1] - times[0])
    found = strongest_runs(times, logits, quality, TRUSTING, log_odds=0.5, contrast=1.0)
    best = -np.inf
    for first in range(len(times)):
        for last in range(first + 1, len(times)):
            part = slice(first, last + 1)
            run = Run(times[first], times[last], LogitSum.of(logits[part], quality[part], TRUSTING))
            long_enough = MIN_RUN_S - 1e-3 <= times[last] - times[first] <= MAX_RUN_S + 1e-3
            if long_enough and run.sums.log_odds(TRUSTING) >= 0.5:
                best = max(best, run.contrast(whole, span_s, TRUSTING))
    if best >= 1.001:
        assert max(run.contrast(whole, span_s, TRUSTING) for run in found) == pytest.approx(best, abs=1e-5)
    elif best < 0.999:
        assert found == []
    assert all(before.last_s < after.first_s for before, after in pairwise(found))
    assert sum(stretch.sums.count for stretch in stretches(found)) == sum(run.sums.count for run in found)


@pytest.mark.parametrize("cut", [1, 7, 26, 27, 40])
def test_a_stream_finds_the_same_stretch_wherever_its_segments_end(cut: int) -> None:
    logits = np.where(abs(np.arange(60) - 27) < 2, 4.0, real(60))
    whole = judged(scores(logits))
    state = StreamState(stream_id="clip", started_at=0.0, updated_at=1.0)
    for part, first in ((logits[:cut], 0), (logits[cut:], cut)):
        state.add(scores(part, first=first))
        state.frames_sampled += len(part)
        state = StreamState.model_validate_json(state.model_dump_json())
    verdict = state.verdict(PROVENANCE, None, THRESHOLDS, [])
    assert verdict.label is whole.label is Label.FAKE
    assert verdict.segments == whole.segments


def test_the_contrast_grows_with_the_frames() -> None:
    found = [THRESHOLDS.contrast_of(frames) for frames in (1, 8, 9, 16, 17, 64, 65, 200)]
    assert found == [4.0, 4.0, 4.5, 4.5, 5.0, 5.5, 6.0, 6.5]
    assert Thresholds(0.01, (0.9,) * 8, (0.1,) * 8).contrast_of(100) is None


@pytest.mark.parametrize("contrast", [(0.0,), (-1.0, 2.0), (3.0, 2.0), (float("nan"),), (float("inf"),)])
def test_an_invalid_contrast_is_refused(contrast: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="contrast"):
        Thresholds(0.01, (0.97,) * 8, (0.3,) * 8, contrast)


def test_the_contrast_is_stored_with_the_weights() -> None:
    info = CheckpointInfo("xception", {}, InputSpec(size=160), thresholds=THRESHOLDS)
    assert CheckpointInfo.from_dict(info.to_dict()).thresholds == THRESHOLDS
    older = info.to_dict()
    del older["thresholds"]["contrast"]
    loaded = CheckpointInfo.from_dict(older).thresholds
    assert loaded is not None
    assert loaded.contrast == ()


def test_an_ensemble_has_a_contrast_if_all_its_members_have() -> None:
    other = Thresholds(0.01, (0.9,) * 8, (0.1,) * 8, (2.0, 3.5, 4.0, 4.5))
    both = combined_thresholds([THRESHOLDS, other])
    assert both is not None
    assert both.contrast == (3.0, 4.0, 4.5, 5.0)
    without = combined_thresholds([THRESHOLDS, Thresholds(0.01, (0.9,) * 8, (0.1,) * 8)])
    assert without is not None
    assert without.contrast == ()
