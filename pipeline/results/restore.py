"""Restores verdicts from their topic, which outlives Redis."""

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
    """Counts of a restore.

    Attributes:
        restored: records that Redis did not hold.
        existing: records of clips that have their verdict.
        invalid: messages that are not records.
        purged: verdicts that were deleted, because their clips were purged after these records.
    """

    restored: int
    existing: int
    invalid: int
    purged: int = 0


def record_line(message: Message) -> str:
    """A record in one line for people."""
    if message.value is None and message.key is not None:
        return f"{message.key.decode('utf-8', 'replace')}  purged"
    try:
        verdict = Verdict.model_validate_json(message.value or b"")
    except ValidationError:
        return f"{message.place}: not a record"
    chance = "" if verdict.probability is None else f" {verdict.probability:.3f}"
    return f"{verdict.id}  {verdict.label or verdict.outcome}{chance}  {verdict.source}"


def latest_records(bootstrap: str) -> Iterator[bytes]:
    """The last record of each clip; the topic is read twice, so that one record at a time is held.

    Raises:
        TransportError: Kafka is unreachable, or has no such topic.
    """
    last = {message.key: message.place for message in read_topic(bootstrap, Topic.VERDICTS)}
    for message in read_topic(bootstrap, Topic.VERDICTS):
        if message.value is not None and last.get(message.key) == message.place:
            yield message.value


def restore(bootstrap: str, store: VerdictStore) -> Restored:
    """Store the published records, except those that exist and those of purged clips.

    Raises:
        TransportError: Kafka is unreachable, or has no such topic.
        redis.RedisError: Redis is unreachable.
    """
    restored = existing = invalid = purged = 0
    for message in read_topic(bootstrap, Topic.VERDICTS):
        if message.value is None and message.key is not None:
            clip_id = message.key.decode("utf-8", "replace")
            if store.record(clip_id) is not None:
                store.delete(clip_id)
                purged += 1
            continue
        try:
            if store.restore(message.value or b""):
                restored += 1
            else:
                existing += 1
        except ValidationError:
            invalid += 1
    return Restored(restored, existing, invalid, purged)
