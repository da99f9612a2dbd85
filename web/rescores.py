"""Verdicts on judged videos by other weights: runs and their records, beside the verdicts that videos have."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from models.errors import UnmaskError
from pipeline.contracts import Label, Outcome, Verdict
from web import audit
from web.audit import Kind
from web.database import Database
from web.problems import not_found
from web.videos import Video


class RescoreError(UnmaskError):
    """A run cannot do what was asked for."""


class LeftOut(StrEnum):
    """Why a judged video has no verdict by other weights. Reasons may be added."""

    BY_URI = "by_uri"
    FILE_GONE = "file_gone"
    FILE_CHANGED = "file_changed"
    OTHER_OPTIONS = "other_options"

    @property
    def text(self) -> str:
        """In words, of several videos."""
        return _TEXTS[self]


_TEXTS: Final = {
    LeftOut.BY_URI: "were handed in by a URI: their files are not here",
    LeftOut.FILE_GONE: "have no file any more",
    LeftOut.FILE_CHANGED: "have another file than the one that was judged",
    LeftOut.OTHER_OPTIONS: "were judged with a sampling or face detector that this version does not know",
}


@dataclass(frozen=True, slots=True)
class Run:
    """A run over judged videos.

    Attributes:
        weights: what verdicts call the model.
        sha256: of the checkpoints.
        since_s: only videos that were judged from then on; Unix seconds, as all times; None: all.
        until_s: only videos that were judged before; None: all.
        begun_s: the first time.
        ended_s: when nothing was left to do; None: something is.
        notified_s: when its notices were sent; None: they were not.
    """

    n: int
    name: str
    weights: str
    sha256: tuple[str, ...]
    since_s: float | None
    until_s: float | None
    begun_s: float
    ended_s: float | None
    notified_s: float | None


@dataclass(frozen=True, slots=True)
class Judged:
    """What a verdict says in short.

    Attributes:
        probability: of the most suspicious part; None unless scored.
        weights: what the verdict calls the model.
        sha256: of its checkpoints.
    """

    outcome: Outcome
    label: Label | None
    probability: float | None
    weights: str
    sha256: tuple[str, ...]

    @classmethod
    def of(cls, verdict: Verdict) -> Judged:
        """Of a record."""
        made_by = verdict.provenance
        return cls(verdict.outcome, verdict.label, verdict.suspicion, made_by.model, tuple(made_by.weights_sha256))

    @property
    def word(self) -> str:
        """Label, or the outcome of what has no label."""
        return self.label or self.outcome


@dataclass(frozen=True, slots=True)
class Rescored:
    """A video with its verdict in a run, and the one that it had then.

    Attributes:
        answer: what people decided; None: the review is open, or the label decided.
        finished_s: Unix seconds.
        is_replaced: the video was judged again since, so `before` is not its verdict any more.
        replayed: of a run with the weights of `before`, the first difference of the records, empty if they are equal;
            None: the weights are others.
        is_notified: notices were sent.
    """

    run: str
    video: str
    name: str
    owner: str
    answer: str | None
    before: Judged
    after: Judged
    finished_s: float
    is_replaced: bool
    replayed: str | None
    is_notified: bool


class Rescores:
    """What the runs of a database have found. Safe to share between threads.

    Args:
        database: of the service, which may be running.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[Run]:
        """The runs, the oldest first."""
        return [run_of(row) for row in self._database.read().execute("SELECT * FROM rescore_runs ORDER BY n")]

    def get(self, name: str) -> Run:
        """A run by its name.

        Raises:
            RescoreError: there is no such run.
        """
        row = self._database.read().execute("SELECT * FROM rescore_runs WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise RescoreError(f"no run is called {name}; `unmask rescore list` shows them")
        return run_of(row)

    def of_run(self, run: Run) -> list[Rescored]:
        """The videos with a verdict in a run, by time of arrival; deleted ones are in no run."""
        return self._rescored("r.run = ? ORDER BY r.video", run.n)

    def of_video(self, video: Video) -> list[Rescored]:
        """The verdicts on a video in all runs, the oldest run first."""
        return self._rescored("r.video = ? ORDER BY r.run", video.n)

    def record(self, video: Video, run: str) -> str:
        """The record of a video in a run.

        Raises:
            ProblemError: there is no such record.
        """
        query = "SELECT record FROM rescores JOIN rescore_runs AS u ON u.n = run WHERE video = ? AND u.name = ?"
        row = self._database.read().execute(query, (video.n, run)).fetchone()
        if row is None or row["record"] is None:
            raise not_found("record of this video in a run of this name")
        return str(row["record"])

    def left_out(self, run: Run) -> dict[LeftOut, int]:
        """How many videos have no verdict in a run, by the reason."""
        query = "SELECT left_out, count(*) AS n FROM rescores WHERE run = ? AND left_out IS NOT NULL GROUP BY left_out"
        return {LeftOut(row["left_out"]): row["n"] for row in self._database.read().execute(query, (run.n,))}

    def deleted(self, run: Run) -> int:
        """How many videos of the time of a run were deleted, or their time was over: by the audit log."""
        kind, video, at = (audit.FIELD.format(name) for name in ("kind", "video", "at"))
        since, until = (None if at_s is None else audit.moment(at_s) for at_s in (run.since_s, run.until_s))
        (count,) = (
            self._database.read()
            .execute(
                f"SELECT count(DISTINCT {video}) FROM audit WHERE {kind} = ? AND {video} IN "
                f"(SELECT {video} FROM audit WHERE {kind} = ? AND {at} >= ? AND {at} < ?)",
                (Kind.DELETED, Kind.JUDGED, since or "", until or "~"),
            )
            .fetchone()
        )
        return int(count)

    def _rescored(self, where: str, *values: Any) -> list[Rescored]:
        found = self._database.read().execute(
            "SELECT r.finished_s AS at_s, r.outcome, r.label, r.probability, r.before, r.replayed, r.notified_s, "
            "r.before_s IS NOT v.finished_s AS is_replaced, v.id, v.name, v.key_id, "
            "CASE WHEN v.round = 'closed' THEN v.answer END AS answer, u.name AS run, u.weights, u.sha256 "
            "FROM rescores AS r JOIN videos AS v ON v.n = r.video JOIN rescore_runs AS u ON u.n = r.run "
            f"WHERE r.record IS NOT NULL AND {where}",
            values,
        )
        return [_rescored(row) for row in found]


def run_of(row: sqlite3.Row) -> Run:
    """A row of the table."""
    return Run(
        row["n"],
        row["name"],
        row["weights"],
        tuple(json.loads(row["sha256"])),
        row["since_s"],
        row["until_s"],
        row["begun_s"],
        row["ended_s"],
        row["notified_s"],
    )


def _rescored(row: sqlite3.Row) -> Rescored:
    before = json.loads(row["before"])
    label = before["label"]
    return Rescored(
        row["run"],
        row["id"],
        row["name"],
        row["key_id"],
        row["answer"],
        Judged(
            Outcome(before["outcome"]),
            None if label is None else Label(label),
            before["probability"],
            before["weights"],
            tuple(before["sha256"]),
        ),
        Judged(
            Outcome(row["outcome"]),
            None if row["label"] is None else Label(row["label"]),
            row["probability"],
            row["weights"],
            tuple(json.loads(row["sha256"])),
        ),
        row["at_s"],
        bool(row["is_replaced"]),
        row["replayed"],
        row["notified_s"] is not None,
    )
