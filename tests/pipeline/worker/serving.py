"""A worker on a thread, and helpers that query its results."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from pipeline.contracts import VIDEO_TOPICS, SourceClass, Topic, Verdict
from pipeline.results.store import VerdictStore
from pipeline.transport.consumer import GROUP, TaskConsumer
from pipeline.transport.history import read_topic
from pipeline.transport.kafka import Publisher
from pipeline.transport.messages import Message, VideoTask
from pipeline.worker.loop import Worker
from pipeline.worker.message import Service
from pipeline.worker.streams import Live

TIMEOUT_S = 120


@contextmanager
def serving(
    bootstrap: str, service: Callable[[TaskConsumer], Service], drain_s: float = 60.0, live: Live | None = None
) -> Iterator[Worker]:
    """A worker on a thread, drained at the end."""
    capacities = {(Topic.SEGMENTS,): 8, VIDEO_TOPICS: 3} if live else {VIDEO_TOPICS: 3}
    consumer = TaskConsumer(bootstrap, capacities=capacities)
    worker = Worker(service(consumer), clips=2, drain_s=drain_s, live=live)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield worker
    finally:
        worker.drain()
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()


def task(uri: Path | str, **changes: Any) -> VideoTask:
    fields: dict[str, Any] = {
        "video_id": f"test-{uuid.uuid4()}",
        "uri": str(uri),
        "source_class": SourceClass.UPLOAD,
        "submitted_at": time.time(),
    }
    return VideoTask(**(fields | changes))


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + TIMEOUT_S
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def judged(task: VideoTask, publisher: Publisher, store: VerdictStore) -> Verdict:
    publisher.submit(task).wait()
    return Verdict.model_validate_json(until(lambda: store.record(task.video_id)))


def published(bootstrap: str, topic: Topic, key: str) -> list[Message]:
    return [message for message in read_topic(bootstrap, topic) if message.key == key.encode()]


def committed_to_the_end(bootstrap: str, topics: Sequence[Topic] = VIDEO_TOPICS) -> bool:
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=GROUP)
    try:
        partitions = [TopicPartition(str(topic), n) for topic in topics for n in (0, 1)]
        ends = consumer.end_offsets(partitions)
        return all((consumer.committed(partition) or 0) == ends[partition] for partition in partitions)
    finally:
        consumer.close()
