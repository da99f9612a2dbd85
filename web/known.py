"""Which videos show the same: by their bytes, their address or the prints of their pictures."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pipeline.known.matching import COPY_SHARE, Match, search
from pipeline.known.prints import ClipPrint
from web.database import Database
from web.rounds import Choice, Round
from web.videos import Video

# More than these are neither kept nor listed: of a clip that is handed in again and again, the closest and oldest.
MAX_SIMILAR: Final = 100


class Kind(StrEnum):
    """Why a video is called similar to another one, the strongest reason first."""

    SAME_FILE = "same_file"
    SAME_CONTENT = "same_content"
    SAME_SOURCE = "same_source"


@dataclass(frozen=True, slots=True)
class Similar:
    """A video that shows the same as another one, or a part of it.

    Attributes:
        kind: equal bytes, equal pictures, or else the same address.
        share: of the frames of the video that was asked for, those in this one, 0 to 1; None: not compared.
        other_share: of the frames of this one, those in the video that was asked for.
        distance: mean number of differing bits of 256 over the frames of `share`.
        decisions: on the whole clip that count now, if its review is closed.
    """

    id: str
    name: str
    kind: Kind
    share: float | None
    other_share: float | None
    distance: float | None
    decisions: Counter[Choice]

    @property
    def is_copy(self) -> bool:
        """Whether it is the same clip, perhaps encoded again; not only a part of it."""
        return self.kind is Kind.SAME_FILE or min(self.share or 0.0, self.other_share or 0.0) >= COPY_SHARE


@dataclass(frozen=True, slots=True)
class KnownDecision:
    """What people decided on a copy of a video.

    Attributes:
        similar: the copy.
        decision: of more than half of them.
        votes: how many decided so.
        of: how many decided.
    """

    similar: Similar
    decision: Choice
    votes: int
    of: int


class Known:
    """The prints of a database's videos. Safe to share between threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def keep(self, id_: str, print_: ClipPrint) -> None:
        """Keep a video's print, and which earlier videos have frames of it. Without effect if it was deleted."""
        with self._database.write() as rows:
            row = rows.execute("SELECT n FROM videos WHERE id = ?", (id_,)).fetchone()
            if row is None:
                return
            rows.execute(
                "INSERT OR REPLACE INTO prints (video, hashes, middles) VALUES (?, ?, ?)",
                (row["n"], print_.hashes, print_.middles),
            )
        # Not in the transaction: others may write meanwhile. Of two prints that come at the same time, each is kept
        # before its search, so the later search finds the other one.
        found = search(print_, self._stored(row["n"]))
        closest = sorted(found.items(), key=lambda each: (-min(each[1].share, each[1].other_share), each[0]))
        listed = [(other, match) for other, match in closest if match.is_listed][:MAX_SIMILAR]
        with self._database.write() as rows:
            rows.execute("DELETE FROM similar WHERE video = ?1 OR other = ?1", (row["n"],))
            for other, match in listed:
                _keep_pair(rows, row["n"], other, match)

    def similar(self, video: Video, key_id: str | None = None) -> Sequence[Similar]:
        """Videos with the bytes, pictures or address of a video, the closest first.

        Args:
            video: it.
            key_id: only those that this key handed in; None: any.
        """
        found = (
            self._database.read()
            .execute(
                f"""
            WITH found (n) AS (
                SELECT other FROM similar WHERE video = ?1
                UNION SELECT n FROM videos WHERE sha256 = ?2 UNION SELECT n FROM videos WHERE uri = ?3
            )
            SELECT videos.n, id, name, sha256 IS NOT NULL AND sha256 = ?2 AS same_file, share, other_share, distance
            FROM found JOIN videos USING (n) LEFT JOIN similar ON similar.video = ?1 AND similar.other = videos.n
            WHERE videos.n != ?1 AND (?4 IS NULL OR key_id = ?4)
            ORDER BY same_file DESC, min(coalesce(share, 0), coalesce(other_share, 0)) DESC, distance, videos.n
            LIMIT {MAX_SIMILAR}
            """,
                (video.n, video.upload.sha256, video.upload.uri, key_id),
            )
            .fetchall()
        )
        decided = self._decisions([row["n"] for row in found])
        return [
            Similar(
                row["id"],
                row["name"],
                _kind(row),
                row["share"],
                row["other_share"],
                row["distance"],
                decided[row["n"]],
            )
            for row in found
        ]

    def _decisions(self, numbers: Sequence[int]) -> defaultdict[int, Counter[Choice]]:
        found: defaultdict[int, Counter[Choice]] = defaultdict(Counter)
        query = (
            "SELECT video, decision, count(*) AS votes FROM decisions JOIN videos ON videos.n = decisions.video "
            "WHERE track IS NULL AND undone_s IS NULL AND round = ? AND golden IS NULL "
            f"AND videos.n IN ({', '.join('?' * len(numbers))}) GROUP BY video, decision"
        )
        # Open reviews stay blind, and known answers unknown.
        for row in self._database.read().execute(query, [Round.CLOSED, *numbers]):
            found[row["video"]][Choice(row["decision"])] = row["votes"]
        return found

    def _stored(self, except_for: int) -> Iterator[tuple[int, ClipPrint]]:
        query = "SELECT video, hashes, middles FROM prints WHERE video != ? ORDER BY video"
        for row in self._database.read().execute(query, (except_for,)):
            yield row["video"], ClipPrint(row["hashes"], row["middles"])


def known_decision(similar: Sequence[Similar]) -> KnownDecision | None:
    """What most people decided on the closest copy on which they agree; None: no copy is decided.

    "Real" counts for equal bytes only: a forgery shows the same pictures as its original but for a face.

    Args:
        similar: as `Known.similar` gives them.
    """
    for each in similar:
        of = each.decisions.total()
        if each.is_copy and of:
            decision, votes = each.decisions.most_common(1)[0]
            if 2 * votes > of and (decision is not Choice.REAL or each.kind is Kind.SAME_FILE):
                return KnownDecision(each, decision, votes, of)
    return None


def _kind(row: sqlite3.Row) -> Kind:
    if row["same_file"]:
        return Kind.SAME_FILE
    return Kind.SAME_SOURCE if row["share"] is None else Kind.SAME_CONTENT


def _keep_pair(rows: sqlite3.Connection, video: int, other: int, match: Match) -> None:
    if rows.execute("SELECT 1 FROM videos WHERE n = ?", (other,)).fetchone() is None:
        return  # deleted meanwhile
    pair = "INSERT OR REPLACE INTO similar (video, other, share, other_share, distance) SELECT ?1, ?2, ?3, ?4, ?5 "
    exists = "WHERE EXISTS (SELECT 1 FROM videos WHERE n = ?1)"
    rows.execute(pair + exists, (video, other, match.share, match.other_share, match.distance))
    rows.execute(pair + exists, (other, video, match.other_share, match.share, match.distance))
