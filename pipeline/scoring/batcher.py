"""Micro-batches over all clips: the window opens when its first crop arrives, not when a loop wakes up."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class QueueClosedError(RuntimeError):
    """The batcher is closed and accepts no more work."""


class MicroBatcher(Generic[T]):
    """A bounded first-in, first-out queue that hands out batches.

    A batch is ready once `max_batch` items wait or the oldest of them has waited `max_delay_s`. `put` blocks while
    the queue is full, so a busy engine slows the decoders down.
    """

    def __init__(
        self,
        *,
        max_batch: int,
        max_delay_s: float,
        capacity: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 1 <= max_batch <= capacity:
            raise ValueError(f"expected 1 <= max_batch <= capacity, got max_batch={max_batch}, capacity={capacity}")
        if max_delay_s < 0:
            raise ValueError(f"max_delay_s must not be negative, got {max_delay_s}")
        self.max_batch = max_batch
        self.max_delay_s = max_delay_s
        self.capacity = capacity
        self._clock = clock
        self._waiting: deque[tuple[float, T]] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def oldest_age_s(self) -> float:
        """How long the oldest item has waited, in seconds; 0 for an empty queue."""
        with self._changed:
            return self._clock() - self._waiting[0][0] if self._waiting else 0.0

    def put(self, items: Sequence[T]) -> None:
        """Append items in order; blocks while the queue is full, so it may hold more items than `capacity`.

        Raises:
            QueueClosedError: the batcher was closed before all items were in.
        """
        for item in items:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or len(self._waiting) < self.capacity)
                if self._closed:
                    raise QueueClosedError("the batcher is closed and takes no more work")
                self._waiting.append((self._clock(), item))
                self._changed.notify_all()

    def take(self, fit: Callable[[int], int] = lambda n: n) -> list[T]:
        """Wait for a batch and remove it from the queue.

        Args:
            fit: given how many items could go (1..max_batch), how many of them to take: at least 1.

        Returns:
            The oldest items in their order; an empty list once the batcher is closed and drained.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or bool(self._waiting))
            while self._waiting and len(self._waiting) < self.max_batch and not self._closed:
                left_s = self._waiting[0][0] + self.max_delay_s - self._clock()
                if left_s <= 0:
                    break
                self._changed.wait(left_s)
            if not self._waiting:
                return []
            count = max(1, fit(min(len(self._waiting), self.max_batch)))
            batch = [self._waiting.popleft()[1] for _ in range(count)]
            self._changed.notify_all()
            return batch

    def close(self) -> None:
        """Accept no more work; waiting items are still handed out, without delay."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
