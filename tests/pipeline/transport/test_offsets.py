"""Commits never pass an undone message, and finally reach the last done one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.transport.offsets import LowWater


def test_nothing_is_committed_past_an_undone_message() -> None:
    water = LowWater()
    for offset in (5, 6, 7):
        water.take(offset)
    assert water.to_commit() is None
    water.done(6)
    assert water.to_commit() is None
    water.done(5)
    assert water.to_commit() == 7
    water.committed(7)
    assert water.to_commit() is None
    water.done(7)
    assert water.to_commit() == 8
    assert water.waiting == 0


def test_a_commit_that_failed_is_due_again() -> None:
    water = LowWater()
    water.take(0)
    water.done(0)
    assert water.to_commit() == 1
    assert water.to_commit() == 1


def test_before_the_first_message_there_is_nothing_to_commit() -> None:
    assert LowWater().to_commit() is None


def test_nothing_is_committed_past_a_message_that_is_left_to_others() -> None:
    water = LowWater()
    for offset in (5, 6, 7):
        water.take(offset)
    water.leave(6)
    water.done(5)
    water.done(7)
    assert (water.waiting, water.left) == (0, 1)
    assert water.to_commit() == 6
    water.committed(6)
    assert water.to_commit() is None
    with pytest.raises(KeyError):
        water.done(6)


def test_invalid_calls_are_errors() -> None:
    water = LowWater()
    water.take(3)
    with pytest.raises(ValueError, match="offset 3 was delivered after 3"):
        water.take(3)
    water.done(3)
    with pytest.raises(KeyError):
        water.done(3)
    with pytest.raises(KeyError):
        water.done(4)


@given(st.data())
def test_in_any_order(data: st.DataObject) -> None:
    offsets = sorted(data.draw(st.sets(st.integers(0, 60), min_size=1, max_size=20)))
    water, taken, done, committed = LowWater(), [], set(), offsets[0]
    left = list(offsets)
    while left or set(taken) - done:
        choices = ["take"] * bool(left) + ["done"] * bool(set(taken) - done)
        if data.draw(st.sampled_from(choices)) == "take":
            taken.append(left.pop(0))
            water.take(taken[-1])
        else:
            offset = data.draw(st.sampled_from(sorted(set(taken) - done)))
            water.done(offset)
            done.add(offset)
        due = water.to_commit()
        if due is not None:
            assert due > committed
            committed = due
            water.committed(due)
        # Everything taken below what is committed is done, and the commit is as far as possible.
        assert all(offset in done for offset in taken if offset < committed)
        assert committed == min((offset for offset in taken if offset not in done), default=taken[-1] + 1)
        assert water.waiting == len(set(taken) - done)
    assert committed == offsets[-1] + 1
