"""What is simulated: the load, the workers, and what happens to them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from pipeline.planning.figures import Figures, Kind
from pipeline.transport.consumer import FETCH_WAIT_S, FULL_POLL_S, SESSION_S

# A worker without room sees that there is some within a short poll; its request waits for the one before it.
POLL_S: Final = FULL_POLL_S + FETCH_WAIT_S
# kafka-python's heartbeat interval: members notice a rebalance at their next heartbeat, and all wait for the last one.
REBALANCE_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """A video or segment that arrives at a known time.

    Attributes:
        partition: of the kind's topic, from 0 on.
        key: of the stream; segments of one stream are served in order.
    """

    at_s: float
    kind: Kind
    partition: int
    key: int
    video_s: float


@dataclass(frozen=True, slots=True)
class Burst:
    """For a while, videos arrive `times` as often."""

    at_s: float
    seconds: float
    times: float


@dataclass(frozen=True, slots=True)
class Load:
    """What arrives.

    Attributes:
        streams: live streams, each with a segment every `segment_s`, from a random moment on.
        segment_s: seconds of video in a segment.
        jitter_s: standard deviation of a segment's delay on its way.
        videos_s: videos a second, by a Poisson process.
        video_s: seconds of each video, on average.
        spread: all videos are that long, or their lengths are exponential.
        trace: instead of all these: exactly these arrivals.
    """

    streams: int = 0
    segment_s: float = 2.0
    jitter_s: float = 0.05
    videos_s: float = 0.0
    video_s: float = 10.0
    spread: Literal["fixed", "exponential"] = "fixed"
    burst: Burst | None = None
    trace: tuple[Arrival, ...] | None = None

    def __post_init__(self) -> None:
        if self.streams < 0 or self.videos_s < 0 or self.jitter_s < 0:
            raise ValueError("streams, videos_s and jitter_s must not be negative")
        if self.segment_s <= 0 or self.video_s <= 0:
            raise ValueError("segment_s and video_s must be above 0")


@dataclass(frozen=True, slots=True)
class Fleet:
    """The workers.

    Attributes:
        workers: at the start.
        partitions: of each topic.
        workers_a_machine: that share the cores of one machine.
        colocated: Kafka and Redis take the cores of the workers' machine.
        max_age_s: UNMASK_LIVE_MAX_AGE_S.
        split_s: UNMASK_SPLIT_S; 0: never.
        drain_s: UNMASK_DRAIN_S.
        start_s: from a worker's start until it joins the group.
        poll_s: how long a poll without room takes; 0: the poller looks whenever a task ends.
        session_s: how long a dead worker goes unnoticed.
    """

    workers: int
    partitions: int = 8
    workers_a_machine: int = 1
    colocated: bool = False
    max_age_s: float = 5.0
    split_s: float = 600.0
    drain_s: float = 30.0
    start_s: float = 30.0
    poll_s: float = POLL_S
    session_s: float = SESSION_S

    def __post_init__(self) -> None:
        if self.workers < 0 or self.partitions < 1 or self.workers_a_machine < 1:
            raise ValueError("workers must not be negative; partitions and workers_a_machine must be at least 1")
        if self.max_age_s <= 0 or min(self.split_s, self.drain_s, self.start_s, self.poll_s, self.session_s) < 0:
            raise ValueError("max_age_s must be above 0, and no other time may be negative")


@dataclass(frozen=True, slots=True)
class Keda:
    """KEDA's Kafka scaler and the autoscaler behind it (HorizontalPodAutoscaler), with their defaults.

    Attributes:
        lag: `lagThreshold`: wanted messages per worker.
        polling_s: `pollingInterval`: how old the lag may be that is seen.
        sync_s: how often the autoscaler decides (--horizontal-pod-autoscaler-sync-period).
        least: `minReplicaCount`.
        most: `maxReplicaCount`; never more than partitions, as KEDA does without `allowIdleConsumers`.
        stabilisation_s: of scaling down: the highest wish of this long counts.
        cooldown_s: `cooldownPeriod`: without lag for so long, workers go to 0 where `least` is 0.
        tolerance: no change while the lag is within this share of the threshold.
    """

    lag: float = 10.0
    polling_s: float = 30.0
    sync_s: float = 15.0
    least: int = 1
    most: int = 100
    stabilisation_s: float = 300.0
    cooldown_s: float = 300.0
    tolerance: float = 0.1

    def __post_init__(self) -> None:
        if self.lag <= 0 or self.polling_s <= 0 or self.sync_s <= 0:
            raise ValueError("lag, polling_s and sync_s must be above 0")
        if not 0 <= self.least <= self.most or self.most < 1:
            raise ValueError(f"expected 0 <= least <= most and most >= 1, got {self.least} and {self.most}")


@dataclass(frozen=True, slots=True)
class Kill:
    """A worker dies; another one takes its place after `Fleet.start_s`.

    Attributes:
        worker: which of those that are alive, by age.
        is_planned: it gets SIGTERM, as in a rollout, and ends what it has begun.
    """

    at_s: float
    worker: int = 0
    is_planned: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """A simulation.

    Attributes:
        warmup_s: what arrives before is served and not counted.
        duration_s: during which arrivals count.
        drain_s: afterwards nothing arrives, so that what is queued may end.
    """

    figures: Figures
    load: Load
    fleet: Fleet
    keda: Keda | None = None
    kills: tuple[Kill, ...] = field(default=())
    warmup_s: float = 30.0
    duration_s: float = 120.0
    drain_s: float = 0.0

    @property
    def end_s(self) -> float:
        """Of the simulation."""
        return self.warmup_s + self.duration_s + self.drain_s
