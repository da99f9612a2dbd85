"""Results of the parts of long clips, until all are present and the clip gets its verdict."""

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
# All results, in order, once all are present; else nothing.
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
    """The hashes of long clips, with one field per part. Each method is one atomic step, safe to repeat.

    Raises:
        redis.RedisError: from every method: Redis is unreachable or refuses.
    """

    client: redis.Redis
    ttl_s: int

    def sent(self, clip_id: str) -> None:
        """Record that all parts of a clip were sent."""
        with self.client.pipeline() as pipe:
            pipe.hset(parts_key(clip_id), "sent", "1")
            pipe.expire(parts_key(clip_id), self.ttl_s)
            pipe.execute()

    def is_sent(self, clip_id: str) -> bool:
        """Whether that is recorded. If not, Redis has lost it, and perhaps results too."""
        return bool(self.client.hexists(parts_key(clip_id), "sent"))

    def begin(self, clip_id: str, index: int) -> int:
        """Count one more try of a part; 0 if its result is present."""
        script = self.client.register_script(_BEGIN)
        return int(script(keys=[parts_key(clip_id)], args=[str(index), self.ttl_s]))

    def release(self, clip_id: str, index: int) -> None:
        """Take back a try that ended through no fault of the part."""
        self.client.register_script(_RELEASE)(keys=[parts_key(clip_id)], args=[str(index)])

    def result(self, clip_id: str, index: int) -> bytes | None:
        """The stored result of a part, or None."""
        return cast("bytes | None", self.client.hget(parts_key(clip_id), str(index)))

    def done(self, clip_id: str, count: int) -> int:
        """How many of a clip's parts have results."""
        with self.client.pipeline(transaction=False) as pipe:
            for index in range(count):
                pipe.hexists(parts_key(clip_id), str(index))
            return sum(pipe.execute())

    def again(self, clip_id: str) -> int:
        """Count one more restart of a clip's parts; returns the count."""
        return self.client.hincrby(parts_key(clip_id), "again", 1)

    def retract(self, clip_id: str, index: int) -> None:
        """Delete the result of a part, and its tries."""
        self.client.hdel(parts_key(clip_id), str(index), f"attempt:{index}")

    def put(self, clip_id: str, index: int, count: int, result: bytes) -> list[bytes]:
        """Store the result of a part, unless it has one; returns all results once complete, else an empty list."""
        script = self.client.register_script(_PUT)
        return cast("list[bytes]", script(keys=[parts_key(clip_id)], args=[str(index), result, count, self.ttl_s]))

    def drop(self, clip_id: str) -> None:
        """Delete the parts of a clip that has its verdict."""
        self.client.delete(parts_key(clip_id))
