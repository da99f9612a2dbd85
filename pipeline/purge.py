"""Erases what workers keep of a clip: its hash in Redis, what other clips find by its content, its published record."""

from __future__ import annotations

from typing import Final

from pipeline.results.store import VerdictStore
from pipeline.transport.kafka import Publisher

# For the acknowledgement; it can be repeated.
_PATIENCE_S: Final = 10.0


def purge(clip_id: str, store: VerdictStore, publisher: Publisher) -> bool:
    """Erase a clip. It may be repeated; what a worker that is at it now stores later stays.

    Kafka has the record until it compacts the topic, and the task as long as its topic keeps messages.

    Args:
        clip_id: of the clip.
        store: of its verdict.
        publisher: sends the tombstone.

    Returns:
        Whether Redis knew it.

    Raises:
        TransportError: Kafka does not answer; Redis is unchanged then.
        redis.RedisError: Redis does not answer.
    """
    was_known = store.state(clip_id) is not None
    publisher.forget(clip_id).wait(_PATIENCE_S)
    store.delete(clip_id)
    return was_known
