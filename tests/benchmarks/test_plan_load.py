"""Schedules of `benchmarks.plan_check`: known before they are sent, with Kafka's own partitions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner.default import DefaultPartitioner

from benchmarks.plan_load import PARTITIONS, Result, partition_of, streams, videos


class _Cluster:
    """What the partitioner asks of a cluster."""

    def topics(self) -> set[str]:
        return {"t"}

    def partitions_for_topic(self, topic: str) -> set[int]:
        return set(range(PARTITIONS))

    def available_partitions_for_topic(self, topic: str) -> set[int]:
        return set(range(PARTITIONS))


@given(key=st.text(min_size=1, max_size=40))
def test_partitions_are_those_of_the_producer(key: str) -> None:
    raw = key.encode()
    assert partition_of(key) == DefaultPartitioner().partition("t", raw, raw, None, None, _Cluster())


@given(rate_s=st.floats(0.1, 20), duration_s=st.floats(1, 60), seed=st.integers(0, 99))
def test_videos_come_in_order_within_their_time(rate_s: float, duration_s: float, seed: int) -> None:
    schedule = videos("a", rate_s, duration_s, 2.0, seed=seed)
    times = [arrival.at_s for arrival in schedule.arrivals]
    assert times == sorted(times)
    assert 0 < times[-1] <= duration_s
    assert len(set(schedule.ids)) == len(times)
    assert schedule == videos("a", rate_s, duration_s, 2.0, seed=seed)


def test_streams_are_spread_over_a_segment() -> None:
    schedule = streams("s", 4, 3)
    assert [arrival.at_s for arrival in schedule.arrivals] == [0.5 * number for number in range(12)]
    assert schedule.is_live
    assert {arrival.key for arrival in schedule.arrivals} == {0, 1, 2, 3}


def test_a_result_counts_what_ended_in_time() -> None:
    found = Result.of([1.0, 2.0, 3.0, 4.0], within=3, duration_s=2.0, shed=0.1)
    assert (found.p50_s, found.p95_s, found.count) == (2.0, 4.0, 4)
    assert found.throughput_s == pytest.approx(1.5)
