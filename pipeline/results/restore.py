"""Records as they were published: the topic of verdicts outlives Redis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from pipeline.contracts import Topic, Verdict
from pipeline.results.store import VerdictStore
from pipeline.transport.history import read_topic
from pipeline.transport.messages import Message


@dataclass(frozen=True, slots=True)
class Restored:
    """What bringing back came to.

    Attributes:
        restored: records that Redis did not hold.
        there: records of clips that had their verdict.
        strange: messages that are no records.
    """

    restored: int
    there: int
    strange: int


def told(message: Message) -> str:
    """A record in one line for people."""
    try:
        verdict = Verdict.model_validate_json(message.value or b"")
    except ValidationError:
        return f"{message.place}: no record"
    chance = "" if verdict.probability is None else f" {verdict.probability:.3f}"
    return f"{verdict.id}  {verdict.label or verdict.outcome}{chance}  {verdict.source}"


def latest_records(bootstrap: str) -> Iterator[bytes]:
    """The last record of each clip; the topic is read twice, so that one record at a time is held.

    Raises:
        TransportError: Kafka is away, or has no such topic.
    """
    last = {message.key: message.place for message in read_topic(bootstrap, Topic.VERDICTS)}
    for message in read_topic(bootstrap, Topic.VERDICTS):
        if message.value is not None and last.get(message.key) == message.place:
            yield message.value


def restore(bootstrap: str, store: VerdictStore) -> Restored:
    """Store what was published, unless it is there.

    Raises:
        TransportError: Kafka is away, or has no such topic.
        redis.RedisError: Redis is away.
    """
    restored = there = strange = 0
    for message in read_topic(bootstrap, Topic.VERDICTS):
        try:
            if store.restore(message.value or b""):
                restored += 1
            else:
                there += 1
        except ValidationError:
            strange += 1
    return Restored(restored, there, strange)
