"""Loads for `benchmarks.plan_check`: schedules that are known before, how they are sent, and what became of them."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from kafka.partitioner.default import murmur2

from pipeline.contracts import SourceClass, Topic
from pipeline.live.cutter import Cut
from pipeline.planning.replicate import percentile
from pipeline.planning.scenario import Arrival
from pipeline.transport.history import read_topic
from pipeline.transport.kafka import Publisher
from pipeline.transport.messages import ContentType, Message, Segment, VideoTask
from tests.e2e.service import Platform, done_count, until
from tests.e2e.streams import states

PARTITIONS = 8
SEGMENT_S = 2.0
_PATIENCE_S = 180.0


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a load, predicted or measured.

    Attributes:
        p50_s: from arrival to verdict.
        throughput_s: verdicts a second, from the first arrival to the end of the schedule.
        shed: share of the arrivals.
    """

    p50_s: float
    p95_s: float
    throughput_s: float
    shed: float
    count: int

    @classmethod
    def of(cls, latencies_s: Sequence[float], *, within: int, duration_s: float, shed: float) -> Result:
        """From latencies; `within`: how many verdicts came before the schedule's end."""
        if not latencies_s:
            return cls(float("nan"), float("nan"), 0.0, shed, 0)
        return cls(
            percentile(latencies_s, 0.5),
            percentile(latencies_s, 0.95),
            within / duration_s,
            shed,
            len(latencies_s),
        )


@dataclass(frozen=True, slots=True)
class Schedule:
    """Ids and times; videos at random, or streams at a fixed cadence.

    Attributes:
        ids: of videos, one for each arrival; of streams.
        arrivals: in order, with Kafka's partitions of these ids.
    """

    name: str
    ids: tuple[str, ...]
    arrivals: tuple[Arrival, ...]
    duration_s: float

    @property
    def is_live(self) -> bool:
        """Whether it has streams."""
        return self.arrivals[0].kind == "segment"


def partition_of(key: str) -> int:
    """Kafka's partition of a key."""
    return int((murmur2(key.encode()) & 0x7FFFFFFF) % PARTITIONS)


def videos(name: str, rate_s: float, duration_s: float, clip_s: float, *, seed: int) -> Schedule:
    """Poisson arrivals."""
    draw, at_s = random.Random(seed), 0.0
    arrivals: list[Arrival] = []
    ids: list[str] = []
    while (at_s := at_s + draw.expovariate(rate_s)) < duration_s or not arrivals:
        key = f"{name}-{len(ids)}"
        ids.append(key)
        arrivals.append(Arrival(min(at_s, duration_s), "video", partition_of(key), -len(ids), clip_s))
    return Schedule(name, tuple(ids), tuple(arrivals), duration_s)


def streams(name: str, count: int, segments: int) -> Schedule:
    """Streams that start evenly within a segment's time, with a segment every two seconds."""
    ids = tuple(f"{name}-{number}" for number in range(count))
    arrivals = [
        Arrival(SEGMENT_S * (sequence + number / count), "segment", partition_of(key), number, SEGMENT_S)
        for number, key in enumerate(ids)
        for sequence in range(segments)
    ]
    arrivals.sort(key=lambda arrival: arrival.at_s)
    return Schedule(name, ids, tuple(arrivals), SEGMENT_S * segments)


def copies(clips: Sequence[Path], schedule: Schedule, folder: Path) -> list[Path]:
    """A file for each id, all of different bytes: a `free` box of MP4, which readers ignore, has the id."""
    folder.mkdir(parents=True)
    made = []
    for number, key in enumerate(schedule.ids):
        box = b"free" + key.encode()
        path = folder / f"{key}.mp4"
        path.write_bytes(clips[number % len(clips)].read_bytes() + (4 + len(box)).to_bytes(4, "big") + box)
        made.append(path)
    return made


def send_videos(platform: Platform, schedule: Schedule, clips: Sequence[Path]) -> Result:
    """Send them at their times, wait for all verdicts, and say how long they took.

    Args:
        clips: as many as arrivals, all of different bytes.
    """
    publisher, sent_s = Publisher(platform.kafka.bootstrap), dict[str, float]()
    begin_s = time.time() + 0.5
    try:
        for key, arrival, clip in zip(schedule.ids, schedule.arrivals, clips, strict=False):
            time.sleep(max(0.0, begin_s + arrival.at_s - time.time()))
            sent_s[key] = time.time()
            publisher.submit(
                VideoTask(video_id=key, uri=str(clip), source_class=SourceClass.UPLOAD, submitted_at=sent_s[key])
            )
        until(lambda: done_count(platform, schedule.ids) == len(schedule.ids), _PATIENCE_S)
    finally:
        publisher.close()
    found = {(message.key or b"").decode(): message.timestamp_s for message in _verdicts(platform, schedule)}
    latencies_s = [found[key] - sent_s[key] for key in schedule.ids]
    within = sum(ended_s <= begin_s + schedule.duration_s for ended_s in found.values())
    return Result.of(latencies_s, within=within, duration_s=schedule.duration_s, shed=0.0)


def _verdicts(platform: Platform, schedule: Schedule) -> list[Message]:
    ids = set(schedule.ids)

    def complete() -> list[Message] | None:
        found = [m for m in read_topic(platform.kafka.bootstrap, Topic.VERDICTS) if (m.key or b"").decode() in ids]
        return found if len(found) >= len(ids) else None

    messages: list[Message] = until(complete, _PATIENCE_S)
    return messages


def send_streams(platform: Platform, schedule: Schedule, pieces: Sequence[Cut]) -> Result:
    """Send the segments at their times from a thread for each stream, and read the workers' logs."""
    publisher = Publisher(platform.kafka.bootstrap)
    begin_s = time.time() + 1.0
    logs = {worker.log: len(worker.log.read_bytes()) for worker in platform.workers}

    def send(number: int, key: str) -> None:
        own = [arrival for arrival in schedule.arrivals if arrival.key == number]
        for sequence, arrival in enumerate(own):
            time.sleep(max(0.0, begin_s + arrival.at_s - time.time()))
            segment = Segment(
                stream_id=key,
                sequence=sequence,
                start_s=sequence * SEGMENT_S,
                final=sequence == len(own) - 1,
                content_type=ContentType.MPEG_TS,
            )
            publisher.segment(segment, pieces[sequence % len(pieces)].media).wait()

    threads = [threading.Thread(target=send, args=pair, daemon=True) for pair in enumerate(schedule.ids)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = states(platform, list(schedule.ids))
    publisher.close()
    shed = sum(state.shed for state in found.values()) / len(schedule.arrivals)
    ages_s: list[float] = []
    within = 0
    for log, skipped in logs.items():
        for line in log.read_bytes()[skipped:].splitlines():
            if line.startswith(b"{") and (event := json.loads(line))["event"] == "running verdict":
                ages_s.append(event["age_s"])
                within += _unix_s(event["timestamp"]) <= begin_s + schedule.duration_s
    return Result.of(ages_s, within=within, duration_s=schedule.duration_s, shed=shed)


def _unix_s(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
