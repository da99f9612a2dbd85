"""How many workers KEDA and the autoscaler want, and a burst with them."""

from __future__ import annotations

from pipeline.planning.keda import Autoscaler
from pipeline.planning.plan import behave
from pipeline.planning.scenario import Fleet, Keda, Load
from tests.pipeline.planning.scenes import figures


def test_it_wants_a_worker_for_each_threshold() -> None:
    scaler = Autoscaler(Keda(lag=10), 64)
    assert scaler.wanted(0, 0, 3) == 1 or scaler.wanted(0, 0, 3) == 3
    assert Autoscaler(Keda(lag=10), 64).wanted(0, 45, 4) == 5
    # Within the tolerance nothing changes.
    assert Autoscaler(Keda(lag=10), 64).wanted(0, 43, 4) == 4


def test_it_grows_by_four_or_doubles_in_each_period() -> None:
    scaler, workers, seen = Autoscaler(Keda(lag=1), 1000), 2, []
    for number in range(5):
        workers = scaler.wanted(15.0 * number, 1000, workers)
        seen.append(workers)
    assert seen == [6, 12, 24, 48, 96]


def test_never_more_workers_than_partitions_or_the_most() -> None:
    assert Autoscaler(Keda(lag=1), 3).wanted(0, 1000, 2) == 3
    assert Autoscaler(Keda(lag=1, most=5), 100).wanted(0, 1000, 4) == 5


def test_it_shrinks_when_the_highest_wish_is_old_enough() -> None:
    scaler = Autoscaler(Keda(lag=10, stabilisation_s=300), 64)
    assert scaler.wanted(0, 80, 8) == 8
    assert scaler.wanted(290, 10, 8) == 8
    assert scaler.wanted(301, 10, 8) == 1


def test_it_goes_to_zero_after_the_cooldown_and_comes_back() -> None:
    scaler = Autoscaler(Keda(lag=10, least=0, cooldown_s=100, stabilisation_s=0), 8)
    assert scaler.wanted(0, 5, 1) == 1
    assert scaler.wanted(90, 0, 1) == 1
    assert scaler.wanted(101, 0, 1) == 0
    assert scaler.wanted(110, 0, 0) == 0
    assert scaler.wanted(120, 1, 0) == 1


def test_a_burst_brings_workers_and_they_leave_after_it() -> None:
    load = Load(videos_s=3.0, video_s=2.0)
    found = behave(
        figures(), load, Fleet(1, partitions=16, start_s=20), keda=Keda(most=16), burst_s=120, times=10, runs=1
    )
    alone = behave(figures(), load, Fleet(1, partitions=16), burst_s=120, times=10, runs=1)
    assert 1 < found.most_workers <= 16
    assert found.curve[-1].workers < found.most_workers
    assert alone.most_workers == 1
    assert found.burst_p95_s is not None
    assert alone.burst_p95_s is not None
    assert found.burst_p95_s < alone.burst_p95_s
    assert found.recovered_s is not None
    assert found.summary.queued.mean <= alone.summary.queued.mean
    assert found.summary.worker_s.mean > alone.summary.worker_s.mean


def test_a_large_fleet_is_watched_in_part() -> None:
    load = Load(videos_s=40.0, video_s=2.0)
    found = behave(
        figures(), load, Fleet(40, partitions=80), keda=Keda(most=100, least=10), burst_s=60, times=2, runs=1
    )
    assert found.share == 0.1
    assert found.scenario.load.videos_s == 4.0
    assert found.scenario.keda == Keda(most=10, least=1)
    assert found.most_workers <= 10
