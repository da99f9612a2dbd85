"""How long the oldest undelivered message has waited, from looks at the end of its partition."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from pipeline.transport.waiting import Waiting

LOOK_S = 0.5


def test_a_message_waits_from_the_look_that_showed_it() -> None:
    waiting = Waiting()
    assert waiting.age_s(0.0, 0) == 0.0
    waiting.looked(0.0, 3)
    waiting.looked(10.0, 5)
    assert waiting.age_s(12.0, 0) == 12.0
    assert waiting.age_s(12.0, 3) == 2.0
    assert waiting.age_s(13.0, 5) == 0.0
    waiting.looked(20.0, 6)
    assert waiting.age_s(21.0, 5) == 1.0


@given(st.lists(st.floats(0.0, 3.0), min_size=1, max_size=60), st.lists(st.integers(0, 20), min_size=1, max_size=30))
def test_ages_are_those_of_the_messages(gaps: list[float], taken: list[int]) -> None:
    """Too low by the time until the next look, or too high by a second."""
    arrivals = list(accumulate(gaps))
    waiting, position = Waiting(), 0
    for step in range(int((arrivals[-1] + 5.0) / LOOK_S)):
        now_s = step * LOOK_S
        ready = bisect_right(arrivals, now_s)
        waiting.looked(now_s, ready)
        if step % 7 == 0:
            position = min(position + taken[step // 7 % len(taken)], ready)
        waited_s = now_s - arrivals[position] if position < ready else 0.0
        assert waited_s - LOOK_S <= waiting.age_s(now_s, position) <= waited_s + 1.0


def test_a_backlog_of_days_takes_little_memory_and_keeps_its_age() -> None:
    waiting = Waiting()
    for second in range(20_000):
        waiting.looked(float(second), second + 1)
    for position in range(0, 20_000, 997):
        true_s = 20_000.0 - position
        assert true_s <= waiting.age_s(20_000.0, position) <= true_s + 20_000.0 / 256
    assert len(waiting._looks) <= 512
