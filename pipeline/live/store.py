"""Streams in Redis: state, running verdict and scored faces move on together, from one Kafka offset to the next."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import redis
from pydantic import ValidationError

from models.errors import UnmaskError
from pipeline.contracts import LIVE_KEY, STREAMS_KEY, ScoredFace, stream_faces_key, stream_key
from pipeline.live.state import STATE_VERSION, Position, StreamState

# Scored faces of a stream that its record lists in the end, the last ones: some hours of one person.
MAX_FACES: Final = 20_000
# Of all streams together, for viewers.
MAX_LIVE: Final = 10_000

# Returns 1 where it was applied, 0 where the hash has changed: another worker owns the stream.
_APPLY = """
local partition = redis.call('HGET', KEYS[1], 'partition') or ''
local offset = redis.call('HGET', KEYS[1], 'offset') or '-1'
if partition .. ':' .. offset ~= ARGV[1] or redis.call('HGET', KEYS[1], 'closed') == '1' then return 0 end
redis.call('HSET', KEYS[1], 'offset', ARGV[2], 'state', ARGV[3], 'verdict', ARGV[4], 'shed', ARGV[5],
    'updated_at', ARGV[6], 'closed', ARGV[11], 'partition', ARGV[12])
redis.call('EXPIRE', KEYS[1], ARGV[7])
for i = 13, #ARGV do
    redis.call('RPUSH', KEYS[2], ARGV[i])
    redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[9], '*', 'stream_id', ARGV[10], 'face', ARGV[i])
end
if #ARGV > 12 then
    redis.call('LTRIM', KEYS[2], -tonumber(ARGV[8]), -1)
    redis.call('EXPIRE', KEYS[2], ARGV[7])
    redis.call('EXPIRE', KEYS[3], ARGV[7])
end
redis.call('ZADD', KEYS[4], ARGV[6], ARGV[10])
return 1
"""

# Of a stream before its first segment.
NEW: Final[Position] = (None, -1)


class NewerStateError(UnmaskError):
    """A newer version of Unmask wrote the state of a stream: only its workers can go on with it."""


class InvalidStateError(UnmaskError):
    """The state of a stream cannot be read."""


class StreamStore:
    """The streams' hashes.

    Raises:
        redis.RedisError: from every method: Redis is away or refuses.
    """

    def __init__(self, client: redis.Redis, *, ttl_s: int, clock: Callable[[], float] = time.time) -> None:
        """Every key expires `ttl_s` seconds after its last change."""
        self._client, self._ttl_s, self._clock = client, ttl_s, clock
        self._apply = client.register_script(_APPLY)

    def load(self, stream_id: str) -> StreamState | None:
        """The state of a stream; None if it is unknown.

        Raises:
            NewerStateError: a newer version wrote it.
            InvalidStateError: it is not a state.
        """
        text = cast("bytes | None", self._client.hget(stream_key(stream_id), "state"))
        if text is None:
            return None
        try:
            return StreamState.model_validate_json(text)
        except ValidationError as error:
            version = _version_of(text)
            if version is not None and version > STATE_VERSION:
                raise NewerStateError(
                    f"stream {stream_id}: state version {version}, and this worker reads up to {STATE_VERSION}"
                ) from error
            raise InvalidStateError(f"stream {stream_id}: its state in Redis is invalid") from error

    def drop(self, stream_id: str) -> None:
        """Forget the state and the faces of a stream: its next segment begins it again."""
        self._client.delete(stream_key(stream_id), stream_faces_key(stream_id))

    def apply(self, before: Position, state: StreamState, verdict: str, faces: Sequence[ScoredFace]) -> bool:
        """Move a stream on from the position `before`; False where another worker moved it, or it has ended.

        Args:
            before: position of the state that this one follows; `NEW` for a new stream.
            state: after the segment.
            verdict: the running one, as JSON.
            faces: that the segment added.
        """
        arguments: list[Any] = [
            f"{'' if before[0] is None else before[0]}:{before[1]}",
            str(state.offset),
            state.model_dump_json(),
            verdict,
            state.shed,
            repr(self._clock()),
            self._ttl_s,
            MAX_FACES,
            MAX_LIVE,
            state.stream_id,
            int(state.closed),
            "" if state.partition is None else state.partition,
            *(face.model_dump_json() for face in faces),
        ]
        keys = [stream_key(state.stream_id), stream_faces_key(state.stream_id), LIVE_KEY, STREAMS_KEY]
        return bool(self._apply(keys=keys, args=arguments))

    def faces(self, stream_id: str) -> list[ScoredFace]:
        """The scored faces of a stream, the last `MAX_FACES`."""
        found = cast("list[bytes]", self._client.lrange(stream_faces_key(stream_id), 0, -1))
        return [ScoredFace.model_validate_json(face) for face in found]

    def verdict(self, stream_id: str) -> bytes | None:
        """The running verdict of a stream, or None."""
        return cast("bytes | None", self._client.hget(stream_key(stream_id), "verdict"))

    def idle(self, older_than_s: float) -> list[str]:
        """Streams that are not closed and whose last segment was applied so long ago; what is no name is left out."""
        found = cast("list[bytes]", self._client.zrangebyscore(STREAMS_KEY, 0, self._clock() - older_than_s))
        return [name for stream_id in found if (name := stream_id.decode(errors="replace")).isprintable()]

    def forget(self, stream_id: str) -> None:
        """Take a closed stream off the list of those that may become idle."""
        self._client.zrem(STREAMS_KEY, stream_id)


def _version_of(text: bytes) -> int | None:
    try:
        version = json.loads(text).get("version")
    except (ValueError, AttributeError, RecursionError):
        return None
    return version if type(version) is int else None
