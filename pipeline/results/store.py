"""Verdicts in Redis; the first one that ends a clip is kept (docs/contracts.md).

Each method is one atomic step, safe to repeat: after a lost answer the caller asks again and gets the stored result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import redis

from pipeline.contracts import Outcome, State, Verdict, clip_key, content_key, frame_field, frames_key, parts_key
from pipeline.results.rescored import delete_rescored

# Redis answers within milliseconds; a connection that is silent for this long counts as dead.
_TIMEOUT_S = 5.0

# Numbers in Lua: unpack() holds some 8,000 values, so hashes are filled in pieces.
_QUEUE = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], 'state', ARGV[1], 'updated_at', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
"""
_BEGIN = """
local stored = redis.call('HGET', KEYS[1], 'verdict')
if stored and #stored > 0 then return {0, stored} end
local attempt = redis.call('HINCRBY', KEYS[1], 'attempt', 1)
if attempt < 1 then
    attempt = 1
    redis.call('HSET', KEYS[1], 'attempt', 1)
end
redis.call('HSET', KEYS[1], 'state', ARGV[1], 'updated_at', ARGV[2])
redis.call('HDEL', KEYS[1], 'share')
redis.call('EXPIRE', KEYS[1], ARGV[3])
return {attempt, ''}
"""
# Other content may have taken the place meanwhile.
_FORGET_CONTENT = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""
# Only while the clip has its verdict: a late note must not make a hash of a clip that was deleted.
_REMEMBER = """
if redis.call('HEXISTS', KEYS[2], 'verdict') == 0 then return 0 end
if not redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2], 'NX') then return 0 end
redis.call('HSET', KEYS[2], 'content', ARGV[3])
return 1
"""
# A late note must not make a hash of a clip that was deleted.
_SHARE = """
if redis.call('HGET', KEYS[1], 'state') ~= ARGV[1] then return 0 end
return redis.call('HSET', KEYS[1], 'share', ARGV[2])
"""
_RELEASE = """
if redis.call('HEXISTS', KEYS[1], 'verdict') == 1 or redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
if tonumber(redis.call('HGET', KEYS[1], 'attempt') or 0) > 0 then redis.call('HINCRBY', KEYS[1], 'attempt', -1) end
redis.call('HSET', KEYS[1], 'state', ARGV[1], 'updated_at', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
"""
# A model_error was the worker's fault, not the clip's: a later verdict may replace it.
_FORGET = """
if redis.call('HGET', KEYS[1], 'outcome') ~= 'model_error' then return 0 end
return redis.call('DEL', KEYS[1], KEYS[2])
"""
_FINISH = """
local stored = redis.call('HGET', KEYS[1], 'verdict')
if stored and #stored > 0 then return stored end
redis.call('HSET', KEYS[1], 'state', ARGV[1], 'updated_at', ARGV[2],
    'outcome', ARGV[4], 'label', ARGV[5], 'probability', ARGV[6], 'verdict', ARGV[7])
redis.call('HDEL', KEYS[1], 'share')
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('DEL', KEYS[2])
for first = 8, #ARGV, 1000 do
    redis.call('HSET', KEYS[2], unpack(ARGV, first, math.min(first + 999, #ARGV)))
end
if #ARGV > 7 then redis.call('EXPIRE', KEYS[2], ARGV[3]) end
return ARGV[7]
"""


@dataclass(frozen=True, slots=True)
class Begun:
    """What `begin` found.

    Attributes:
        attempt: number of this try, from 1; 0 if there is already a verdict.
        record: the stored record, or None.
    """

    attempt: int
    record: bytes | None


class VerdictStore:
    """The clips' hashes.

    Raises:
        redis.RedisError: from every method: Redis is unreachable or refuses; repeating the call is safe.
    """

    def __init__(self, client: redis.Redis, *, ttl_s: int, clock: Callable[[], float] = time.time) -> None:
        """See `connect` for the client; every key expires `ttl_s` seconds after its last change."""
        if ttl_s < 1:
            raise ValueError(f"ttl_s must be at least 1, got {ttl_s}")
        self._client, self._ttl_s, self._clock = client, ttl_s, clock
        self._queue = client.register_script(_QUEUE)
        self._begin = client.register_script(_BEGIN)
        self._release = client.register_script(_RELEASE)
        self._forget = client.register_script(_FORGET)
        self._finish = client.register_script(_FINISH)
        self._share = client.register_script(_SHARE)
        self._remember = client.register_script(_REMEMBER)
        self._forget_content = client.register_script(_FORGET_CONTENT)

    def queue(self, clip_id: str) -> bool:
        """Note that a clip was submitted; False if it is already known, in any state."""
        return bool(self._queue(keys=[clip_key(clip_id)], args=[State.QUEUED, *self._now()]))

    def begin(self, clip_id: str) -> Begun:
        """Count one more try, unless the clip has its verdict.

        It is counted before the try, so that a clip which kills its workers runs out of tries too. If the answer was
        lost, the repeated call counts again.
        """
        attempt, record = cast(
            "tuple[int, bytes]", self._begin(keys=[clip_key(clip_id)], args=[State.RUNNING, *self._now()])
        )
        return Begun(int(attempt), record or None)

    def release(self, clip_id: str) -> None:
        """Take back a try that ended through no fault of the clip: its partition moved, or the worker stops."""
        self._release(keys=[clip_key(clip_id)], args=[State.QUEUED, *self._now()])

    def finish(self, verdict: Verdict, record: bytes | None = None) -> bytes:
        """Store a verdict with its frames, unless the clip has one.

        Args:
            verdict: of the clip.
            record: its JSON, where the caller has it already.

        Returns:
            The stored record, byte for byte: this one, or the one that was stored first.
        """
        return self._store(verdict, verdict.to_json().encode() if record is None else record)

    def restore(self, record: bytes) -> bool:
        """Store a published record, unless there is a verdict; returns whether it was stored.

        One that ended as `model_error` is replaced: a later record was published after it was sent again.

        Raises:
            pydantic.ValidationError: these bytes are not a record.
        """
        verdict = Verdict.model_validate_json(record)
        if self.record(verdict.id) == record:
            return False
        self.forget_error(verdict.id)
        return self._store(verdict, record) == record

    def forget_error(self, clip_id: str) -> bool:
        """Delete a verdict of `model_error`, with its tries, so that the clip can be judged again; any other stays."""
        return bool(self._forget(keys=[clip_key(clip_id), frames_key(clip_id)]))

    def delete(self, clip_id: str) -> None:
        """Delete all that is stored of a clip, with its tries, what is found by its content, and rescored verdicts."""
        fingerprint = cast("bytes | None", self._client.hget(clip_key(clip_id), "content"))
        if fingerprint is not None:
            self._forget_content(keys=[content_key(fingerprint.decode("utf-8", "replace"))], args=[clip_id])
        delete_rescored(self._client, clip_id)
        self._client.delete(clip_key(clip_id), frames_key(clip_id), parts_key(clip_id))

    def record(self, clip_id: str) -> bytes | None:
        """The stored record, or None."""
        return cast("bytes | None", self._client.hget(clip_key(clip_id), "verdict"))

    def state(self, clip_id: str) -> State | None:
        """The state of a clip; None if it is unknown."""
        found = cast("bytes | None", self._client.hget(clip_key(clip_id), "state"))
        return None if found is None else State(found.decode())

    def states(self, clip_ids: Sequence[str]) -> list[tuple[State, Outcome | None] | None]:
        """The states of clips, with the outcome of those that are done; None for an unknown one."""
        with self._client.pipeline(transaction=False) as pipe:
            for clip_id in clip_ids:
                pipe.hmget(clip_key(clip_id), "state", "outcome")
            answers = pipe.execute()
        return [
            None if state is None else (State(state.decode()), Outcome(outcome.decode()) if outcome else None)
            for state, outcome in answers
        ]

    def note_shares(self, shares: Mapping[str, float]) -> None:
        """Note which part of running clips is scored, 0 to 1; of others nothing is noted."""
        with self._client.pipeline(transaction=False) as pipe:
            for clip_id, share in shares.items():
                self._share(keys=[clip_key(clip_id)], args=[State.RUNNING, f"{share:.3f}"], client=pipe)
            pipe.execute()

    def shares(self, clip_ids: Sequence[str]) -> list[float | None]:
        """Which part of clips is scored, 0 to 1; None where that is not noted."""
        with self._client.pipeline(transaction=False) as pipe:
            for clip_id in clip_ids:
                pipe.hget(clip_key(clip_id), "share")
            found = pipe.execute(raise_on_error=False)
        return [float(share) if isinstance(share, bytes) else None for share in found]

    def remember(self, fingerprint: str, clip_id: str) -> None:
        """Note under which id a content was judged, unless one is noted, or the clip has no verdict any more."""
        self._remember(keys=[content_key(fingerprint), clip_key(clip_id)], args=[clip_id, self._ttl_s, fingerprint])

    def duplicate(self, fingerprint: str) -> bytes | None:
        """The record of a clip of the same content, or None."""
        clip_id = cast("bytes | None", self._client.get(content_key(fingerprint)))
        return None if clip_id is None else self.record(clip_id.decode("utf-8", "replace"))

    def _store(self, verdict: Verdict, record: bytes) -> bytes:
        fields: list[Any] = []
        for face in verdict.frames:
            fields += (frame_field(face), face.model_dump_json(by_alias=True))
        stored = self._finish(
            keys=[clip_key(verdict.id), frames_key(verdict.id)],
            args=[
                State.DONE,
                *self._now(),
                verdict.outcome,
                verdict.label or "",
                "" if verdict.probability is None else repr(verdict.probability),
                record,
                *fields,
            ],
        )
        return cast(bytes, stored)

    def _now(self) -> tuple[str, int]:
        return repr(self._clock()), self._ttl_s


def connect(url: str) -> redis.Redis:
    """A client for `UNMASK_REDIS`; it connects at its first command.

    Raises:
        ValueError: not a URL of Redis.
    """
    # The caller repeats commands: it knows how long a clip may wait.
    return redis.Redis.from_url(
        url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S, health_check_interval=30
    )
