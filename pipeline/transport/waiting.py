"""How long the oldest message that was not delivered has waited, from end offsets that are looked at anyway.

A paused partition is not fetched, so the times of its messages are unknown. But a message that was behind the end at
one look and before it at the next arrived in between.
"""

from __future__ import annotations

from collections import deque
from typing import Final

# Looks that are kept of a partition, and how far apart: while they are too many, twice as far.
_MOST: Final = 512
_APART_S: Final = 1.0


class Waiting:
    """The looks at one partition: when, and its end offset."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, int]] = deque()
        self._apart_s = _APART_S

    def looked(self, now_s: float, end: int) -> None:
        """Note a look.

        Args:
            now_s: of a monotonic clock.
            end: the offset of the next message that will arrive.
        """
        if not self._looks or end > self._looks[-1][1]:
            self._note(now_s, end)
        while len(self._looks) > _MOST:
            self._apart_s *= 2
            kept, self._looks = self._looks, deque()
            for look in kept:
                self._note(*look)

    def _note(self, now_s: float, end: int) -> None:
        if self._looks and now_s - self._looks[-1][0] < self._apart_s:
            # Its messages count as seen at the earlier look: ages are too high by less than that.
            self._looks[-1] = self._looks[-1][0], end
        else:
            self._looks.append((now_s, end))

    def age_s(self, now_s: float, position: int) -> float:
        """Seconds since the look that first showed the message at `position`; 0 before there is one.

        Messages from before the first look count from there: their age is at least this. It is too high by less than
        a second, or by a 256th of the age of the oldest message that is known.
        """
        while self._looks and self._looks[0][1] <= position:
            self._looks.popleft()
        if not self._looks:
            self._apart_s = _APART_S
            return 0.0
        return max(0.0, now_s - self._looks[0][0])
