"""Which weights are announced, and which were before them, in Redis; every change is atomic."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, cast

import redis
from pydantic import ValidationError

from models.errors import UnmaskError
from pipeline.contracts import (
    ACTIVE_KEY,
    CANARY_KEY,
    CHANGED_CHANNEL,
    HISTORY_KEY,
    WITHDRAWN_KEY,
    Announcement,
    GraphFile,
)

# Announcements that can be rolled back to; only the last few are needed.
HISTORY_LENGTH: Final = 50

# Both change nothing if the active value is not the one that the caller has seen, and are idempotent: a client that
# lost the answer asks again. A canary is judged beside the weights that it was announced with: it ends.
_ANNOUNCE = """
local active = redis.call('GET', KEYS[1]) or ''
if active == ARGV[2] then return 1 end
if active ~= ARGV[1] then return 0 end
if ARGV[5] ~= '' and redis.call('GET', KEYS[3]) ~= ARGV[5] then return 0 end
if active ~= '' then
    redis.call('LPUSH', KEYS[2], active)
    redis.call('LTRIM', KEYS[2], 0, ARGV[4] - 1)
end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('DEL', KEYS[3])
redis.call('SREM', KEYS[4], ARGV[6])
redis.call('PUBLISH', ARGV[3], ARGV[2])
return 1
"""
_ROLL_BACK = """
local active = redis.call('GET', KEYS[1]) or ''
if active == ARGV[2] then return 1 end
if active ~= ARGV[1] or redis.call('LINDEX', KEYS[2], 0) ~= ARGV[4] then return 0 end
redis.call('LPOP', KEYS[2])
redis.call('SET', KEYS[1], ARGV[2])
redis.call('DEL', KEYS[3])
redis.call('SADD', KEYS[4], ARGV[5])
redis.call('SREM', KEYS[4], ARGV[6])
redis.call('PUBLISH', ARGV[3], ARGV[2])
return 1
"""


class AnnouncementError(UnmaskError):
    """The value in Redis is not an announcement that this version knows."""

    exit_code = 1


class ChangedMeanwhileError(UnmaskError):
    """Someone else announced weights since they were read; nothing was changed."""

    exit_code = 1


class NothingBeforeError(UnmaskError):
    """No weights were announced before the active ones."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Active:
    """An announcement, and the bytes it was read from."""

    announcement: Announcement
    raw: bytes


class ActiveWeights:
    """The announced weights.

    Raises:
        redis.RedisError: from every method: Redis is unreachable or refuses.
    """

    def __init__(self, client: redis.Redis, *, clock: Callable[[], float] = time.time) -> None:
        """See `pipeline.results.store.connect` for the client."""
        self._client, self._clock = client, clock
        self._announce = client.register_script(_ANNOUNCE)
        self._roll_back = client.register_script(_ROLL_BACK)

    def raw(self) -> bytes | None:
        """The stored bytes; None without any."""
        return cast("bytes | None", self._client.get(ACTIVE_KEY))

    def read(self) -> Active | None:
        """The announced weights; None without any.

        Raises:
            AnnouncementError: the value is not an announcement.
        """
        raw = self.raw()
        return None if raw is None else Active(parse(raw), raw)

    def history(self) -> list[Announcement]:
        """The announcements before the active one, the last first; those that cannot be read are left out."""
        found = []
        for raw in cast("list[bytes]", self._client.lrange(HISTORY_KEY, 0, -1)):
            with suppress(AnnouncementError):
                found.append(parse(raw))
        return found

    def announce(
        self,
        *,
        sha256: str,
        name: str,
        uri: str,
        forced: bool,
        replacing: Active | None,
        size_bytes: int | None = None,
        graph: GraphFile | None = None,
        canary: bytes | None = None,
    ) -> Announcement:
        """Announce weights, and keep the previous ones for a rollback.

        Args:
            sha256: of the checkpoint.
            name: what verdicts call it.
            uri: where it is.
            forced: whether the gate was overridden.
            replacing: the value that was active when the caller decided.
            size_bytes: of the checkpoint: workers fetch no more.
            graph: its graph in the registry.
            canary: only if this is still the announced canary, as Redis holds it.

        Raises:
            ChangedMeanwhileError: another value is active now, or the canary has ended.
        """
        announcement = Announcement(
            sha256=sha256,
            name=name,
            uri=uri,
            promoted_at=self._clock(),
            previous=None if replacing is None else replacing.announcement.sha256,
            forced=forced,
            size_bytes=size_bytes,
            graph=graph,
        )
        expected = b"" if replacing is None else replacing.raw
        done = self._announce(
            keys=[ACTIVE_KEY, HISTORY_KEY, CANARY_KEY, WITHDRAWN_KEY],
            args=[expected, announcement.to_json(), CHANGED_CHANNEL, HISTORY_LENGTH, canary or b"", sha256],
        )
        if not done:
            raise ChangedMeanwhileError("other weights were announced at the same time")
        return announcement

    def is_withdrawn(self, sha256: str) -> bool:
        """Whether weights were rolled back, and not announced since."""
        return bool(self._client.sismember(WITHDRAWN_KEY, sha256))

    def before(self) -> Announcement:
        """The weights that `roll_back` would announce.

        Raises:
            NothingBeforeError: no weights were announced before.
            AnnouncementError: the stored value is not an announcement.
        """
        before = cast("bytes | None", self._client.lindex(HISTORY_KEY, 0))
        if before is None:
            raise NothingBeforeError(
                "no weights were active before these" if self.raw() else "no weights were announced"
            )
        return parse(before)

    def roll_back(self) -> Announcement:
        """Announce the weights before the active ones; they leave the history, so the next call goes back one further.

        The weights that were active count as withdrawn until they are announced again.

        Raises:
            NothingBeforeError: no weights were announced before.
            AnnouncementError: the stored value is not an announcement.
            ChangedMeanwhileError: someone else announced weights at the same time.
        """
        active, before = self.read(), cast("bytes | None", self._client.lindex(HISTORY_KEY, 0))
        if active is None or before is None:
            raise NothingBeforeError("no weights were active before these" if active else "no weights were announced")
        announcement = parse(before).model_copy(
            update={"promoted_at": self._clock(), "previous": active.announcement.sha256}
        )
        done = self._roll_back(
            keys=[ACTIVE_KEY, HISTORY_KEY, CANARY_KEY, WITHDRAWN_KEY],
            args=[
                *(active.raw, announcement.to_json(), CHANGED_CHANNEL, before),
                *(active.announcement.sha256, announcement.sha256),
            ],
        )
        if not done:
            raise ChangedMeanwhileError("other weights were announced at the same time")
        return announcement


def parse(raw: bytes) -> Announcement:
    """Read an announcement from its bytes in Redis.

    Raises:
        AnnouncementError: it is not an announcement, or of a schema that this version does not know.
    """
    try:
        return Announcement.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "value"
        raise AnnouncementError(f"{ACTIVE_KEY}: not an announcement of schema 1: {where}: {first['msg']}") from error
