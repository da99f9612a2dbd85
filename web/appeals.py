"""Appeals: a closed review is opened again, and somebody else decides; the earlier decisions stay as they are."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass

from web.keys import Key, Role
from web.problems import Code, ProblemError
from web.rounds import Choice, Round
from web.videos import Video, appealed_after


@dataclass(frozen=True, slots=True)
class Appeal:
    """Somebody appealed.

    Attributes:
        by: id of their key.
        reason: in their words.
        against: the answer that they appealed against; None: the label had decided, and says nothing.
        made_s: Unix seconds.
    """

    n: int
    by: str
    reason: str
    against: Choice | None
    made_s: float


def appeals_of(rows: sqlite3.Connection, video: Video) -> Sequence[Appeal]:
    """All appeals on a video, by time."""
    found = rows.execute("SELECT * FROM appeals WHERE video = ? ORDER BY n", (video.n,))
    return [
        Appeal(
            row["n"],
            row["key_id"],
            row["reason"],
            None if row["against"] is None else Choice(row["against"]),
            row["made_s"],
        )
        for row in found
    ]


def add_appeal(rows: sqlite3.Connection, video: Video, key: Key, reason: str, salt: str) -> Appeal:
    """Note an appeal; `standing_of` has what it does to the review.

    Raises:
        ProblemError: the review is not closed, or the clip checks reviewers.
    """
    if video.golden is not None or video.round not in (Round.CLOSED, Round.AUTOMATIC):
        # One text: reviewers do not see which clips check them.
        raise ProblemError(409, Code.CONFLICT, "nothing to appeal against: its review is not closed")
    now_s = time.time()
    n = rows.execute(
        "INSERT INTO appeals (video, key_id, reason, salt, against, after, made_s) VALUES (?1, ?2, ?3, ?6, ?4, "
        "(SELECT coalesce(max(n), 0) FROM decisions WHERE video = ?1), ?5)",
        (video.n, key.id, reason, video.answer, now_s, salt),
    ).lastrowid
    return Appeal(int(n or 0), key.id, reason, video.answer, now_s)


def check_may_decide(rows: sqlite3.Connection, video: Video, key: Key) -> None:
    """Return if a person may decide on an appeal that is open; if none is, anybody may.

    Raises:
        ProblemError: they are no senior, or decided on the clip before; admins may nevertheless.
    """
    after = appealed_after(rows, video.n)
    if after is None or video.round is not Round.SENIOR:
        return
    if key.role < Role.SENIOR:
        raise ProblemError(403, Code.NOT_ALLOWED, "somebody appealed: a senior decides")
    query = "SELECT 1 FROM decisions WHERE video = ? AND key_id = ? AND track IS NULL AND n <= ?"
    if key.role < Role.ADMIN and rows.execute(query, (video.n, key.id, after)).fetchone() is not None:
        raise ProblemError(403, Code.NOT_ALLOWED, "somebody appealed: who decided before does not decide again")
