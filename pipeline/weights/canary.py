"""The announced canary in Redis: begun by a promotion, ended by a person, an alarm, or other active weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, cast

import redis
import structlog
from pydantic import ValidationError

from models.errors import UnmaskError
from pipeline.contracts import (
    ACTIVE_KEY,
    CANARY_ENDED_KEY,
    CANARY_KEY,
    CHANGED_CHANNEL,
    Canary,
    GraphFile,
    Verdict,
    arms_key,
)
from pipeline.weights.announced import Active, AnnouncementError, ChangedMeanwhileError
from pipeline.weights.arms import ACTIVE, CANARY, Arm, alarm, counted
from pipeline.weights.shadow import Differences

log = structlog.get_logger(__name__)

# What the arms gave is kept so long after the last video.
_KEPT_S: Final = 90 * 24 * 3600
_SHADOW: Final = ("crops", "mean", "p95", "max")
_BEGIN = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[3])
redis.call('SET', KEYS[2], ARGV[2])
redis.call('PUBLISH', ARGV[3], ARGV[2])
return 1
"""
# What the counters hold may be garbage: the canary ends nevertheless.
_END = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
if KEYS[2] then
    redis.pcall('HSET', KEYS[2], 'ended', ARGV[2])
    redis.call('EXPIRE', KEYS[2], ARGV[4])
    redis.call('SET', KEYS[3], ARGV[1], 'EX', ARGV[4])
end
redis.call('PUBLISH', ARGV[3], ARGV[2])
return 1
"""


class NoCanaryError(UnmaskError):
    """No canary is announced."""

    exit_code = 3


class CountersError(UnmaskError):
    """What Redis holds of a canary's arms cannot be read; the message names the key."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Announced:
    """A canary, and the bytes that it was read from."""

    canary: Canary
    raw: bytes


@dataclass(frozen=True, slots=True)
class Arms:
    """What the arms of a canary gave so far.

    Attributes:
        canary: the arm of the new weights.
        active: the other.
        shadow: differences of P(fake) on the same live crops, by statistic; empty if they were not compared.
        ended: why it ended; empty while it goes on.
    """

    canary: Arm
    active: Arm
    shadow: Mapping[str, float]
    ended: str


class Canaries:
    """The announced canary.

    Raises:
        redis.RedisError: from every method: Redis is unreachable or refuses.
    """

    def __init__(self, client: redis.Redis, *, clock: Callable[[], float] = time.time) -> None:
        """See `pipeline.results.store.connect` for the client."""
        self._client, self._clock = client, clock
        self._begin = client.register_script(_BEGIN)
        self._end = client.register_script(_END)

    def raw(self) -> bytes | None:
        """The stored bytes; None without any."""
        return cast("bytes | None", self._client.get(CANARY_KEY))

    def read(self) -> Announced:
        """The announced canary.

        Raises:
            NoCanaryError: no canary is announced.
            AnnouncementError: the value is not a canary.
        """
        raw = self.raw()
        if raw is None:
            raise NoCanaryError("no canary is announced")
        return Announced(parse_canary(raw), raw)

    def begin(
        self,
        *,
        sha256: str,
        name: str,
        uri: str,
        share: float,
        tolerance: float,
        beside: Active,
        forced: bool,
        size_bytes: int | None = None,
        graph: GraphFile | None = None,
    ) -> Canary:
        """Let weights judge a share of the videos, in place of an earlier canary; its counters begin at 0.

        Args:
            sha256: of the checkpoint.
            name: what verdicts call it.
            uri: where it is.
            share: of the videos.
            tolerance: see `Canary`.
            beside: the active weights.
            forced: whether the gate was overridden.
            size_bytes: of the checkpoint.
            graph: its graph in the registry.

        Raises:
            ChangedMeanwhileError: other weights are active now.
        """
        canary = Canary(
            sha256=sha256,
            name=name,
            uri=uri,
            promoted_at=self._clock(),
            previous=beside.announcement.sha256,
            forced=forced,
            size_bytes=size_bytes,
            graph=graph,
            share=share,
            tolerance=tolerance,
        )
        keys = [ACTIVE_KEY, CANARY_KEY, arms_key(sha256)]
        if not self._begin(keys=keys, args=[beside.raw, canary.to_json(), CHANGED_CHANNEL]):
            raise ChangedMeanwhileError("other weights were announced at the same time")
        return canary

    def end(self, announced: Announced, why: str) -> bool:
        """End this canary; False if it has ended already."""
        keys = [CANARY_KEY, arms_key(announced.canary.sha256), CANARY_ENDED_KEY]
        return bool(self._end(keys=keys, args=[announced.raw, why, CHANGED_CHANNEL, _KEPT_S]))

    def remove(self, raw: bytes) -> bool:
        """Remove a value that is no canary; False if it is gone already."""
        return bool(self._end(keys=[CANARY_KEY], args=[raw, "", CHANGED_CHANNEL, _KEPT_S]))

    def why_ended(self, sha256: str) -> str:
        """Why the last canary of these weights was ended; empty if it was not, or more than 90 days ago."""
        found = cast("bytes | None", self._client.hget(arms_key(sha256), "ended"))
        return "" if found is None else found.decode(errors="replace")

    def last_ended(self) -> Canary | None:
        """The canary that was ended last, for 90 days.

        Raises:
            AnnouncementError: the value is not a canary.
        """
        raw = cast("bytes | None", self._client.get(CANARY_ENDED_KEY))
        return None if raw is None else parse_canary(raw)

    def count(self, announced: Announced, verdict: Verdict) -> str | None:
        """Count a new verdict in its arm, if it is of one of the two; end the canary on an alarm.

        Returns:
            Why this call ended the canary; None if it goes on.

        Raises:
            CountersError: what was counted so far cannot be read.
        """
        canary = announced.canary
        members = verdict.provenance.weights_sha256
        if len(members) != 1 or members[0] not in (canary.sha256, canary.previous):
            return None
        arm = CANARY if members[0] == canary.sha256 else ACTIVE
        key = arms_key(canary.sha256)
        pipe = self._client.pipeline()
        for name in counted(verdict):
            pipe.hincrby(key, f"{arm}:{name}", 1)
        pipe.expire(key, _KEPT_S)
        try:
            pipe.execute()
        except redis.ResponseError as error:
            raise CountersError(f"{key}: not the counters of a canary: {error}") from error
        arms = self.arms(canary)
        why = alarm(arms.canary, arms.active, canary.tolerance)
        return why if why is not None and self.end(announced, why) else None

    def compared(self, canary: Canary, found: Differences) -> None:
        """Keep a comparison with the active weights on live crops."""
        key = arms_key(canary.sha256)
        pipe = self._client.pipeline()
        for name in _SHADOW:
            pipe.hset(key, f"shadow:{name}", repr(getattr(found, name)))
        pipe.expire(key, _KEPT_S)
        pipe.execute()

    def arms(self, canary: Canary) -> Arms:
        """What the arms of a canary gave so far.

        Raises:
            CountersError: it cannot be read.
        """
        key = arms_key(canary.sha256)
        try:
            stored = cast("dict[bytes, bytes]", self._client.hgetall(key))
            found = {name.decode(): value.decode(errors="replace") for name, value in stored.items()}
            shadow = {name: float(found[f"shadow:{name}"]) for name in _SHADOW if f"shadow:{name}" in found}
            arms = Arm.read(found, CANARY), Arm.read(found, ACTIVE)
        except (redis.ResponseError, ValueError) as error:
            raise CountersError(f"{key}: not the counters of a canary: {error}") from error
        return Arms(*arms, shadow if len(shadow) == len(_SHADOW) else {}, found.get("ended", ""))


def parse_canary(raw: bytes) -> Canary:
    """Read a canary from its bytes in Redis.

    Raises:
        AnnouncementError: it is not one, or of a schema that this version does not know.
    """
    try:
        return Canary.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "value"
        raise AnnouncementError(f"{CANARY_KEY}: not a canary of schema 1: {where}: {first['msg']}") from error
