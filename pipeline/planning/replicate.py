"""Several runs of a scenario with seeds of their own, and what they say together."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.planning.figures import Kind
from pipeline.planning.scenario import Scenario
from pipeline.planning.simulate import Run, simulate

# Student's t, 97.5 %, by degrees of freedom.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
_T_LARGE = 2.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over the runs and its 95 % interval (Student's t); equal to the mean with a single run.

    Those of a `Summary` end where their quantity does: at 0, shares of segments also at 1.
    """

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate | None:
        """Of a value from each run; None without any."""
        if not values:
            return None
        mean = statistics.fmean(values)
        if len(values) == 1 or not all(map(math.isfinite, values)):
            return cls(mean, mean, mean)
        degrees = len(values) - 1
        t = _T[degrees - 1] if degrees <= len(_T) else _T_LARGE
        half = t * statistics.stdev(values) / math.sqrt(len(values))
        return cls(mean, mean - half, mean + half)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True, slots=True)
class Summary:
    """Runs of one scenario together.

    Attributes:
        latency_s: p50, p95, p99 by kind; a kind is missing where nothing of it was scored.
        throughput_s: scored within the time that counts, per second.
        shed: share of the arrivals that count.
        queued: arrivals without an end when the simulation ended.
        max_lag: messages that are not committed, at most.
    """

    runs: int
    latency_s: dict[Kind, dict[str, Estimate]]
    throughput_s: Estimate
    shed: Estimate
    utilisation: Estimate
    queued: Estimate
    max_lag: Estimate
    rebalances: Estimate
    redelivered: Estimate
    worker_s: Estimate

    def worst_p95_s(self) -> float:
        """Of the kinds; infinite where nothing was scored."""
        return max((each["p95"].mean for each in self.latency_s.values()), default=math.inf)


def replicate(scenario: Scenario, runs: int = 5, seed: int = 0) -> tuple[Summary, Run]:
    """Simulate `runs` times; returns what they say together, and the first run."""
    made = [simulate(scenario, seed + number) for number in range(runs)]
    return summary_of(made, scenario.duration_s), made[0]


def summary_of(runs: Sequence[Run], duration_s: float) -> Summary:
    """What runs of one scenario say together.

    Args:
        runs: at least one.
        duration_s: the time that counts.
    """
    kinds: tuple[Kind, ...] = ("video", "segment")
    latency_s: dict[Kind, dict[str, Estimate]] = {}
    for kind in kinds:
        found = [run.latencies_s[kind] for run in runs if run.latencies_s[kind]]
        if found:
            latency_s[kind] = {
                f"p{share:g}": _estimate([percentile(values, share / 100) for values in found])
                for share in (50, 95, 99)
            }
    return Summary(
        runs=len(runs),
        latency_s=latency_s,
        throughput_s=_estimate([run.completed_scored / duration_s for run in runs]),
        shed=_estimate([run.counted_shed / max(1, run.counted) for run in runs], most=1.0),
        utilisation=_estimate([run.utilisation for run in runs]),
        queued=_estimate([float(run.queued) for run in runs]),
        max_lag=_estimate([float(max(point.lag for point in run.curve)) for run in runs]),
        rebalances=_estimate([float(run.rebalances) for run in runs]),
        redelivered=_estimate([float(run.redelivered) for run in runs]),
        worker_s=_estimate([run.worker_s for run in runs]),
    )


def _estimate(values: Sequence[float], most: float = math.inf) -> Estimate:
    """Of a quantity from 0 to `most`: the interval ends there, too."""
    found = Estimate.of(values)
    assert found is not None
    return Estimate(found.mean, max(0.0, found.low), min(most, found.high))
