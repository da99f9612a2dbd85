"""Reads a topic from its beginning, without a group: dead letters, verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from pipeline.contracts import Topic
from pipeline.transport.kafka import TransportError
from pipeline.transport.messages import Message, message_fields
from pipeline.transport.security import client_options

_POLL_MS = 500
_PATIENCE_MS = 30_000


def read_topic(
    bootstrap: str,
    topic: Topic,
    *,
    follow: bool = False,
    beginning: bool = True,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Message]:
    """The messages of a topic, in order within each partition.

    Args:
        bootstrap: servers, `host:port` with commas between.
        topic: the topic.
        follow: continue with new messages, forever; else stop after those present at the start.
        beginning: start at the first message; else only new messages.
        stop: asked twice a second, whether to end.

    Raises:
        TransportError: the broker is unreachable, or has no such topic.
    """
    try:
        consumer = KafkaConsumer(
            **client_options(bootstrap),
            bootstrap_timeout_ms=_PATIENCE_MS,
            enable_auto_commit=False,
            # So that asking for a missing topic does not create it.
            allow_auto_create_topics=False,
        )
        try:
            partitions = [TopicPartition(str(topic), n) for n in consumer.partitions_for_topic(str(topic))]
            if not partitions:
                raise TransportError(f"no topic {topic} at {bootstrap}")
            consumer.assign(partitions)
            (consumer.seek_to_beginning if beginning else consumer.seek_to_end)(*partitions)
            ends = consumer.end_offsets(partitions)
            # Control records and compaction leave gaps: a position beyond the last message shows that all was read.
            while not stop() and (
                follow or any(consumer.position(partition) < ends[partition] for partition in partitions)
            ):
                for partition, records in consumer.poll(_POLL_MS).items():
                    for record in records:
                        if follow or record.offset < ends[partition]:
                            yield Message(**message_fields(record))
        finally:
            consumer.close()
    except KafkaError as error:
        raise TransportError(f"{topic} at {bootstrap}: {type(error).__name__}: {error}") from error
