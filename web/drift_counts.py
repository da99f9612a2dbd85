"""What drift is measured by, for each judged video: made once from its record, and kept."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from typing import Final

import structlog
from pydantic import ValidationError

from pipeline.contracts import State, Verdict
from pipeline.drift.check import Judged
from pipeline.drift.measures import Counts, counts_of
from pipeline.drift.reference import MOST_VIDEOS
from web.database import Database

log = structlog.get_logger(__name__)

_BATCH: Final = 100


def refresh(database: Database) -> Iterator[int]:
    """Count the judged videos that were not counted yet, or were judged again; yields after each batch how many."""
    query = (
        "SELECT n, finished_s, record FROM videos LEFT JOIN drift_counts AS c ON c.video = n "
        "WHERE state = ? AND record IS NOT NULL AND n > ? AND c.judged_s IS NOT finished_s ORDER BY n LIMIT ?"
    )
    after = 0
    while found := database.read().execute(query, (State.DONE, after, _BATCH)).fetchall():
        after = found[-1]["n"]
        counted = [(row, _counted(row)) for row in found]
        with database.write() as rows:
            for row, (weights, counts) in counted:
                _keep(rows, row, weights, counts)
        yield len(found)


def _counted(row: sqlite3.Row) -> tuple[str, Counts]:
    """The weights and counts of a record; empty if it cannot be read."""
    try:
        verdict = Verdict.model_validate_json(row["record"])
    except ValidationError as error:
        log.warning("a record cannot be read", video=row["n"], error=str(error))
        return "", {}
    return ",".join(verdict.provenance.weights_sha256), counts_of(verdict)


def _keep(rows: sqlite3.Connection, row: sqlite3.Row, weights: str, counts: Counts) -> None:
    # It may have been deleted meanwhile.
    rows.execute(
        "INSERT OR REPLACE INTO drift_counts (video, judged_s, weights, counts) "
        "SELECT n, ?, ?, ? FROM videos WHERE n = ?",
        (
            row["finished_s"],
            weights,
            json.dumps(counts, separators=(",", ":")),
            row["n"],
        ),
    )


def between(database: Database, since_s: float, until_s: float, *, most: int = MOST_VIDEOS) -> list[Judged]:
    """The counted videos that arrived then, each file once, the newest first.

    A video that is handed in again and again is one video: its copies are not independent.

    Args:
        database: of the service.
        since_s: Unix seconds.
        until_s: before then.
        most: at most so many.
    """
    query = (
        "SELECT max(n), id, c.weights, c.counts FROM videos JOIN drift_counts AS c ON c.video = n "
        "WHERE created_s >= ? AND created_s < ? GROUP BY coalesce(sha256, uri, id) ORDER BY max(n) DESC LIMIT ?"
    )
    return [
        Judged(row["id"], tuple(row["weights"].split(",")), json.loads(row["counts"]))
        for row in database.read().execute(query, (since_s, until_s, most))
    ]


def names_of_weights(database: Database) -> dict[str, str]:
    """What verdicts call weights, by their sha256 with commas between, from one record of each."""
    query = (
        "SELECT c.weights, json_extract(record, '$.provenance.model') AS model FROM videos "
        "JOIN drift_counts AS c ON c.video = n WHERE n IN "
        "(SELECT max(video) FROM drift_counts WHERE weights != '' GROUP BY weights)"
    )
    return {row["weights"]: row["model"] or "" for row in database.read().execute(query)}


def keep_ranks(database: Database, novelty: Mapping[str, float], typical: Mapping[str, float]) -> None:
    """Keep, for the order of lists, how unusual videos are and how typical of what has drifted; all others have none.

    Args:
        database: of the service.
        novelty: by id of the video, see `pipeline.drift.check.novelty`.
        typical: by id, see `pipeline.drift.check.typical`.
    """
    with database.write() as rows:
        rows.execute("UPDATE drift_counts SET novelty = NULL, typical = NULL WHERE coalesce(novelty, typical) NOTNULL")
        rows.executemany(
            "UPDATE drift_counts SET novelty = ?, typical = ? WHERE video = (SELECT n FROM videos WHERE id = ?)",
            [(novelty.get(id_), typical.get(id_), id_) for id_ in novelty.keys() | typical.keys()],
        )
