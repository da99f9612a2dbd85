"""The plan of a load: workers, partitions, bytes and money, and how it behaves in a burst or after a failure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pipeline.planning.figures import Figures
from pipeline.planning.notes import notes_of
from pipeline.planning.replicate import Summary, percentile, replicate
from pipeline.planning.resources import Keeping, Prices, Resources, resources_of
from pipeline.planning.scenario import Burst, Fleet, Keda, Kill, Load, Scenario
from pipeline.planning.simulate import Point, Run
from pipeline.planning.sizing import (
    Sized,
    Target,
    cell_of,
    check_size,
    counted_s,
    offered_workers,
    partitions_for,
    size,
    timed,
)

# A behaviour is watched from so long before the event to so long after it.
_BEFORE_S, _AFTER_S, _WARM_S = 300.0, 1200.0, 60.0
# Half an hour of a burst is long: larger fleets are simulated in a part of this size.
_CELL_OVER_TIME = 4
# A fixed fleet is simulated like a search's result.
_RUNS = 5


@dataclass(frozen=True, slots=True)
class Plan:
    """What a load needs.

    Attributes:
        sized: the workers and their simulation.
        target: that they hold, or may miss where the number of workers was given.
        stream_hour: cost of serving one stream for an hour; None without streams or prices.
        video_hour: cost of an hour of uploaded video.
        missing: prices that are left out of these.
    """

    figures: Figures
    load: Load
    sized: Sized
    target: Target
    resources: Resources
    stream_hour: float | None = None
    video_hour: float | None = None
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "machine": self.figures.machine,
            "clip": self.figures.clip,
            "network": self.figures.network,
            "load": asdict(self.load),
            "target": asdict(self.target),
            "held": self.target.held(self.sized.summary),
            "fleet": asdict(self.sized.fleet),
            "offered_workers": self.sized.offered,
            "simulated": asdict(self.sized.summary),
            "resources": {**asdict(self.resources), "network_bytes_s": self.resources.network_bytes_s},
            "stream_hour": self.stream_hour,
            "video_hour": self.video_hour,
            "prices_missing": self.missing,
            "notes": self.notes,
        }


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What happens over time in a burst, with an autoscaler, or after failures.

    Attributes:
        burst_p95_s: from arrival to verdict, of what arrived during the burst; None without one.
        recovered_s: after the end of the burst, or the first failure, until the lag is as before; None: it never was.
        most_workers: at any time.
        share: of a large fleet and its load that was simulated; all figures are of this part.
    """

    scenario: Scenario
    summary: Summary
    curve: list[Point]
    burst_p95_s: float | None
    recovered_s: float | None
    most_workers: int
    share: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        keda = self.scenario.keda
        return {
            "keda": None if keda is None else asdict(keda),
            "simulated": asdict(self.summary),
            "burst_p95_s": self.burst_p95_s,
            "recovered_s": self.recovered_s,
            "most_workers": self.most_workers,
            "share": self.share,
            "curve": [asdict(point) for point in self.curve],
        }


def make_plan(
    figures: Figures,
    load: Load,
    *,
    target: Target,
    settings: Fleet | None = None,
    workers: int | None = None,
    partitions: int | None = None,
    keeping: Keeping | None = None,
    prices: Prices | None = None,
    seed: int = 0,
) -> Plan:
    """Size a load, or simulate it with a given number of workers.

    Args:
        settings: of the workers, but for their number.
        workers: None: the least that hold the target.
        partitions: None: as many as the workers need.

    Raises:
        SizingError: no number of workers holds the target, or the given ones are too few for so much to be simulated.
        ValueError: nothing arrives.
    """
    if not load.streams and not load.videos_s:
        raise ValueError("nothing arrives: give --streams or --videos-per-day")
    prices, settings = prices or Prices(), settings or Fleet(1)
    if workers is None:
        sized = size(figures, load, target, fleet=settings, partitions=partitions, seed=seed)
    else:
        fleet = replace(settings, workers=workers, partitions=partitions or partitions_for(workers))
        scenario = timed(cell_of(Scenario(figures, load, fleet)))
        check_size(scenario, "--workers")
        summary = replicate(scenario, _RUNS, seed)[0]
        sized = Sized(fleet, summary, offered_workers(figures, load), counted_s(scenario, fleet))
    found = resources_of(figures, load, sized.fleet.workers, keeping or Keeping())
    plan = Plan(figures, load, sized, target, found, notes=notes_of(figures, load, sized, target))
    if not prices.given:
        return plan
    hour = prices.hour(sized.fleet.workers, found)
    # Of a mixed load, each kind has its share of the work.
    live = replace(load, videos_s=0.0)
    share = offered_workers(figures, live) / sized.offered if sized.offered else 0.0
    return replace(
        plan,
        stream_hour=hour * share / load.streams if load.streams else None,
        video_hour=hour * (1 - share) / (load.videos_s * load.video_s) if load.videos_s else None,
        missing=prices.missing,
    )


def behave(
    figures: Figures,
    load: Load,
    fleet: Fleet,
    *,
    keda: Keda | None = None,
    burst_s: float | None = None,
    times: float = 10.0,
    kills: int = 0,
    runs: int = 3,
    seed: int = 0,
) -> Behaviour:
    """Simulate a burst of videos or streams, an autoscaler, or workers that die, over half an hour or more.

    Args:
        burst_s: how long the load is `times` as high; None: it stays.
        kills: workers that die one after the other, a minute apart.

    Raises:
        SizingError: the burst is too much to be simulated.
    """
    duration_s = _BEFORE_S + (burst_s or 0.0) + _AFTER_S
    burst = None if burst_s is None else Burst(_BEFORE_S, burst_s, times)
    scenario = Scenario(
        figures,
        replace(load, burst=burst),
        fleet,
        keda=keda,
        kills=tuple(Kill(_BEFORE_S + 60.0 * number) for number in range(kills)),
        warmup_s=_WARM_S,
        duration_s=duration_s - _WARM_S,
    )
    scenario = cell_of(scenario, _CELL_OVER_TIME)
    check_size(scenario, "--burst, --burst-minutes or --workers")
    summary, run = replicate(scenario, runs, seed)
    return Behaviour(
        scenario=scenario,
        summary=summary,
        curve=run.curve,
        burst_p95_s=_burst_p95_s(run, burst),
        recovered_s=_recovered_s(run, _BEFORE_S, _BEFORE_S + (burst_s or 0.0)),
        most_workers=max(point.workers for point in run.curve),
        share=scenario.fleet.workers / fleet.workers if fleet.workers else 1.0,
    )


def _burst_p95_s(run: Run, burst: Burst | None) -> float | None:
    if burst is None:
        return None
    found = [latency_s for at_s, latency_s in run.timed_s if burst.at_s <= at_s < burst.at_s + burst.seconds]
    return percentile(found, 0.95) if found else None


def _recovered_s(run: Run, begin_s: float, end_s: float) -> float | None:
    """From `end_s` until the lag is at most what it was before `begin_s`; 0 where it never was above."""
    usual = max((point.lag for point in run.curve if _WARM_S <= point.at_s < begin_s), default=0)
    above = next((point.at_s for point in run.curve if point.at_s >= begin_s and point.lag > usual), None)
    if above is None:
        return 0.0
    back = (point.at_s for point in run.curve if point.at_s > max(above, end_s) and point.lag <= usual)
    found = next(back, None)
    return None if found is None else found - end_s
