"""Dead letters: messages that could not be processed, in their own topic with the reason, until they are sent again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

import redis

from models.errors import UnmaskError
from pipeline.contracts import REQUEUED_KEY, Topic, parts_key
from pipeline.results.store import VerdictStore
from pipeline.transport.history import read_topic
from pipeline.transport.kafka import Publisher
from pipeline.transport.letters import REASON_HEADERS
from pipeline.transport.messages import ContractError, Message, VideoTask


class RequeueError(UnmaskError):
    """A letter cannot be sent again; the message says why."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter.

    Attributes:
        requeued: it was sent again.
    """

    message: Message
    requeued: bool

    @property
    def place(self) -> str:
        """Its position: partition, colon, offset."""
        return self.message.place

    @property
    def key(self) -> str:
        """Its key, as text."""
        return "-" if self.message.key is None else self.message.key.decode("utf-8", "backslashreplace")

    @property
    def when(self) -> str:
        """When it was dead-lettered, UTC."""
        return datetime.fromtimestamp(self.message.timestamp_s, UTC).strftime("%Y-%m-%d %H:%M:%S")

    @property
    def stage(self) -> str:
        """Where it failed: parse, score or publish."""
        return self.message.header("stage")

    @property
    def error(self) -> str:
        """Why."""
        return self.message.header("error")


def letters(bootstrap: str, client: redis.Redis) -> Iterator[Letter]:
    """All dead letters.

    Raises:
        TransportError: Kafka is unreachable, or has no such topic.
        redis.RedisError: Redis is unreachable.
    """
    requeued = {place.decode() for place in cast("set[bytes]", client.smembers(REQUEUED_KEY))}
    for message in read_topic(bootstrap, Topic.DEAD):
        yield Letter(message, message.place in requeued)


def requeue(letter: Letter, *, publisher: Publisher, store: VerdictStore, client: redis.Redis) -> None:
    """Send a letter to the topic that it came from. A verdict of `model_error` is deleted first, others stay.

    For a part of a long video, the whole is sent: the results of the other parts were deleted with the verdict.

    Raises:
        RequeueError: it violates the contract, so workers would fail again.
        TransportError: Kafka is unreachable.
        redis.RedisError: Redis is unreachable.
    """
    message = letter.message
    topic = message.header("topic")
    if topic not in (Topic.VIDEOS, Topic.ARCHIVE):
        raise RequeueError(f"came from {topic or 'an unknown topic'}; only videos can be sent again")
    if (size := message.header("value_bytes")) and size != str(len(message.value or b"")):
        raise RequeueError(f"was too large for a dead letter: {len(message.value or b'')} of its {size} bytes are left")
    try:
        task = VideoTask.parse(message.value, message.key)
    except ContractError as error:
        raise RequeueError(f"still no task: {error}") from error
    store.forget_error(task.video_id)
    headers = [(name, text) for name, text in message.headers if name not in REASON_HEADERS]
    if task.part is None:
        publisher.again(Topic(topic), message.key, message.value, headers).wait()
    else:
        client.delete(parts_key(task.video_id))
        publisher.submit(task.whole(), headers).wait()
    client.sadd(REQUEUED_KEY, letter.place)
