"""The micro-batch queue: contents of batches, when they are ready, and that nothing is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.scoring.batcher import MicroBatcher, QueueClosedError

PATIENCE_S = 30  # for expected events; no test waits this long


class Clock:
    """A clock that is set by hand, and counts its readings."""

    def __init__(self) -> None:
        self.now = 0.0
        self.readings = threading.Semaphore(0)

    def __call__(self) -> float:
        self.readings.release()
        return self.now

    def wait_for_readings(self, count: int) -> None:
        for _ in range(count):
            assert self.readings.acquire(timeout=PATIENCE_S)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def batcher(
    *, max_batch: int = 4, max_delay_s: float = 60.0, capacity: int = 100, clock: Clock | None = None
) -> MicroBatcher[int]:
    return MicroBatcher(max_batch=max_batch, max_delay_s=max_delay_s, capacity=capacity, clock=clock or Clock())


def test_a_full_batch_does_not_wait_for_the_window() -> None:
    queue = batcher(max_batch=3)
    queue.put([1, 2, 3, 4])
    assert queue.take() == [1, 2, 3]
    assert len(queue) == 1


def test_the_window_opens_with_the_first_item_not_with_take() -> None:
    clock = Clock()
    queue = batcher(max_delay_s=5.0, clock=clock)
    queue.put([1])
    clock.now = 4.0
    queue.put([2])
    clock.now = 5.0
    assert queue.take() == [1, 2]


def test_a_batch_that_is_not_full_waits_until_its_window_closes(threads: ThreadPoolExecutor) -> None:
    clock = Clock()
    queue = batcher(max_delay_s=0.001, clock=clock)
    queue.put([1])
    clock.wait_for_readings(1)
    taken = threads.submit(queue.take)
    clock.wait_for_readings(3)
    assert not taken.done()
    queue.put([2])
    clock.now = 0.001
    assert taken.result(PATIENCE_S) == [1, 2]


def test_a_waiting_taker_gets_a_batch_as_soon_as_it_is_full(threads: ThreadPoolExecutor) -> None:
    queue = batcher(max_batch=2)
    taken = threads.submit(queue.take)
    queue.put([1])
    queue.put([2])
    assert taken.result(PATIENCE_S) == [1, 2]


def test_fit_decides_how_many_ready_items_are_taken() -> None:
    queue = batcher(max_batch=4, max_delay_s=0.0)
    queue.put([1, 2, 3])
    offered: list[int] = []

    def powers_of_two(ready: int) -> int:
        offered.append(ready)
        return 2 if ready >= 2 else 1

    assert [queue.take(powers_of_two), queue.take(powers_of_two)] == [[1, 2], [3]]
    assert offered == [3, 1]


def test_put_blocks_while_the_queue_is_full(threads: ThreadPoolExecutor) -> None:
    queue = batcher(max_batch=2, capacity=2)
    putting = threads.submit(queue.put, [1, 2, 3, 4, 5])
    for expected in ([1, 2], [3, 4]):
        assert not putting.done()
        assert queue.take() == expected
    putting.result(PATIENCE_S)
    assert len(queue) == 1


def test_close_hands_out_waiting_items_and_then_nothing() -> None:
    queue = batcher()
    queue.put([1, 2])
    queue.close()
    assert queue.take() == [1, 2]
    assert queue.take() == []
    assert queue.take() == []


def test_close_wakes_a_waiting_taker(threads: ThreadPoolExecutor) -> None:
    queue = batcher()
    taken = threads.submit(queue.take)
    queue.close()
    assert taken.result(PATIENCE_S) == []


def test_close_refuses_waiting_and_new_puts(threads: ThreadPoolExecutor) -> None:
    queue = batcher(max_batch=1, capacity=1)
    putting = threads.submit(queue.put, [1, 2])
    queue.close()
    with pytest.raises(QueueClosedError, match="closed"):
        putting.result(PATIENCE_S)
    with pytest.raises(QueueClosedError, match="closed"):
        queue.put([3])


def test_the_oldest_item_ages() -> None:
    clock = Clock()
    queue = batcher(max_batch=1, clock=clock)
    assert queue.oldest_age_s() == 0.0
    queue.put([1])
    clock.now = 2.0
    queue.put([2])
    clock.now = 3.0
    assert queue.oldest_age_s() == 3.0
    queue.take()
    assert queue.oldest_age_s() == 1.0


@pytest.mark.parametrize(
    ("max_batch", "max_delay_s", "capacity", "named"),
    [(0, 1.0, 4, "max_batch=0"), (5, 1.0, 4, "capacity=4"), (1, -0.1, 4, "-0.1")],
)
def test_invalid_settings_are_refused(max_batch: int, max_delay_s: float, capacity: int, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        batcher(max_batch=max_batch, max_delay_s=max_delay_s, capacity=capacity)


@given(
    puts=st.lists(st.lists(st.integers(), max_size=12), max_size=12),
    max_batch=st.integers(1, 6),
    extra=st.integers(0, 6),
    bucket=st.integers(1, 6),
)
def test_nothing_is_lost_and_order_is_kept(puts: list[list[int]], max_batch: int, extra: int, bucket: int) -> None:
    queue = batcher(max_batch=max_batch, max_delay_s=0.0, capacity=max_batch + extra)

    def produce() -> None:
        for items in puts:
            queue.put(items)
        queue.close()

    producer = threading.Thread(target=produce)
    producer.start()
    batches: list[list[int]] = []
    while batch := queue.take(lambda ready: min(ready, bucket)):
        batches.append(batch)
    producer.join(PATIENCE_S)
    assert [item for batch in batches for item in batch] == [item for items in puts for item in items]
    assert all(len(batch) <= min(max_batch, bucket) for batch in batches)


@given(producers=st.integers(2, 6), items=st.integers(1, 30), max_batch=st.integers(1, 5))
def test_each_producer_keeps_its_order_among_the_others(producers: int, items: int, max_batch: int) -> None:
    queue: MicroBatcher[tuple[int, int]] = MicroBatcher(
        max_batch=max_batch, max_delay_s=0.0, capacity=2 * max_batch, clock=Clock()
    )
    with ThreadPoolExecutor(producers) as pool:
        done = [pool.submit(queue.put, [(who, n) for n in range(items)]) for who in range(producers)]
        taken: list[tuple[int, int]] = []
        while len(taken) < producers * items:
            taken += queue.take()
        for future in done:
            future.result(PATIENCE_S)
    for who in range(producers):
        assert [n for producer, n in taken if producer == who] == list(range(items))
