"""Tracks the offset of a partition that may be committed while messages finish in any order."""

from __future__ import annotations

import heapq


class LowWater:
    """Offsets of one partition between two rebalances.

    A message is taken when it is delivered and done when its verdict is published. The offset to commit is the one
    before which everything that was taken is done: a crash then loses nothing, and repeats at most what was done beyond
    it. Not thread-safe: only the thread that owns the consumer may use it.

    Attributes:
        next: the offset after the last delivered one; None before the first.
    """

    def __init__(self) -> None:
        self._open: set[int] = set()
        self._left: set[int] = set()
        # Smallest first; done entries are dropped when they reach the top.
        self._order: list[int] = []
        self.next: int | None = None
        # The committed offset, as far as it is known: the first message delivered was the next one due.
        self._committed: int | None = None

    def take(self, offset: int) -> None:
        """Note that a message was delivered. Offsets come in ascending order, with gaps where a topic is compacted.

        Raises:
            ValueError: it is not after the last one.
        """
        if self.next is not None and offset < self.next:
            raise ValueError(f"offset {offset} was delivered after {self.next - 1}")
        if self._committed is None:
            self._committed = offset
        self._open.add(offset)
        heapq.heappush(self._order, offset)
        self.next = offset + 1

    def done(self, offset: int) -> None:
        """Note that the result of a message is safe.

        Raises:
            KeyError: it was not taken, or is already done.
        """
        self._open.remove(offset)

    def leave(self, offset: int) -> None:
        """Note that a message is left to another worker: no offset behind it can be committed here.

        Raises:
            KeyError: it was not taken, or is already done or left.
        """
        self._open.remove(offset)
        self._left.add(offset)

    @property
    def waiting(self) -> int:
        """Messages that are taken, and neither done nor left."""
        return len(self._open)

    @property
    def left(self) -> int:
        """Messages that are left to another worker."""
        return len(self._left)

    def to_commit(self) -> int | None:
        """The offset to commit (that of the next message to deliver, as Kafka counts); None if it has not moved."""
        while self._order and self._order[0] not in self._open and self._order[0] not in self._left:
            heapq.heappop(self._order)
        water = self._order[0] if self._order else self.next
        return None if water == self._committed else water

    def committed(self, offset: int) -> None:
        """Note that Kafka has accepted a commit."""
        self._committed = offset
