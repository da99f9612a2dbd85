"""Cores that tasks share, and a scorer that batches the crops of all of them."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Generator
from itertools import count

import simpy

from pipeline.planning.figures import Batch

Process = Generator[simpy.Event, object, None]


class Cores:
    """Processor sharing: a job that keeps `parallel` cores busy while it is alone gets its share when cores are short.

    All jobs slow down by the same factor, cores / sum of `parallel`. So one virtual clock, which runs slower while
    cores are short, says when each job ends (virtual time of generalised processor sharing: Parekh, Gallager 1993).
    """

    def __init__(self, env: simpy.Environment, cores: float) -> None:
        self.env, self.cores = env, cores
        self.busy_s = 0.0
        self._wanted = 0.0
        self._clock = self._seen_s = 0.0
        self._jobs: list[tuple[float, int, float, simpy.Event]] = []
        self._numbers, self._version = count(), 0

    def run(self, work_s: float, parallel: float) -> simpy.Event:
        """An event at the end of a job of `work_s` CPU seconds."""
        done = self.env.event()
        if work_s <= 0:
            return done.succeed()
        self._advance()
        heapq.heappush(self._jobs, (self._clock + work_s / parallel, next(self._numbers), parallel, done))
        self._wanted += parallel
        self._plan()
        return done

    def settle(self) -> float:
        """Core seconds used up to now."""
        self._advance()
        return self.busy_s

    @property
    def _speed(self) -> float:
        return min(1.0, self.cores / self._wanted) if self._wanted > 0 else 1.0

    def _advance(self) -> None:
        passed_s = self.env.now - self._seen_s
        if passed_s > 0:
            self._clock += passed_s * self._speed
            self.busy_s += passed_s * min(self._wanted, self.cores)
            self._seen_s = self.env.now

    def _plan(self) -> None:
        self._version += 1
        if self._jobs:
            wait_s = max(0.0, self._jobs[0][0] - self._clock) / self._speed
            wake = self.env.timeout(wait_s, self._version)
            assert wake.callbacks is not None
            wake.callbacks.append(self._wake)

    def _wake(self, event: simpy.Event) -> None:
        if event.value != self._version:
            return
        self._advance()
        # What is due now, up to rounding.
        due = max(self._clock, self._jobs[0][0])
        while self._jobs and self._jobs[0][0] <= due:
            _, _, parallel, done = heapq.heappop(self._jobs)
            self._wanted -= parallel
            done.succeed()
        if not self._jobs:
            self._wanted = 0.0
        self._plan()


class Scorer:
    """Batches the crops of all tasks of a worker, as `pipeline.scoring.engine` does.

    Args:
        cores: that it takes; None where a device of its own scores.
        batches: cost by number of crops.
        at_once: batches under way.
        any_size: of a batch, at a cost between those of the next sizes.
        delay_s: how long the first crop waits for others.
    """

    def __init__(
        self,
        env: simpy.Environment,
        cores: Cores | None,
        batches: tuple[Batch, ...],
        *,
        at_once: int,
        any_size: bool,
        delay_s: float,
    ) -> None:
        self.env, self._cores, self._delay_s = env, cores, delay_s
        self._any_size = any_size
        self._batches = sorted(batches, key=lambda batch: -batch.crops)
        self.device_s = 0.0
        self._waiting: deque[tuple[float, list[int], simpy.Event]] = deque()
        self._crops = 0
        self._free = at_once
        self._timer = False

    def submit(self, crops: int) -> simpy.Event:
        """An event when all of these crops are scored."""
        done = self.env.event()
        if crops == 0:
            return done.succeed()
        self._waiting.append((self.env.now, [crops, crops], done))
        self._crops += crops
        self._start()
        return done

    def _start(self) -> None:
        while self._free and self._crops:
            left_s = self._waiting[0][0] + self._delay_s - self.env.now
            if self._crops < self._batches[0].crops and left_s > 1e-9:
                if not self._timer:
                    self._timer = True
                    wake = self.env.timeout(left_s)
                    assert wake.callbacks is not None
                    wake.callbacks.append(self._due)
                return
            batch = self._fitting(self._crops)
            self._free -= 1
            self.env.process(self._score(batch, self._taken(min(batch.crops, self._crops))))

    def _fitting(self, crops: int) -> Batch:
        """The largest batch that so many crops fill."""
        lower = next((batch for batch in self._batches if batch.crops <= crops), self._batches[-1])
        upper = next((batch for batch in reversed(self._batches) if batch.crops > crops), None)
        if not self._any_size or upper is None or lower.crops >= crops:
            return lower
        share = (crops - lower.crops) / (upper.crops - lower.crops)
        wall_s = lower.wall_s + share * (upper.wall_s - lower.wall_s)
        return Batch(crops, wall_s, lower.cpu_s + share * (upper.cpu_s - lower.cpu_s))

    def _due(self, _: simpy.Event) -> None:
        self._timer = False
        self._start()

    def _taken(self, crops: int) -> list[tuple[list[int], int, simpy.Event]]:
        """Take the oldest crops off the queue: whose, how many."""
        self._crops -= crops
        taken = []
        while crops:
            _, left, done = self._waiting[0]
            part = min(crops, left[0])
            left[0] -= part
            crops -= part
            taken.append((left, part, done))
            if left[0] == 0:
                self._waiting.popleft()
        return taken

    def _score(self, batch: Batch, taken: list[tuple[list[int], int, simpy.Event]]) -> Process:
        if self._cores is None:
            self.device_s += batch.wall_s
            yield self.env.timeout(batch.wall_s)
        else:
            yield self._cores.run(batch.cpu_s, max(batch.cpu_s / batch.wall_s, 1e-6))
        for left, part, done in taken:
            left[1] -= part
            if left[1] == 0:
                done.succeed()
        self._free += 1
        self._start()
