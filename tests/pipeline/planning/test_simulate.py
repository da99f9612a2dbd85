"""Properties of the simulation: nothing is lost, more workers do not hurt, failures cost time only."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.planning.figures import Batch, Cost
from pipeline.planning.replicate import replicate, summary_of
from pipeline.planning.scenario import Arrival, Burst, Fleet, Keda, Kill, Load, Scenario
from pipeline.planning.simulate import Point, Run, simulate
from tests.pipeline.planning.scenes import figures

loads = st.builds(
    Load,
    streams=st.integers(0, 12),
    jitter_s=st.floats(0, 1),
    videos_s=st.floats(0, 8),
    video_s=st.floats(0.5, 900),
    spread=st.sampled_from(["fixed", "exponential"]),
    burst=st.none() | st.builds(Burst, st.floats(0, 20), st.floats(1, 10), st.floats(1, 4)),
)
fleets = st.builds(
    Fleet,
    workers=st.integers(0, 4),
    partitions=st.integers(1, 6),
    workers_a_machine=st.integers(1, 2),
    max_age_s=st.floats(0.1, 10),
    split_s=st.sampled_from([0.0, 60.0, 600.0]),
    drain_s=st.floats(0, 10),
    start_s=st.floats(0, 10),
)
kills = st.lists(st.builds(Kill, st.floats(0, 30), st.integers(0, 3)), max_size=3).map(tuple)
scalers = st.none() | st.builds(
    Keda, lag=st.floats(1, 20), polling_s=st.floats(1, 10), sync_s=st.floats(1, 10), least=st.integers(0, 1),
    most=st.integers(1, 8), stabilisation_s=st.floats(0, 20), cooldown_s=st.floats(0, 20),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(load=loads, fleet=fleets, kills=kills, keda=scalers, seed=st.integers(0, 1000))
def test_every_arrival_ends_once_or_is_still_queued(
    load: Load, fleet: Fleet, kills: tuple[Kill, ...], keda: Keda | None, seed: int
) -> None:
    scenario = Scenario(figures(), load, fleet, keda=keda, kills=kills, warmup_s=5, duration_s=30)
    run = simulate(scenario, seed)
    assert run.arrived == run.scored + run.shed + run.queued
    assert 0 <= run.utilisation <= 1 + 1e-9 or keda is not None or kills
    assert all(latency_s > 0 for found in run.latencies_s.values() for latency_s in found)


def test_the_same_seed_gives_the_same_run() -> None:
    scenario = Scenario(figures(), Load(streams=6, videos_s=2.0), Fleet(2), kills=(Kill(20.0),), duration_s=40)
    assert simulate(scenario, 3) == simulate(scenario, 3)
    assert simulate(scenario, 3).latencies_s != simulate(scenario, 4).latencies_s


def test_a_killed_worker_loses_nothing() -> None:
    load = Load(streams=4, videos_s=3.0, video_s=20.0)
    scenario = Scenario(figures(), load, Fleet(2, max_age_s=1000), warmup_s=10, duration_s=60, drain_s=300)
    calm = simulate(scenario, 1)
    killed = simulate(replace(scenario, kills=(Kill(30.0, 0), Kill(50.0, 1))), 1)
    assert calm.redelivered == 0
    assert killed.redelivered > 0
    assert calm.arrived == calm.scored == killed.arrived == killed.scored
    # What it had waits for the end of its session.
    assert max(killed.latencies_s["video"]) > 10 > max(calm.latencies_s["segment"])


def test_without_workers_all_waits() -> None:
    run = simulate(Scenario(figures(), Load(videos_s=1.0), Fleet(0), duration_s=30), 1)
    assert run.arrived == run.queued > 0


def test_more_workers_never_shed_more() -> None:
    load = Load(streams=120)
    shed = [
        replicate(Scenario(figures(), load, Fleet(workers, partitions=24), warmup_s=10, duration_s=30), 3)[0].shed.mean
        for workers in (1, 2, 4, 8, 12)
    ]
    assert shed[0] > 0.4
    assert shed[-1] < 0.05
    assert all(more <= fewer + 0.01 for fewer, more in pairwise(shed))


def test_overload_sheds_what_is_over_capacity() -> None:
    found = figures()
    capacity = 2.0 * found.tasks_s("segment", 2.0)
    scenario = Scenario(found, Load(streams=round(3 * capacity)), Fleet(1), warmup_s=20, duration_s=60)
    summary, _ = replicate(scenario, 3)
    assert summary.shed.mean == pytest.approx(2 / 3, abs=0.06)
    assert summary.utilisation.mean > 0.95
    # What is not shed has waited up to the limit of age.
    assert 4 < summary.latency_s["segment"]["p95"].mean < 6.5


def test_long_videos_are_judged_by_several_workers() -> None:
    arrival = Arrival(1.0, "video", 0, 1, 3600.0)
    seconds = []
    for workers, split_s in ((1, 0.0), (1, 600.0), (4, 600.0)):
        fleet = Fleet(workers, partitions=8, split_s=split_s)
        scenario = Scenario(figures(), Load(trace=(arrival,)), fleet, warmup_s=0, duration_s=600)
        run = simulate(scenario, 0)
        assert run.scored == 1
        seconds += run.latencies_s["video"]
    unsplit, alone, four = seconds
    # Unsplit, one video does not keep both cores busy; four workers share six parts.
    assert four < 0.6 * alone < alone < unsplit


def test_segments_of_a_stream_are_in_order_and_streams_are_parallel() -> None:
    slow = figures(segment=Cost(1.0, 0, 0, 1.0), cores=2, clips_at_once=2, efficiency=1.0)
    same = tuple(Arrival(0.1, "segment", 0, 7, 2.0) for _ in range(2))
    other = (same[0], replace(same[1], key=8))
    first, second = (
        sorted(
            simulate(Scenario(slow, Load(trace=trace), Fleet(1), warmup_s=0, duration_s=30), 0).latencies_s["segment"]
        )
        for trace in (same, other)
    )
    assert first[1] > 1.9
    assert second[1] < 1.5


def test_a_device_of_its_own_batches_the_crops_of_all_clips() -> None:
    batches = (Batch(1, 0.010, 0.001), Batch(32, 0.040, 0.001))
    gpu = figures(
        device="cuda",
        cores=16,
        clips_at_once=17,
        batches=batches,
        batches_at_once=1,
        any_batch=True,
        faces_a_frame=50.0,
    )
    few, many = (
        replicate(Scenario(gpu, Load(videos_s=rate, video_s=2.0), Fleet(1), warmup_s=10, duration_s=30), 2)[0]
        for rate in (0.5, 3.5)
    )
    assert few.throughput_s.mean == pytest.approx(0.5, rel=0.5)
    # 200 crops a video: one at a time, the device would score half a video a second.
    assert many.throughput_s.mean > 2.5
    assert few.utilisation.mean < many.utilisation.mean <= 1


def test_segments_come_before_videos() -> None:
    load = Load(streams=14, videos_s=20.0)
    summary, _ = replicate(Scenario(figures(), load, Fleet(1), warmup_s=10, duration_s=60), 2)
    assert summary.latency_s["segment"]["p95"].mean < 3 < summary.latency_s["video"]["p95"].mean


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=6))
def test_intervals_end_where_their_quantities_do(counts: list[tuple[int, int]]) -> None:
    runs = [
        Run(counted=scored + shed, counted_shed=shed, queued=shed, rebalances=scored, curve=[Point(0.0, shed, 1)])
        for scored, shed in counts
    ]
    found = summary_of(runs, 10.0)
    assert 0 <= found.shed.low <= found.shed.mean <= found.shed.high <= 1
    for each in (found.queued, found.max_lag, found.rebalances, found.throughput_s):
        assert 0 <= each.low <= each.mean <= each.high
