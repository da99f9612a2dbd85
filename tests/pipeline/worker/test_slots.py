"""How long messages have been served."""

from __future__ import annotations

from pipeline.contracts import Topic
from pipeline.transport.consumer import Delivery
from pipeline.worker.message import Slots


def delivery(offset: int) -> Delivery:
    return Delivery(
        partition=1, offset=offset, key=None, value=None, headers=(), timestamp_s=0.0, topic=Topic.VIDEOS, _tenure=None
    )  # type: ignore[arg-type]


def test_the_message_that_is_held_longest_is_named() -> None:
    now = [0.0]
    slots = Slots(clock=lambda: now[0])
    assert slots.oldest() is None
    assert slots.stuck(0.0) is None
    with slots.held(delivery(7)):
        now[0] = 60.0
        with slots.held(delivery(8)):
            now[0] = 100.0
            assert slots.oldest() == ("unmask.videos 1:7", 100.0)
            assert slots.stuck(100.0) is None
            assert "unmask.videos 1:7 has been served for 100 s" in (slots.stuck(99.0) or "")
        assert slots.oldest() == ("unmask.videos 1:7", 100.0)
    assert slots.oldest() is None
