"""The simulation against queueing theory: where a formula exists, the mean of the runs is close to it."""

from __future__ import annotations

import math
import statistics

import pytest

from pipeline.planning.simulate import simulate
from tests.pipeline.planning.scenes import queueing

RUNS = 6


def erlang_c(servers: int, load: float) -> float:
    """Probability that an arrival waits in an M/M/c queue; `load` is the busy share of the servers (Erlang 1917)."""
    offered = servers * load
    waiting = offered**servers / math.factorial(servers) / (1 - load)
    return waiting / (sum(offered**k / math.factorial(k) for k in range(servers)) + waiting)


def wait_mmc(servers: int, load: float) -> float:
    """Mean wait in units of the mean service."""
    return erlang_c(servers, load) / (servers * (1 - load))


def wait_mdc(servers: int, load: float) -> float:
    """The same with constant service: exact for one server, else within 2 % (Cosmetatos 1975)."""
    more = (1 - load) * (servers - 1) * (math.sqrt(4 + 5 * servers) - 2) / (16 * load * servers)
    return 0.5 * wait_mmc(servers, load) * (1 + more)


def measured(servers: int, load: float, *, spread: str, clips: int | None = None) -> tuple[float, float]:
    """Mean seconds in the system, and its standard error over the runs."""
    scenario = queueing(servers, load, spread=spread, tasks=4000, clips=clips)
    means = [statistics.fmean(simulate(scenario, seed).latencies_s["video"]) for seed in range(RUNS)]
    return statistics.fmean(means), statistics.stdev(means) / math.sqrt(RUNS)


@pytest.mark.parametrize(
    ("servers", "load", "spread"),
    [(1, 0.5, "exponential"), (3, 0.7, "exponential"), (8, 0.8, "exponential"), (1, 0.7, "fixed"), (6, 0.8, "fixed")],
)
def test_the_mean_time_is_that_of_the_formula(servers: int, load: float, spread: str) -> None:
    mean_s, error_s = measured(servers, load, spread=spread)
    expected_s = 1 + (wait_mmc if spread == "exponential" else wait_mdc)(servers, load)
    assert error_s < 0.06 * expected_s
    # 4.5 standard errors of few runs, and 2 % for the approximation.
    assert abs(mean_s - expected_s) < 4.5 * error_s + 0.02 * expected_s


@pytest.mark.parametrize("spread", ["fixed", "exponential"])
def test_shared_cores_do_not_depend_on_the_lengths(spread: str) -> None:
    # Processor sharing is insensitive: 1 / (1 - load) with any distribution (Kleinrock 1976).
    mean_s, error_s = measured(1, 0.6, spread=spread, clips=500)
    assert error_s < 0.06 * 2.5
    assert abs(mean_s - 2.5) < 4.5 * error_s + 0.02 * 2.5


def test_the_formula_of_one_server_is_the_known_one() -> None:
    assert wait_mmc(1, 0.7) == pytest.approx(0.7 / 0.3)
    assert wait_mdc(1, 0.7) == pytest.approx(0.7 / 0.3 / 2)
