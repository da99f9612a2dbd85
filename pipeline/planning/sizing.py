"""The least number of workers that holds a target, by simulation."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from models.errors import UnmaskError
from pipeline.planning.figures import Figures
from pipeline.planning.replicate import Summary, replicate
from pipeline.planning.scenario import Fleet, Load, Scenario

# Larger fleets are simulated in a part of this many workers with its share of streams, videos and partitions.
CELL_WORKERS: Final = 16
# The same seeds for each number of workers, so that the search compares like with like.
_RUNS: Final = 5
_MOST_WORKERS: Final = 100_000
# Each worker has at least two partitions, so that one more worker takes half of a share; eight are the default.
_PARTITIONS_A_WORKER: Final = 2
_LEAST_PARTITIONS: Final = 8
# Segments of a run that count, at most, where rare videos would make it long: a second of simulating, or so.
_SEGMENTS: Final = 6000
# Arrivals of a run, at most: minutes of simulating.
_ARRIVALS: Final = 300_000


class SizingError(UnmaskError):
    """No number of workers holds the target."""


@dataclass(frozen=True, slots=True)
class Target:
    """What the workers must hold.

    Attributes:
        p95_s: from arrival to verdict.
        shed: share of the segments.
    """

    p95_s: float = 5.0
    shed: float = 0.01

    def __post_init__(self) -> None:
        if self.p95_s <= 0 or not 0 <= self.shed < 1:
            raise ValueError("p95_s must be above 0, and shed in 0..1")

    def is_far(self, found: Summary) -> bool:
        """Whether this summary is far from holding it."""
        return found.worst_p95_s() > 2 * self.p95_s or found.shed.mean > 2 * self.shed + 0.05

    def is_close(self, found: Summary) -> bool:
        """Whether the interval of one of its figures reaches above the target."""
        return found.shed.high > self.shed or any(each["p95"].high > self.p95_s for each in found.latency_s.values())

    def held(self, found: Summary) -> bool:
        """Whether this summary holds it."""
        return found.worst_p95_s() <= self.p95_s and found.shed.mean <= self.shed


@dataclass(frozen=True, slots=True)
class Sized:
    """A fleet and the summary of its simulation.

    Attributes:
        offered: workers that the load keeps busy.
        duration_s: time that counts in each run, of the whole load: a part of a fleet counts by its share.
    """

    fleet: Fleet
    summary: Summary
    offered: float
    duration_s: float = 0.0


def offered_workers(figures: Figures, load: Load) -> float:
    """Workers that the load keeps busy if it is spread perfectly."""
    busy = load.streams / load.segment_s / figures.tasks_s("segment", load.segment_s) if load.streams else 0.0
    return busy + load.videos_s / figures.tasks_s("video", load.video_s)


def partitions_for(workers: int) -> int:
    """A multiple of the workers, so that all have equally many."""
    per_worker = max(_PARTITIONS_A_WORKER, math.ceil(_LEAST_PARTITIONS / max(1, workers)))
    return per_worker * max(1, workers)


def cell_of(scenario: Scenario, most: int = CELL_WORKERS) -> Scenario:
    """A part of a large scenario with at most so many workers: its share of load and partitions.

    What it does not show: waits for what all workers share (brokers, Redis), and the fullest of very many workers.
    """
    fleet, load, keda = scenario.fleet, scenario.load, scenario.keda
    if fleet.workers <= most or load.trace is not None:
        return scenario
    share = most / fleet.workers
    if keda is not None:
        least = min(keda.least, max(1, round(keda.least * share)))
        keda = replace(keda, least=least, most=max(1, least, round(keda.most * share)))
    return replace(
        scenario,
        fleet=replace(fleet, workers=most, partitions=max(most, round(fleet.partitions * share))),
        load=replace(load, streams=math.ceil(load.streams * share), videos_s=load.videos_s * share),
        keda=keda,
    )


def timed(scenario: Scenario, *, tasks: int = 400) -> Scenario:
    """The scenario, long enough for so many videos, and for tasks that take long.

    Beside streams it ends earlier: `_SEGMENTS` of them are enough, however rare the videos are.
    """
    figures, load = scenario.figures, scenario.load
    duration_s = 60.0
    if load.videos_s and load.trace is None:
        task_s = figures.task_cpu_s("video", load.video_s) / max(min(figures.video.parallel, figures.cores), 0.1)
        long_s = max(duration_s, tasks / load.videos_s, 10 * task_s)
        if load.streams:
            long_s = min(long_s, max(duration_s, _SEGMENTS * load.segment_s / load.streams))
        duration_s = long_s
    return replace(scenario, warmup_s=duration_s / 3, duration_s=duration_s)


def counted_s(scenario: Scenario, fleet: Fleet) -> float:
    """The time that counts in a run; of a part of a fleet, the time in which the whole has as many arrivals."""
    return scenario.duration_s * scenario.fleet.workers / max(1, fleet.workers)


def check_size(scenario: Scenario, options: str) -> None:
    """Refuse what would be simulated for hours.

    Args:
        options: that make it smaller.

    Raises:
        SizingError: too many arrivals.
    """
    load, seconds = scenario.load, scenario.warmup_s + scenario.duration_s
    if load.burst is not None:
        seconds += load.burst.seconds * (load.burst.times - 1)
    arrivals = seconds * (load.streams / load.segment_s + load.videos_s)
    if load.trace is None and arrivals > _ARRIVALS:
        raise SizingError(
            f"about {arrivals:.3g} arrivals would be simulated for {scenario.fleet.workers} workers, and "
            f"{_ARRIVALS:,} is the most: change {options}"
        )


def size(
    figures: Figures,
    load: Load,
    target: Target,
    *,
    fleet: Fleet | None = None,
    partitions: int | None = None,
    seed: int = 0,
) -> Sized:
    """The least number of workers that holds the target on average of the runs.

    Args:
        fleet: its settings; the number of workers is searched for.
        partitions: of each topic; None: as many as the workers need.

    Raises:
        SizingError: more workers do not help, or there are fewer partitions than workers are needed.
    """
    offered = offered_workers(figures, load)
    settings = fleet or Fleet(1)

    def scenario_of(workers: int) -> Scenario:
        return timed(cell_of(Scenario(figures, load, fleet_of(workers))))

    @functools.cache
    def found(workers: int) -> Summary:
        scenario = scenario_of(workers)
        first = replicate(scenario, 1, seed)[0]
        # What a single run misses by far, five would miss, too.
        return first if target.is_far(first) else replicate(scenario, _RUNS, seed)[0]

    def fleet_of(workers: int) -> Fleet:
        return replace(settings, workers=workers, partitions=partitions or partitions_for(workers))

    workers = _least(lambda count: target.held(found(count)), max(1, math.ceil(offered)), partitions)
    return Sized(fleet_of(workers), found(workers), offered, counted_s(scenario_of(workers), fleet_of(workers)))


def _least(holds: Callable[[int], bool], first: int, partitions: int | None) -> int:
    """The least number from `first` on that holds, by growing steps and bisection."""
    most = partitions or _MOST_WORKERS
    low, step = first - 1, max(1, first // 10)
    high = first
    while high > most or not holds(high):
        if high >= most:
            limit = f"{partitions} partitions" if partitions else f"{most} workers"
            raise SizingError(
                f"{limit} are not enough for this target: give more partitions, more time (--p95) or more --shed-max"
            )
        if high > 8 * first + 64:
            raise SizingError(
                f"not even {high} workers hold the target: a single task takes longer than --p95, or one partition has "
                "more than a worker can do"
            )
        low, high, step = high, min(most, high + step), max(step + 1, step * 3 // 2)
    while high - low > max(1, high // 100):
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high
