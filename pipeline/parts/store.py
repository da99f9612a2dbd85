"""Results of the parts of long clips, until the last one is there and the clip gets its verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import redis

from pipeline.contracts import parts_key

_BEGIN = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then return 0 end
local attempt = redis.call('HINCRBY', KEYS[1], 'attempt:' .. ARGV[1], 1)
redis.call('EXPIRE', KEYS[1], ARGV[2])
return attempt
"""
_RELEASE = """
if tonumber(redis.call('HGET', KEYS[1], 'attempt:' .. ARGV[1]) or 0) > 0 then
    redis.call('HINCRBY', KEYS[1], 'attempt:' .. ARGV[1], -1)
end
return 1
"""
# All results, in order, once the last one is there; else nothing.
_PUT = """
redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[4])
local found = {}
for i = 0, tonumber(ARGV[3]) - 1 do
    local part = redis.call('HGET', KEYS[1], tostring(i))
    if not part then return {} end
    found[#found + 1] = part
end
return found
"""


@dataclass(frozen=True, slots=True)
class PartStore:
    """The hashes of long clips: one field a part. Each method is one atomic step, safe to repeat.

    Raises:
        redis.RedisError: from every method: Redis is away or refuses.
    """

    client: redis.Redis
    ttl_s: int

    def sent(self, clip_id: str) -> None:
        """Remember that all parts of a clip are on their way."""
        with self.client.pipeline() as pipe:
            pipe.hset(parts_key(clip_id), "sent", "1")
            pipe.expire(parts_key(clip_id), self.ttl_s)
            pipe.execute()

    def is_sent(self, clip_id: str) -> bool:
        """Whether that is remembered. If not, Redis has lost it, and perhaps results with it."""
        return bool(self.client.hexists(parts_key(clip_id), "sent"))

    def begin(self, clip_id: str, index: int) -> int:
        """Count one more try of a part; 0 where its result is there."""
        script = self.client.register_script(_BEGIN)
        return int(script(keys=[parts_key(clip_id)], args=[str(index), self.ttl_s]))

    def release(self, clip_id: str, index: int) -> None:
        """Take back a try that was ended for no fault of the part's."""
        self.client.register_script(_RELEASE)(keys=[parts_key(clip_id)], args=[str(index)])

    def result(self, clip_id: str, index: int) -> bytes | None:
        """The stored result of a part, or None."""
        return cast("bytes | None", self.client.hget(parts_key(clip_id), str(index)))

    def again(self, clip_id: str) -> int:
        """Count one more time that parts of a clip have to be done anew; returns how often that was."""
        return self.client.hincrby(parts_key(clip_id), "again", 1)

    def retract(self, clip_id: str, index: int) -> None:
        """Forget the result of a part, and its tries."""
        self.client.hdel(parts_key(clip_id), str(index), f"attempt:{index}")

    def put(self, clip_id: str, index: int, count: int, result: bytes) -> list[bytes]:
        """Store the result of a part, unless there is one; the results of all parts once none is missing, else none."""
        script = self.client.register_script(_PUT)
        return cast("list[bytes]", script(keys=[parts_key(clip_id)], args=[str(index), result, count, self.ttl_s]))

    def drop(self, clip_id: str) -> None:
        """Let go of the parts of a clip that has its verdict."""
        self.client.delete(parts_key(clip_id))
