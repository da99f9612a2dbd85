"""What people decide on clips and on the people in them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pipeline.contracts import State
from web import audit
from web.appeals import Appeal, add_appeal, appeals_of, check_may_decide
from web.audit import Kind
from web.database import Database
from web.keys import Key, Role
from web.problems import Code, ProblemError, not_found
from web.rounds import Choice, Policy, Round, contradicts
from web.videos import Video, Videos, appealed_after, standing_of, video_of
from web.webhooks import Notify, WebhookEvent

UNDO_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person decided.

    Attributes:
        track: the person in the clip; None: the clip.
        reason: of the policy, free text.
        by: id of the key.
        blind: nobody else's decision on the clip could be seen.
        made_s: Unix seconds.
        undone_s: Unix seconds; None: it counts.
    """

    n: int
    track: int | None
    decision: Choice
    reason: str
    comment: str
    by: str
    blind: bool
    made_s: float
    undone_s: float | None


class Decisions:
    """The decisions of a database; each settles how far the reviewing of its clip is. Safe to share between threads.

    Args:
        database: it.
        videos: its videos.
        notify: stores a message to webhooks, in the transaction of the change that it is about.
        policy: how much is reviewed.
    """

    def __init__(self, database: Database, videos: Videos, notify: Notify, policy: Policy) -> None:
        self._database = database
        self._videos = videos
        self._notify = notify
        self._policy = policy

    def decide(
        self, video: Video, key: Key, decision: Choice, *, track: int | None = None, reason: str = "", comment: str = ""
    ) -> Decision:
        """Record a decision; it replaces the person's earlier one on the same clip or person.

        Raises:
            ProblemError: there is no verdict yet, or no such person in it; or somebody else reviews the clip now; or
                people disagree and the key is not a senior's.
        """
        if video.state is not State.DONE:
            raise ProblemError(409, Code.CONFLICT, f"this video is {video.state}: there is no verdict to decide on yet")
        if track is not None:
            report = self._videos.report(video)
            if report is None or track not in {person.track for person in report.verdict.people}:
                raise not_found("person in this video")
        now_s = time.time()
        with self._database.write() as rows:
            # As it is within the transaction: two people may decide at once.
            row = rows.execute("SELECT * FROM videos WHERE n = ?", (video.n,)).fetchone()
            if row is None:
                raise not_found("video")
            video = video_of(row)
            self._check_may(rows, video, key, now_s)
            # One that was appealed against stays.
            rows.execute(
                "UPDATE decisions SET undone_s = ? WHERE video = ? AND track IS ? AND key_id = ? AND undone_s IS NULL "
                "AND n > ?",
                (now_s, video.n, track, key.id, appealed_after(rows, video.n) or 0),
            )
            blind = key.role is Role.REVIEW and is_hidden(video)
            salt = audit.new_salt()
            n = rows.execute(
                "INSERT INTO decisions (video, track, decision, reason, comment, salt, key_id, blind, made_s) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (video.n, track, decision, reason, comment, salt, key.id, blind, now_s),
            ).lastrowid
            if track is None:
                rows.execute("DELETE FROM leases WHERE video = ? AND key_id = ?", (video.n, key.id))
            digest = audit.text_digest(salt, reason, comment)
            audit.append(
                rows, Kind.DECIDED, by=key.id, video=video.id, n=n, track=track, decision=decision, text_sha256=digest
            )
            self._settle(rows, video)
            self._decided(rows, video, decision, track, key.id, undone=False)
        return Decision(int(n or 0), track, decision, reason, comment, key.id, blind, now_s, None)

    def undo(self, video: Video, by: str) -> Decision:
        """Take the person's last decision on a clip back, for `UNDO_S` after it was made.

        Raises:
            ProblemError: there is no such decision, or it is older.
        """
        now_s = time.time()
        with self._database.write() as rows:
            row = rows.execute(
                "SELECT * FROM decisions WHERE video = ? AND key_id = ? AND undone_s IS NULL ORDER BY n DESC LIMIT 1",
                (video.n, by),
            ).fetchone()
            if row is None:
                raise ProblemError(404, Code.NOT_FOUND, "nothing to undo: you have no decision on this video")
            if row["n"] <= (appealed_after(rows, video.n) or 0):
                raise ProblemError(409, Code.CONFLICT, "somebody appealed against this decision: it stays as it is")
            if now_s - row["made_s"] > UNDO_S:
                raise ProblemError(
                    409, Code.CONFLICT, f"a decision can be undone for {UNDO_S / 60:.0f} minutes; decide again instead"
                )
            rows.execute("UPDATE decisions SET undone_s = ? WHERE n = ?", (now_s, row["n"]))
            # The one that it had replaced counts again.
            rows.execute(
                "UPDATE decisions SET undone_s = NULL WHERE n = (SELECT max(n) FROM decisions WHERE video = ? "
                "AND track IS ? AND key_id = ? AND n < ? AND undone_s = ?)",
                (video.n, row["track"], by, row["n"], row["made_s"]),
            )
            video = video_of(rows.execute("SELECT * FROM videos WHERE n = ?", (video.n,)).fetchone())
            audit.append(rows, Kind.UNDONE, by=by, video=video.id, n=row["n"], track=row["track"])
            self._settle(rows, video)
            self._decided(rows, video, row["decision"], row["track"], by, undone=True)
        return _decision(row, undone_s=now_s)

    def appeal(self, video: Video, key: Key, reason: str) -> Appeal:
        """Open a closed review again: a senior who has not decided on the clip does.

        Args:
            video: it.
            key: of who appeals.
            reason: in their words.

        Raises:
            ProblemError: the review is not closed, or the clip checks reviewers, or it was deleted.
        """
        with self._database.write() as rows:
            row = rows.execute("SELECT * FROM videos WHERE n = ?", (video.n,)).fetchone()
            if row is None:
                raise not_found("video")
            video = video_of(row)
            salt = audit.new_salt()
            made = add_appeal(rows, video, key, reason, salt)
            digest = audit.text_digest(salt, reason)
            audit.append(
                rows, Kind.APPEALED, by=key.id, video=video.id, n=made.n, against=made.against, text_sha256=digest
            )
            self._settle(rows, video)
        return made

    def appeals(self, video: Video) -> Sequence[Appeal]:
        """All appeals on a clip, by time."""
        return appeals_of(self._database.read(), video)

    def all(self, video: Video) -> Sequence[Decision]:
        """All decisions on a clip and its people, with those that were undone or replaced, by time."""
        rows = self._database.read().execute("SELECT * FROM decisions WHERE video = ? ORDER BY n", (video.n,))
        return [_decision(row, undone_s=row["undone_s"]) for row in rows]

    def seen_by(self, video: Video, key: Key) -> Sequence[Decision]:
        """Those that a key may see: a reviewer sees their own only, until the clip is closed."""
        found = self.all(video)
        if key.role is Role.REVIEW and is_hidden(video):
            return [each for each in found if each.by == key.id]
        return found

    def _check_may(self, rows: sqlite3.Connection, video: Video, key: Key, now_s: float) -> None:
        lease = rows.execute(
            "SELECT 1 FROM leases WHERE video = ? AND key_id != ? AND expires_s > ?", (video.n, key.id, now_s)
        ).fetchone()
        if lease is not None:
            raise ProblemError(409, Code.CONFLICT, "somebody else reviews this clip now")
        check_may_decide(rows, video, key)
        if video.round is Round.SENIOR and video.golden is None and key.role < Role.SENIOR:
            query = "SELECT 1 FROM decisions WHERE video = ? AND key_id = ? AND track IS NULL"
            if rows.execute(query, (video.n, key.id)).fetchone() is None:
                raise ProblemError(403, Code.NOT_ALLOWED, "two people disagree on this clip: a senior decides")

    def _settle(self, rows: sqlite3.Connection, video: Video) -> None:
        now = standing_of(rows, video, self._policy)
        rows.execute(
            "UPDATE videos SET round = ?, answer = ?, version = version + 1 WHERE n = ?",
            (now.round, now.answer, video.n),
        )
        if now.answer is video.answer:
            return
        audit.append(rows, Kind.ANSWERED, video=video.id, answer=now.answer, before=video.answer, label=video.label)
        data = {"video": video.id, "name": video.upload.name, "answer": now.answer, "label": video.label}
        self._notify(rows, video.key_id, WebhookEvent.ANSWERED, data)
        if video.answer is not None or (now.answer is not None and contradicts(now.answer, video.label)):
            self._notify(rows, video.key_id, WebhookEvent.CHANGED, {**data, "before": video.answer})

    def _decided(
        self, rows: sqlite3.Connection, video: Video, decision: str, track: int | None, by: str, *, undone: bool
    ) -> None:
        data = {"video": video.id, "name": video.upload.name, "decision": decision, "track": track, "by": by}
        self._notify(rows, video.key_id, WebhookEvent.DECIDED, {**data, "undone": undone})


def is_hidden(video: Video) -> bool:
    """Whether a reviewer may not see what others decided: the clip is open, or its answer is known beforehand."""
    return video.golden is not None or video.round not in (Round.CLOSED, Round.AUTOMATIC)


def _decision(row: sqlite3.Row, *, undone_s: float | None) -> Decision:
    return Decision(
        row["n"],
        row["track"],
        Choice(row["decision"]),
        row["reason"],
        row["comment"],
        row["key_id"],
        bool(row["blind"]),
        row["made_s"],
        undone_s,
    )
