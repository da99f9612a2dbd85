"""Presentation times of the frames of a stream."""

from __future__ import annotations

import math
from fractions import Fraction

import av

# libav's own default where a file says nothing about its frame rate.
_DEFAULT_FPS = Fraction(25)


class Clock:
    """Presentation times of one stream in seconds from its start, always growing."""

    def __init__(self, stream: av.VideoStream) -> None:
        rate = stream.average_rate or stream.guessed_rate or _DEFAULT_FPS
        self.period_s = float(1 / rate)
        self._time_base = stream.time_base or 1 / _DEFAULT_FPS
        self.start = stream.start_time
        self._last_s: float | None = None

    def seconds(self, pts: int) -> float:
        """The time of a timestamp; the first one asked for is 0 if the stream has no start time."""
        if self.start is None:
            self.start = pts
        return max(float((pts - self.start) * self._time_base), 0.0)

    def last_before(self, t_s: float) -> int:
        """The last timestamp whose time is before `t_s`, which is above 0."""
        pts = (self.start or 0) + math.ceil(t_s / self._time_base)
        while self.seconds(pts) >= t_s:
            pts -= 1
        return pts

    def next(self, pts: int | None) -> float:
        """The time of the next frame. A missing or backward timestamp counts as one frame period."""
        t_s = None if pts is None else self.seconds(pts)
        if self._last_s is None:
            t_s = t_s or 0.0
        elif t_s is None or t_s <= self._last_s:
            t_s = self._last_s + self.period_s
        self._last_s = t_s
        return t_s
