"""Which videos are listed, in which order."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any, Final, Literal

from pipeline.contracts import Label, Outcome, SourceClass, State, Strength
from web.database import Database
from web.problems import Code, ProblemError
from web.rounds import OPEN, Round
from web.videos import Video, video_of

Sort = Literal[
    "created",
    "-created",
    "probability",
    "-probability",
    "uncertainty",
    "-uncertainty",
    "chance",
    "-disagreement",
    "-novelty",
    "-typical",
]
MAX_PAGE: Final = 200
# Of SQLite.
_MAX_INTEGER: Final = 2**63
# Videos without a probability come last, whichever way.
_RANKS: Final[dict[str, str]] = {
    "created": "n",
    "-created": "n",
    "probability": "coalesce(probability, 2)",
    "-probability": "coalesce(probability, -1)",
    # The nearer to even odds, the more uncertain.
    "uncertainty": "coalesce(0.5 - abs(probability - 0.5), 2)",
    "-uncertainty": "coalesce(0.5 - abs(probability - 0.5), -1)",
    # A sample by chance is the same each time.
    "chance": "chance(id)",
    # Between weights: the largest change of the probability that a run by others found.
    "-disagreement": "coalesce((SELECT max(abs(rescores.probability - videos.probability)) FROM rescores "
    "WHERE video = videos.n), -1)",
    # Both are logarithms of likelihoods, see `web.drift_counts`.
    "-novelty": "coalesce((SELECT novelty FROM drift_counts WHERE video = videos.n), -1e9)",
    "-typical": "coalesce((SELECT typical FROM drift_counts WHERE video = videos.n), -1e9)",
}


@dataclass(frozen=True, slots=True)
class Filter:
    """Which videos are listed; None: any.

    Attributes:
        key_id: of who handed them in.
        name: part of their name.
        decided: whether people, or the label by policy, have decided on the clip.
        round: of reviewing.
        strength: of the evidence, see `Evidence`.
        people: at least this many.
        from_s, to_s: when they arrived, Unix seconds.
        hides_golden: clips whose answer is known count as undecided, so that a list does not show which they are.
    """

    key_id: str | None = None
    state: State | None = None
    outcome: Outcome | None = None
    label: Label | None = None
    source_class: SourceClass | None = None
    name: str | None = None
    decided: bool | None = None
    round: Round | None = None
    strength: Strength | None = None
    people: int | None = None
    from_s: float | None = None
    to_s: float | None = None
    hides_golden: bool = False

    def where(self) -> tuple[list[str], list[Any]]:
        """Conditions of SQL, and the values of their parameters."""
        columns = ("key_id", "state", "outcome", "label", "source_class", "round", "strength")
        pairs = [(column, getattr(self, column)) for column in columns]
        where = [f"{column} = ?" for column, value in pairs if value is not None]
        values: list[Any] = [value for _, value in pairs if value is not None]
        for condition, value in (
            ("instr(casefold(name), casefold(?)) > 0", self.name),
            ("people >= ?", self.people),
            ("created_s >= ?", self.from_s),
            ("created_s < ?", self.to_s),
        ):
            if value is not None:
                where.append(condition)
                values.append(value)
        if self.decided is not None:
            has_answer = "(answer IS NOT NULL AND golden IS NULL)" if self.hides_golden else "answer IS NOT NULL"
            where.append(has_answer if self.decided else f"NOT {has_answer}")
        return where, values


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the videos.

    Attributes:
        cursor: asks for the next ones; None: there are no more.
    """

    videos: list[Video]
    cursor: str | None


class VideoList:
    """The videos of a database in lists. Safe to share between threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, chosen: Filter, *, sort: Sort = "-created", limit: int = 50, cursor: str | None = None) -> Page:
        """Some of the videos.

        Args:
            chosen: which of them.
            sort: by arrival, by the probability of the most suspicious part, by how near that is to even odds, by
                chance, by how far other weights differ, by how unusual they are under the reference of drift, or by
                how typical of what has drifted; "-": the highest first. Those without come last.
            limit: 1 to `MAX_PAGE`.
            cursor: of the page before.

        Raises:
            ProblemError: the cursor is not of this list.
        """
        where, values = chosen.where()
        down, rank = sort.startswith("-"), _RANKS[sort]
        if cursor is not None:
            where.append(f"({rank}, n) {'<' if down else '>'} (?, ?)")
            values += _after(cursor, sort)
        query = f"SELECT *, {rank} AS rank FROM videos WHERE {' AND '.join(where) or '1'}"
        rows = self._database.read().execute(f"{query} ORDER BY {order_of(sort)} LIMIT ?", [*values, limit + 1])
        found = rows.fetchall()
        last = found[limit - 1] if len(found) > limit else None
        return Page(
            [video_of(row) for row in found[:limit]],
            None if last is None else _cursor([last["rank"], last["n"]], sort),
        )

    def count(self, chosen: Filter) -> int:
        """How many a list has."""
        where, values = chosen.where()
        query = f"SELECT count(*) FROM videos WHERE {' AND '.join(where) or '1'}"
        (found,) = self._database.read().execute(query, values).fetchone()
        return int(found)

    def states(self, key_id: str | None) -> dict[State, int]:
        """Videos in each state; of one key, or of all."""
        query = "SELECT state, count(*) AS found FROM videos WHERE ?1 IS NULL OR key_id = ?1 GROUP BY state"
        found = {State(row["state"]): int(row["found"]) for row in self._database.read().execute(query, (key_id,))}
        return {state: found.get(state, 0) for state in State}

    def rounds(self) -> dict[Round, int]:
        """Videos in each open round of reviewing."""
        query = "SELECT round, count(*) AS found FROM videos WHERE round IS NOT NULL GROUP BY round"
        found = {Round(row["round"]): int(row["found"]) for row in self._database.read().execute(query)}
        return {round_: found.get(round_, 0) for round_ in OPEN}


def order_of(sort: Sort) -> str:
    """The terms of SQL's ORDER BY."""
    direction = "DESC" if sort.startswith("-") else "ASC"
    return f"{_RANKS[sort]} {direction}, n {direction}"


def _cursor(after: list[float], sort: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([sort, *after]).encode()).decode().rstrip("=")


def _after(cursor: str, sort: str) -> list[float]:
    try:
        of, rank, n = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if of == sort and abs(rank) < _MAX_INTEGER and 0 <= n < _MAX_INTEGER:
            return [float(rank), int(n)]
    except (ValueError, TypeError, RecursionError, OverflowError):
        pass
    raise ProblemError(422, Code.INVALID, "the cursor is not of this list: take that of the page before")
