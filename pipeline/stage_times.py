"""How long the stages of a clip take, and their spans."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline import tracing


class StageTimes:
    """Time in each stage of one clip; belongs to one thread.

    Stages take turns: each has the sum of its seconds, and the window from its first beginning to its last end.

    Attributes:
        seconds: in each stage.
        counts: what was worked on: frames, faces, crops.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.counts: Counter[str] = Counter()
        self._windows: dict[str, tuple[float, float]] = {}

    def add(self, stage: str, began_s: float, ended_s: float) -> None:
        """Add a turn of a stage; times as `time.perf_counter` gives them."""
        self.seconds[stage] += ended_s - began_s
        self._widen(stage, began_s, ended_s)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """The block is a turn of a stage."""
        began_s = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, began_s, time.perf_counter())

    def update(self, other: StageTimes) -> None:
        """Add what another reading of the same clip took."""
        for stage, seconds in other.seconds.items():
            self.seconds[stage] += seconds
        self.counts.update(other.counts)
        for stage, window in other._windows.items():
            self._widen(stage, *window)

    def trace(self, *, size_bytes: int | None = None) -> None:
        """Make the spans `fetch`, `decode`, `faces` and `score` below the active one, of the stages that there were.

        They overlap, as the stages take turns: `unmask.busy_s` says how much of its window a stage took. `score` is
        from the first crop that is submitted to the last score.

        Args:
            size_bytes: of what was fetched.
        """
        if not tracing.is_on():
            return
        fetched = {} if size_bytes is None else {"unmask.size_bytes": size_bytes}
        self._span("fetch", ("open",), fetched)
        self._span("decode", ("decode",), {"unmask.frames": self.counts["frames"]})
        self._span("faces", ("faces",), {"unmask.frames": self.counts["frames"], "unmask.faces": self.counts["faces"]})
        if self.counts["crops"]:
            waits = {"unmask.queue_s": round(self.seconds.get("queue", 0.0), 6)}
            self._span("score", ("queue", "score"), {"unmask.crops": self.counts["crops"], **waits})

    def _span(self, name: str, stages: tuple[str, ...], attributes: tracing.Attributes) -> None:
        windows = [self._windows[stage] for stage in stages if stage in self._windows]
        if windows:
            busy_s = round(sum(self.seconds.get(stage, 0.0) for stage in stages), 6)
            began_s, ended_s = min(window[0] for window in windows), max(window[1] for window in windows)
            tracing.record(name, began_s, ended_s, {"unmask.busy_s": busy_s, **attributes})

    def _widen(self, stage: str, began_s: float, ended_s: float) -> None:
        first_s, last_s = self._windows.get(stage, (began_s, ended_s))
        self._windows[stage] = min(first_s, began_s), max(last_s, ended_s)
