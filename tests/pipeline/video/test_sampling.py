from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.video.sampling import (
    TOLERANCE_S,
    Adaptive,
    Even,
    Every,
    Fps,
    Keyframes,
    Look,
    Sampling,
    parse_decoded,
    parse_sampling,
)

samplings = st.one_of(
    st.builds(Fps, st.floats(1e-3, 1e3)),
    st.builds(Even, st.integers(1, 10**6)),
    st.builds(Every, st.integers(1, 10**6)),
    st.just(Keyframes()),
)
adaptive = st.builds(Adaptive, st.one_of(st.builds(Fps, st.floats(1e-3, 1e3)), st.builds(Even, st.integers(1, 10**6))))
# Frame times of a clip: any gaps, as of variable frame rates.
clips = st.lists(st.floats(0.002, 3.0), min_size=1, max_size=200).map(
    lambda gaps: [sum(gaps[:n]) for n in range(len(gaps))]
)


def taken(sampling: Sampling, times_s: list[float], duration_s: float | None = None) -> list[int]:
    """Frames that a reader takes: those by which more samples are due than were taken before."""
    indices, before = [], 0
    for index, t_s in enumerate(times_s):
        due = sampling.due(index, t_s, duration_s)
        if due > before:
            indices.append(index)
            before = due
    return indices


@given(samplings | adaptive)
def test_description_parses_to_the_same_sampling(sampling: Sampling) -> None:
    assert parse_sampling(sampling.describe()) == sampling


@pytest.mark.parametrize(
    ("sampling", "text"),
    [
        (Fps(2), "fps=2"),
        (Fps(0.5), "fps=0.5"),
        (Even(20), "frames=20"),
        (Every(5), "every=5"),
        (Adaptive(Fps(2)), "fps=2,adaptive"),
    ],
)
def test_the_description_is_the_form_of_the_option(sampling: Sampling, text: str) -> None:
    assert sampling.describe() == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fps",
        "fps=0",
        "fps=nan",
        "fps=-1",
        "frames=0",
        "frames=1.5",
        "keyframes=3",
        "all",
        "look=0",
        "fps=2,",
        "fps=2,fast",
        "adaptive",
        "keyframes,adaptive",
    ],
)
def test_other_texts_are_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="sampling"):
        parse_sampling(text)


@given(clips, st.floats(0.2, 60))
def test_fps_takes_the_first_frame_at_or_after_each_instant(times_s: list[float], fps: float) -> None:
    indices = set(taken(Fps(fps), times_s))
    assert 0 in indices
    for index in range(1, len(times_s)):
        before_s, t_s = times_s[index - 1] + TOLERANCE_S, times_s[index] + TOLERANCE_S
        instant_s = math.ceil(before_s * fps) / fps  # the first one after the previous frame
        if instant_s < t_s - 1e-9:
            assert index in indices or instant_s < before_s + 1e-9
        if instant_s > t_s + 1e-9:
            assert index not in indices


@given(st.integers(1, 240), st.integers(2, 300))
def test_fps_of_the_clip_itself_takes_every_frame(rate: int, frames: int) -> None:
    exact = [n / rate for n in range(frames)]
    in_matroska = [round(t_s, 3) for t_s in exact]
    assert taken(Fps(rate), exact) == list(range(frames))
    assert taken(Fps(rate), in_matroska) == list(range(frames))


@given(st.integers(1, 60), st.integers(1, 400), st.integers(1, 120))
def test_even_takes_one_frame_from_the_middle_of_each_share(count: int, frames: int, rate: int) -> None:
    duration_s = frames / rate
    indices = taken(Even(count), [n / rate for n in range(frames)], duration_s)
    assert len(indices) <= count
    if frames >= 2 * count:
        assert len(indices) == count
        for share, index in enumerate(indices):
            middle_s = (share + 0.5) * duration_s / count
            # Both bounds are sums of rounded numbers.
            slack_s = TOLERANCE_S + 1e-9
            assert -slack_s <= index / rate - middle_s <= 1 / rate + slack_s


def test_even_needs_a_duration() -> None:
    with pytest.raises(ValueError, match="duration"):
        Even(3).due(0, 0.0, None)


@given(st.integers(1, 50), clips)
def test_every_counts_frames_not_seconds(n: int, times_s: list[float]) -> None:
    assert taken(Every(n), times_s) == list(range(0, len(times_s), n))


@pytest.mark.parametrize(
    ("make", "value"), [(Fps, 0), (Fps, -1), (Fps, float("nan")), (Fps, float("inf")), (Even, 0), (Every, 0)]
)
def test_invalid_numbers_are_refused(make: type[Fps], value: float) -> None:
    with pytest.raises(ValueError, match=r"must be|at least"):
        make(value)


@given(st.integers(0, Look.LOOKS - 1))
def test_looks_add_frames_between_those_of_the_ones_before(number: int) -> None:
    together = sorted(share for look in range(number + 1) for share in Look(look).shares)
    assert len(together) == Look(number).together == 5 * 2**number
    gaps = [after - before for before, after in pairwise(together)]
    assert max(gaps) == pytest.approx(min(gaps))
    assert 0 < together[0] < together[-1] < 1
    assert max(gaps) < 0.21  # who is seen in a sixth of a clip at a stretch is seen from the second look on
    assert parse_decoded(Look(number).describe()) == Look(number)


@pytest.mark.parametrize("number", [-1, Look.LOOKS])
def test_there_are_no_other_looks(number: int) -> None:
    with pytest.raises(ValueError, match="look"):
        Look(number)


@pytest.mark.parametrize(
    ("sampling", "duration_s", "fps", "planned"),
    [(Fps(2), 10.0, 25.0, 21), (Fps(50), 10.0, 25.0, 250), (Even(8), 10.0, 25.0, 8), (Every(5), 10.0, 25.0, 51),
     (Every(5), 10.0, None, None), (Fps(2), None, 25.0, None), (Fps(2), 10.0, None, 21)],
)  # fmt: skip
def test_what_a_whole_scan_takes(
    sampling: Fps | Even | Every, duration_s: float | None, fps: float | None, planned: int | None
) -> None:
    assert Adaptive(sampling).planned(duration_s, fps) == planned
