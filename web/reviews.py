"""Who reviews which clip next: leases, skips, clips whose answer is known."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from web.database import Database
from web.keys import Key, Role
from web.listing import Filter, Sort, order_of
from web.problems import Code, ProblemError, not_found
from web.rounds import Choice, Policy, Round
from web.videos import Video, standing_of, video_of

# A clip is one person's for this long; the page asks for more time while it is open.
LEASE_S: Final = 600.0
# Still open for this person, and nobody else's now. Parameters: ?1 their key, ?2 now.
_FREE: Final = (
    "NOT EXISTS (SELECT 1 FROM decisions WHERE video = videos.n AND track IS NULL AND undone_s IS NULL AND key_id = ?1)"
    " AND NOT EXISTS (SELECT 1 FROM skips WHERE video = videos.n AND key_id = ?1)"
    " AND NOT EXISTS (SELECT 1 FROM leases WHERE video = videos.n AND key_id != ?1 AND expires_s > ?2)"
)


@dataclass(frozen=True, slots=True)
class Lease:
    """A clip is somebody's to review.

    Attributes:
        by: id of their key.
        expires_s: Unix seconds.
    """

    by: str
    expires_s: float


@dataclass(frozen=True, slots=True)
class Skip:
    """Somebody did not want to decide.

    Attributes:
        by: id of their key.
        made_s: Unix seconds.
    """

    by: str
    reason: str
    made_s: float


class Reviews:
    """The reviewing of a database's videos. Safe to share between threads.

    Args:
        database: it.
        policy: how much is reviewed.
        chance: uniform from 0 to 1; below `Policy.golden_share`, a clip whose answer is known comes next.
    """

    def __init__(self, database: Database, policy: Policy, chance: Callable[[], float] = random.random) -> None:
        self._database = database
        self._policy = policy
        self._chance = chance

    def next(self, key: Key, chosen: Filter, *, sort: Sort = "created", leave: str | None = None) -> Video | None:
        """The clip that a person reviews next; it is theirs until they decide, skip or leave it, for `LEASE_S` at most.

        Clips on which people disagree come first (for seniors), then those that need a second person, then the rest.

        Args:
            key: theirs.
            chosen: which clips they want to review.
            sort: in which order.
            leave: id of a video that is not offered this time, as it was just left.

        Returns:
            None if nothing is open for them.
        """
        now_s = time.time()
        with self._database.write() as rows:
            rows.execute("DELETE FROM leases WHERE key_id = ? OR expires_s <= ?", (key.id, now_s))
            is_tested = key.role is Role.REVIEW and self._chance() < self._policy.golden_share
            row = self._golden(rows, key, now_s, chosen, leave) if is_tested else None
            if row is None:
                row = self._open(rows, key, now_s, chosen, sort, leave)
            if row is None:
                return None
            video = video_of(row)
            self._lease(rows, video, key, now_s)
            return video

    def hold(self, video: Video, key: Key) -> Lease:
        """Take a clip, or keep it for longer.

        Raises:
            ProblemError: it is somebody else's.
        """
        now_s = time.time()
        with self._database.write() as rows:
            held = rows.execute("SELECT * FROM leases WHERE video = ? AND expires_s > ?", (video.n, now_s)).fetchone()
            if held is not None and held["key_id"] != key.id:
                raise ProblemError(409, Code.CONFLICT, "somebody else reviews this clip now")
            return self._lease(rows, video, key, now_s)

    def release(self, video: Video, key: Key) -> None:
        """Leave a clip to others; nothing happens if it is not the person's."""
        with self._database.write() as rows:
            rows.execute("DELETE FROM leases WHERE video = ? AND key_id = ?", (video.n, key.id))

    def holder(self, video: Video) -> Lease | None:
        """Whose clip it is now."""
        query = "SELECT * FROM leases WHERE video = ? AND expires_s > ?"
        row = self._database.read().execute(query, (video.n, time.time())).fetchone()
        return None if row is None else Lease(row["key_id"], row["expires_s"])

    def skip(self, video: Video, key: Key, reason: str) -> None:
        """Never offer a clip to this person again."""
        with self._database.write() as rows:
            rows.execute(
                "INSERT INTO skips (video, key_id, reason, made_s) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (video, key_id) DO UPDATE SET reason = excluded.reason, made_s = excluded.made_s",
                (video.n, key.id, reason, time.time()),
            )
            rows.execute("DELETE FROM leases WHERE video = ? AND key_id = ?", (video.n, key.id))

    def skips(self, video: Video) -> list[Skip]:
        """Who skipped a clip, and why, by time."""
        rows = self._database.read().execute("SELECT * FROM skips WHERE video = ? ORDER BY made_s", (video.n,))
        return [Skip(row["key_id"], row["reason"], row["made_s"]) for row in rows]

    def set_golden(self, video: Video, answer: Choice | None) -> Video:
        """Let a judged clip check reviewers, who do not see that it does; None: no longer.

        Raises:
            ProblemError: it is not judged yet, or was deleted.
        """
        with self._database.write() as rows:
            rows.execute("UPDATE videos SET golden = ? WHERE n = ?", (answer, video.n))
            row = rows.execute("SELECT * FROM videos WHERE n = ?", (video.n,)).fetchone()
            if row is None:
                raise not_found("video")
            if row["round"] is None:
                raise ProblemError(409, Code.CONFLICT, f"this video is {row['state']}: it can be set once it is judged")
            now = standing_of(rows, video_of(row), self._policy)
            rows.execute(
                "UPDATE videos SET round = ?, answer = ?, version = version + 1 WHERE n = ?",
                (now.round, now.answer, video.n),
            )
            return video_of(rows.execute("SELECT * FROM videos WHERE n = ?", (video.n,)).fetchone())

    def _golden(
        self, rows: sqlite3.Connection, key: Key, now_s: float, chosen: Filter, leave: str | None
    ) -> sqlite3.Row | None:
        # Among the chosen ones: any other would be noticed.
        where, values = chosen.where()
        row: sqlite3.Row | None = rows.execute(
            f"SELECT * FROM videos WHERE {_FREE} AND id IS NOT ?3 AND golden IS NOT NULL "
            f"AND {' AND '.join(where) or '1'} ORDER BY random() LIMIT 1",
            [key.id, now_s, leave, *values],
        ).fetchone()
        return row

    def _open(
        self, rows: sqlite3.Connection, key: Key, now_s: float, chosen: Filter, sort: Sort, leave: str | None
    ) -> sqlite3.Row | None:
        where, values = chosen.where()
        rounds = [Round.SECOND, Round.AUDIT, Round.FIRST]
        if key.role >= Role.SENIOR:
            rounds.insert(0, Round.SENIOR)
        # Numbered ones first: those without a number go on from the last one.
        parameters: list[Any] = [key.id, now_s, leave, *rounds, *values]
        names = ", ".join("?" for _ in rounds)
        row: sqlite3.Row | None = rows.execute(
            f"SELECT * FROM videos WHERE {_FREE} AND id IS NOT ?3 AND golden IS NULL AND round IN ({names}) "
            f"AND {' AND '.join(where) or '1'} "
            f"ORDER BY round = '{Round.SENIOR}' DESC, round = '{Round.SECOND}' DESC, {order_of(sort)} LIMIT 1",
            parameters,
        ).fetchone()
        return row

    def _lease(self, rows: sqlite3.Connection, video: Video, key: Key, now_s: float) -> Lease:
        lease = Lease(key.id, now_s + LEASE_S)
        rows.execute(
            "INSERT INTO leases (video, key_id, expires_s) VALUES (?, ?, ?) "
            "ON CONFLICT (video) DO UPDATE SET key_id = excluded.key_id, expires_s = excluded.expires_s",
            (video.n, key.id, lease.expires_s),
        )
        return lease
