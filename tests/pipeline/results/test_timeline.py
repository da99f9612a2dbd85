import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.contracts import ScoredFace
from pipeline.results.timeline import MAX_POINTS, extremes, sampling_step_s, stretches_of, timeline_of

series = st.integers(1, 3000).flatmap(
    lambda n: st.tuples(st.just(n), st.integers(0, 2**32 - 1), st.floats(0.01, 10_000))
)


def faces(times_s, probability=0.5, quality=0.5) -> list[ScoredFace]:
    return [
        ScoredFace(t_s=t_s, index=i, track=0, box=(0, 0, 9, 9), probability=probability, quality=quality)
        for i, t_s in enumerate(times_s)
    ]


@given(series, st.integers(1, 300))
def test_decimation_is_bounded_and_keeps_extremes(drawn, count):
    n, seed, length_s = drawn
    rng = np.random.default_rng(seed)
    t_s, values = np.sort(rng.uniform(0, length_s, n)), rng.random(n)
    stretches = stretches_of(t_s, count)
    kept = extremes(values, stretches)
    assert len(stretches) == count
    assert [i for s in stretches if s is not None for i in range(s.start, s.stop)] == list(range(n))
    assert len(kept) <= 2 * count
    assert kept == sorted(set(kept))
    assert {int(values.argmin()), int(values.argmax())} <= set(kept)


@given(series, st.floats(0, 5))
def test_everything_drawn_is_within_the_chart(drawn, step_s):
    n, seed, length_s = drawn
    rng = np.random.default_rng(seed)
    scored = [
        ScoredFace(t_s=t_s, index=i, track=0, box=(0, 0, 9, 9), probability=p, quality=q)
        for i, (t_s, p, q) in enumerate(zip(rng.uniform(0, length_s, n), rng.random(n), rng.random(n), strict=True))
    ]
    line = timeline_of(scored, span_s=length_s, step_s=step_s)
    assert line.total == n
    assert len(line.faces) <= MAX_POINTS
    assert (len(line.faces) == n) == (line.envelope == "")
    assert [face.t_s for face in line.faces] == sorted(face.t_s for face in line.faces)
    for x, y in re.findall(r"[ML](\S+) ([\d.]+)", line.line + line.envelope + "".join(line.dots)):
        assert 0 <= float(x) <= 1000
        assert 0 <= float(y) <= 100
    for x, width in line.unseen:
        assert x >= 0
        assert width > 0
        assert x + width <= 100 + 1e-9
    assert 1 <= len(line.ticks) <= 7
    assert all(0 <= x <= 100 for x, _ in line.ticks)


def test_the_line_breaks_where_the_person_was_not_seen():
    times_s = [0.5, 1.0, 1.5, 4.0, 4.5]
    line = timeline_of(faces(times_s), span_s=5.0, step_s=0.5)
    assert re.findall("[ML]", line.line) == ["M", "L", "L", "M", "L"]
    assert line.unseen == (pytest.approx((35.0, 40.0)),)


def test_a_person_is_unseen_before_the_first_and_after_the_last_face():
    line = timeline_of(faces([4.0, 4.5, 5.0]), span_s=10.0, step_s=0.5)
    assert line.unseen == (pytest.approx((0.0, 37.5)), pytest.approx((52.5, 47.5)))


def test_one_missed_sample_shows_and_jitter_does_not():
    assert timeline_of(faces([0.25, 0.75, 1.75]), span_s=2.0, step_s=0.5).line.count("M") == 2
    assert timeline_of(faces([0.25, 0.85, 1.25]), span_s=1.5, step_s=0.5).line.count("M") == 1


def test_a_still_image_is_one_dot_in_the_middle():
    line = timeline_of(faces([0.0], probability=0.25), span_s=0.0, step_s=0.0)
    assert line.line == "M500.0 75.0"
    assert line.unseen == ()
    assert line.ticks == ((50.0, 0.0),)


def test_better_crops_have_larger_dots():
    assert ["M" in dots for dots in timeline_of(faces([1.0], quality=0.1), span_s=2, step_s=1).dots] == [1, 0, 0, 0]
    assert ["M" in dots for dots in timeline_of(faces([1.0], quality=0.9), span_s=2, step_s=1).dots] == [0, 0, 0, 1]


def test_a_gap_breaks_the_envelope_of_a_long_clip():
    times_s = [t / 2 for t in range(3600) if not 1000 <= t < 1200]
    line = timeline_of(faces(times_s), span_s=1800, step_s=0.5)
    assert line.envelope.count("M") == line.line.count("M") == 2
    assert len(line.unseen) == 1


@pytest.mark.parametrize(
    ("times_s", "duration_s", "sampled", "step_s"),
    [
        ([0.25, 0.75, 1.25], 1.5, 3, 0.5),
        ([0.25, 5.25], 10.0, 20, 0.5),  # seen twice in twenty samples
        ([1.0, 2.0, 3.0], None, 3, 1.0),
        ([0.0], None, 1, 0.0),
        ([], None, 0, 0.0),
    ],
)
def test_the_sampling_step(times_s, duration_s, sampled, step_s):
    assert sampling_step_s(np.array(times_s), duration_s, sampled) == pytest.approx(step_s)
