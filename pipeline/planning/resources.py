"""Bytes and money: network, storage, Redis, and what a stream-hour or an hour of archive costs at given prices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pipeline.live.store import MAX_FACES
from pipeline.planning.figures import Figures
from pipeline.planning.scenario import Load

DAY_S: Final = 86_400.0
_MONTH_H: Final = 730.0
_GB: Final = 1e9
# Redis: key, hash, expiry and allocator around a value; the fingerprint's key beside each verdict.
_REDIS_OVERHEAD: Final = 400
# Calls of Redis: a video begins, asks for an equal one, finishes and remembers; a segment applies its state.
_CALLS_A_VIDEO, _CALLS_A_SEGMENT = 5, 1
# A task's own message, without the video.
_TASK_BYTES: Final = 500


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long things are kept.

    Attributes:
        retention_h: of Kafka's topics of tasks and segments; a week is its default.
        replicas: of each partition.
        ttl_days: UNMASK_TTL_S.
        stream_h: how long a stream goes on; Redis keeps the faces of its whole time.
    """

    retention_h: float = 168.0
    replicas: int = 3
    ttl_days: float = 30.0
    stream_h: float = 24.0

    def __post_init__(self) -> None:
        if min(self.retention_h, self.ttl_days, self.stream_h) < 0 or self.replicas < 1:
            raise ValueError("times must not be negative, and replicas must be at least 1")


@dataclass(frozen=True, slots=True)
class Resources:
    """What the load needs beside workers.

    Attributes:
        to_kafka_bytes_s: from senders to brokers.
        between_brokers_bytes_s: to further replicas.
        to_workers_bytes_s: messages, and the videos that they name.
        kafka_bytes: messages that are kept, all replicas.
        redis_bytes: verdicts and streams that are kept.
        redis_calls_s: a second.
        redis_bytes_s: that are written to it; each segment replaces its stream's state and running verdict.
        memory_bytes: of all workers.
    """

    to_kafka_bytes_s: float
    between_brokers_bytes_s: float
    to_workers_bytes_s: float
    kafka_bytes: float
    redis_bytes: float
    redis_calls_s: float
    redis_bytes_s: float
    memory_bytes: float

    @property
    def network_bytes_s(self) -> float:
        """All of it."""
        return self.to_kafka_bytes_s + self.between_brokers_bytes_s + self.to_workers_bytes_s


def resources_of(figures: Figures, load: Load, workers: int, keeping: Keeping) -> Resources:
    """What a load needs beside workers."""
    sizes = figures.sizes
    segments_s = load.streams / load.segment_s
    segment = sizes.segment * load.segment_s / sizes.segment_s
    record = sizes.record(load.video_s * figures.fps)
    # Redis keeps the last faces of a stream only.
    most_frames = MAX_FACES / figures.faces_a_frame if figures.faces_a_frame else 0.0
    stream_frames = min(3600 * figures.fps * keeping.stream_h, most_frames)
    ended_s = load.streams / (keeping.stream_h * 3600) if keeping.stream_h else 0.0
    stream_record = sizes.record(stream_frames)
    to_kafka = segments_s * segment + load.videos_s * (_TASK_BYTES + record) + ended_s * stream_record
    videos = load.videos_s * sizes.clip * load.video_s / figures.clip_s
    kept_s = keeping.ttl_days * DAY_S
    return Resources(
        to_kafka_bytes_s=to_kafka,
        between_brokers_bytes_s=to_kafka * (keeping.replicas - 1),
        to_workers_bytes_s=segments_s * segment + load.videos_s * _TASK_BYTES + videos,
        kafka_bytes=to_kafka * keeping.retention_h * 3600 * keeping.replicas,
        redis_bytes=load.videos_s * kept_s * (record + _REDIS_OVERHEAD)
        + load.streams * (sizes.stream_state + stream_record + _REDIS_OVERHEAD)
        + ended_s * kept_s * (stream_record + _REDIS_OVERHEAD),
        redis_calls_s=load.videos_s * _CALLS_A_VIDEO + segments_s * _CALLS_A_SEGMENT,
        redis_bytes_s=load.videos_s * record
        + segments_s * (sizes.stream_state + sizes.record_frame * load.segment_s * figures.fps),
        memory_bytes=workers * sizes.resident,
    )


@dataclass(frozen=True, slots=True)
class Prices:
    """As the user gives them, in one currency; None: not known, and left out of costs.

    Attributes:
        worker_hour: of one worker as it was measured, with its cores and device.
        gb: of network, per 10^9 bytes.
        storage_gb_month: of Kafka's disks.
        redis_gb_month: of Redis' memory.
    """

    worker_hour: float | None = None
    gb: float | None = None
    storage_gb_month: float | None = None
    redis_gb_month: float | None = None

    def __post_init__(self) -> None:
        if any(price is not None and price < 0 for price in self._all()):
            raise ValueError("prices must not be negative")

    def _all(self) -> tuple[float | None, ...]:
        return self.worker_hour, self.gb, self.storage_gb_month, self.redis_gb_month

    @property
    def given(self) -> bool:
        """Whether there is any."""
        return any(price is not None for price in self._all())

    @property
    def missing(self) -> list[str]:
        """Names of those that are not given."""
        names = ("worker_hour", "gb", "storage_gb_month", "redis_gb_month")
        return [name for name, price in zip(names, self._all(), strict=True) if price is None]

    def hour(self, workers: float, found: Resources) -> float:
        """Of one hour of serving."""
        return (
            workers * (self.worker_hour or 0.0)
            + found.network_bytes_s * 3600 / _GB * (self.gb or 0.0)
            + found.kafka_bytes / _GB * (self.storage_gb_month or 0.0) / _MONTH_H
            + found.redis_bytes / _GB * (self.redis_gb_month or 0.0) / _MONTH_H
        )
