"""Verdicts by other weights in Redis: those of a run of `unmask rescore`, beside the clips' own (docs/contracts.md).

Each method is safe to repeat; keeping and deleting one clip are atomic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

import redis

from pipeline.contracts import Verdict, rescore_key, rescores_key

# Clips that are deleted at a time.
_BATCH: Final = 1000

_KEEP = """
redis.call('SADD', KEYS[2], ARGV[1])
-- The set stays as long as what it names, also where an earlier call had a longer time.
if redis.call('TTL', KEYS[2]) < tonumber(ARGV[2]) then redis.call('EXPIRE', KEYS[2], ARGV[2]) end
local stored = redis.call('HGET', KEYS[1], 'verdict')
if stored and #stored > 0 then return stored end
redis.call('HSET', KEYS[1], 'outcome', ARGV[3], 'label', ARGV[4], 'probability', ARGV[5], 'verdict', ARGV[6])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return ARGV[6]
"""
# Keys as `rescore_key` makes them.
_DELETE = """
for _, run in ipairs(redis.call('SMEMBERS', KEYS[1])) do
    redis.call('DEL', 'unmask:rescore:' .. run .. ':' .. ARGV[1])
end
return redis.call('DEL', KEYS[1])
"""


class RescoredStore:
    """The hashes of rescored clips.

    Args:
        client: see `pipeline.results.store.connect`.
        ttl_s: how long each is kept, in seconds.

    Raises:
        redis.RedisError: from every method: Redis is unreachable or refuses; repeating the call is safe.
    """

    def __init__(self, client: redis.Redis, *, ttl_s: int) -> None:
        if ttl_s < 1:
            raise ValueError(f"ttl_s must be at least 1, got {ttl_s}")
        self._client, self._ttl_s = client, ttl_s
        self._keep = client.register_script(_KEEP)

    def ping(self) -> None:
        """Return if Redis answers."""
        self._client.ping()

    def keep(self, run: str, verdict: Verdict) -> bytes:
        """Store a verdict of a run, unless the run has one of this clip.

        Returns:
            The stored record, byte for byte: this one, or the one that was stored first.
        """
        stored = self._keep(
            keys=[rescore_key(run, verdict.id), rescores_key(verdict.id)],
            args=[
                run,
                self._ttl_s,
                verdict.outcome,
                verdict.label or "",
                "" if verdict.probability is None else repr(verdict.probability),
                verdict.to_json().encode(),
            ],
        )
        return cast(bytes, stored)

    def record(self, run: str, clip_id: str) -> bytes | None:
        """The stored record, or None."""
        return cast("bytes | None", self._client.hget(rescore_key(run, clip_id), "verdict"))

    def drop(self, run: str, clip_ids: Sequence[str]) -> None:
        """Delete what a run has of these clips; some of it may be deleted when Redis fails."""
        for first in range(0, len(clip_ids), _BATCH):
            with self._client.pipeline() as pipe:
                for id_ in clip_ids[first : first + _BATCH]:
                    pipe.delete(rescore_key(run, id_))
                    pipe.srem(rescores_key(id_), run)
                pipe.execute()

    def delete(self, clip_id: str) -> None:
        """Delete what all runs have of a clip."""
        delete_rescored(self._client, clip_id)


def delete_rescored(client: redis.Redis, clip_id: str) -> None:
    """Delete what all runs have of a clip.

    Raises:
        redis.RedisError: Redis is unreachable or refuses; repeating the call is safe.
    """
    arguments: list[Any] = [rescores_key(clip_id), clip_id]
    client.eval(_DELETE, 1, *arguments)
