"""Makes and ends runs over judged videos by other weights; each step is on disk before the next one."""

from __future__ import annotations

import fcntl
import json
import os
import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.contracts import State, Verdict
from web import audit
from web.audit import Kind
from web.database import Database
from web.rescores import Judged, LeftOut, RescoreError, Run, run_of
from web.videos import Video, video_of

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class Todo:
    """A video whose turn has still to come, with what its record says of how it was judged.

    Attributes:
        detector: of faces, as in the record; likewise `input_spec` and `sha256`, of the weights.
        tries: how often the process ended while the run judged this video.
    """

    id: str
    detector: str
    input_spec: str
    sha256: tuple[str, ...]
    tries: int


class Runs:
    """The runs of a database, as the command changes them. Safe to share between threads.

    Args:
        database: of the service, which may be running.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(
        self, name: str, weights: str, sha256: Sequence[str], since_s: float | None, until_s: float | None
    ) -> Run:
        """Begin a run, or go on with it.

        Raises:
            RescoreError: the name is invalid, or that of a run with other weights or times, or its notices are sent.
        """
        if not _NAME.fullmatch(name):
            raise RescoreError(f"a run's name has 1 to 64 letters, digits, '.', '_' and '-'; got {name!r}")
        with self._database.write() as rows:
            row = rows.execute("SELECT * FROM rescore_runs WHERE name = ?", (name,)).fetchone()
            if row is None:
                rows.execute(
                    "INSERT INTO rescore_runs (name, weights, sha256, since_s, until_s, begun_s) "
                    "VALUES (?, ?, ?, ?, ?, ?)",
                    (name, weights, json.dumps(list(sha256)), since_s, until_s, time.time()),
                )
                audit.append(rows, Kind.RESCORING, what="begun", run=name, weights=weights, weights_sha256=list(sha256))
            else:
                run = run_of(row)
                if run.sha256 != tuple(sha256):
                    raise RescoreError(
                        f"run {name} is one of other weights ({run.weights}, sha256 {', '.join(run.sha256)}): "
                        "give another name by --run"
                    )
                if (run.since_s, run.until_s) != (since_s, until_s):
                    raise RescoreError(
                        f"run {name} was begun with other --since or --until: give the same ones, or another --run"
                    )
                if run.notified_s is not None:
                    raise RescoreError(f"the notices of run {name} are sent, so it is closed: give another --run")
            run = run_of(rows.execute("SELECT * FROM rescore_runs WHERE name = ?", (name,)).fetchone())
            where, values = _judged_within(run.since_s, run.until_s)
            rows.execute(
                "INSERT OR IGNORE INTO rescores (run, video, left_out) SELECT ?, v.n, ? FROM videos AS v "
                f"WHERE {where} AND v.uri IS NOT NULL",
                (run.n, LeftOut.BY_URI, *values),
            )
        return run

    def todo(self, run: Run) -> list[Todo]:
        """The videos that a run has still to judge, by time of arrival."""
        where, values = _judged_within(run.since_s, run.until_s)
        return _todo(self._database.read(), run.n, f"{where} AND r.record IS NULL AND r.left_out IS NULL", values)

    def is_empty(self, since_s: float | None, until_s: float | None) -> bool:
        """Whether no video was judged then."""
        where, values = _judged_within(since_s, until_s)
        return self._database.read().execute(f"SELECT 1 FROM videos AS v WHERE {where}", values).fetchone() is None

    def judged(self, since_s: float | None, until_s: float | None) -> list[Todo]:
        """All videos that were judged then, by time of arrival."""
        return _todo(self._database.read(), None, *_judged_within(since_s, until_s))

    def video(self, id_: str) -> tuple[Video, Verdict] | None:
        """A video with its verdict; None: it was deleted, or has no verdict."""
        row = self._database.read().execute("SELECT * FROM videos WHERE id = ?", (id_,)).fetchone()
        if row is None or row["record"] is None:
            return None
        return video_of(row), Verdict.model_validate_json(row["record"])

    def attempt(self, run: Run, video: Video) -> int:
        """Count one more try, which may end the process; returns how many there were before. 0 if it was deleted."""
        with self._database.write() as rows:
            row = rows.execute(
                "INSERT INTO rescores (run, video, tries) SELECT ?, n, 1 FROM videos WHERE n = ? "
                "ON CONFLICT (run, video) DO UPDATE SET tries = tries + 1 RETURNING tries",
                (run.n, video.n),
            ).fetchone()
        return 0 if row is None else int(row["tries"]) - 1

    def release(self, run: Run, video: Video) -> None:
        """Take a try back that ended through no fault of the video."""
        with self._database.write() as rows:
            rows.execute(
                "UPDATE rescores SET tries = max(0, tries - 1) WHERE run = ? AND video = ? AND record IS NULL",
                (run.n, video.n),
            )

    def finish(
        self, run: Run, video: Video, before: Verdict, after: Verdict, replayed: str | None, *, in_redis: bool
    ) -> None:
        """Keep a verdict, unless the run has one of this video, or the video was deleted meanwhile.

        Args:
            run: it.
            video: as it was when it was judged again.
            before: the verdict that it had then.
            after: the new one.
            replayed: see `Rescored`.
            in_redis: it goes to Redis next, see `RescoredKeys`: its id is noted before.
        """
        old, new = Judged.of(before), Judged.of(after)
        values = (time.time(), new.outcome, new.label, new.probability, after.to_json())
        with self._database.write() as rows:
            if rows.execute("SELECT 1 FROM videos WHERE n = ?", (video.n,)).fetchone() is None:
                return
            rows.execute(
                "INSERT INTO rescores (run, video, finished_s, outcome, label, probability, record, before, before_s, "
                "replayed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (run, video) DO UPDATE SET "
                "finished_s = excluded.finished_s, outcome = excluded.outcome, label = excluded.label, "
                "probability = excluded.probability, record = excluded.record, before = excluded.before, "
                "before_s = excluded.before_s, replayed = excluded.replayed, left_out = NULL WHERE record IS NULL",
                (run.n, video.n, *values, json.dumps(asdict(old)), video.finished_s, replayed),
            )
            if in_redis:
                rows.execute("INSERT OR IGNORE INTO rescore_keys (video) VALUES (?)", (video.id,))

    def leave_out(self, run: Run, video: Video, reason: LeftOut) -> None:
        """Note why a video has no verdict in a run; without effect if it was deleted meanwhile."""
        with self._database.write() as rows:
            rows.execute(
                "INSERT INTO rescores (run, video, left_out) SELECT ?, n, ? FROM videos WHERE n = ? "
                "ON CONFLICT (run, video) DO UPDATE SET left_out = excluded.left_out WHERE record IS NULL",
                (run.n, reason, video.n),
            )

    def settle(self, run: Run, *, is_done: bool) -> Run:
        """Note whether nothing is left to do; the time until notices counts from there."""
        with self._database.write() as rows:
            if not is_done:
                rows.execute("UPDATE rescore_runs SET ended_s = NULL WHERE n = ?", (run.n,))
            elif rows.execute("SELECT ended_s FROM rescore_runs WHERE n = ?", (run.n,)).fetchone()["ended_s"] is None:
                query = "SELECT count(*) FROM rescores WHERE run = ? AND record IS NOT NULL"
                (count,) = rows.execute(query, (run.n,)).fetchone()
                rows.execute("UPDATE rescore_runs SET ended_s = ? WHERE n = ?", (time.time(), run.n))
                audit.append(rows, Kind.RESCORING, what="ended", run=run.name, videos=count)
            return run_of(rows.execute("SELECT * FROM rescore_runs WHERE n = ?", (run.n,)).fetchone())

    def check_not_notified(self, run: Run) -> None:
        """Return if a run may be dropped.

        Raises:
            RescoreError: notices of it were sent.
        """
        query = "SELECT count(notified_s) FROM rescores WHERE run = ?"
        (notified,) = self._database.read().execute(query, (run.n,)).fetchone()
        if notified or run.notified_s is not None:
            raise RescoreError(f"notices of run {run.name} were sent, so it stays")

    def drop(self, run: Run) -> int:
        """Delete a run with its records; returns their number."""
        with self._database.write() as rows:
            (count,) = rows.execute("SELECT count(record) FROM rescores WHERE run = ?", (run.n,)).fetchone()
            rows.execute("DELETE FROM rescore_runs WHERE n = ?", (run.n,))
            audit.append(rows, Kind.RESCORING, what="dropped", run=run.name, videos=count)
        self._database.erase()
        return int(count)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process at a time changes the runs of a service's folder.

    Raises:
        RescoreError: another one does now.
        OSError: the folder cannot be written.
    """
    opened = os.open(folder / "rescore.lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RescoreError(f"{folder}: another `unmask rescore` works there: wait for it, or end it") from error
        yield
    finally:
        os.close(opened)


def _todo(rows: sqlite3.Connection, run: int | None, where: str, values: Sequence[Any]) -> list[Todo]:
    """Of videos `v` with their rows `r` in a run."""
    detector, spec, sha256 = (
        f"json_extract(v.record, '$.provenance.{name}') AS {name}"
        for name in ("detector", "input_spec", "weights_sha256")
    )
    found = rows.execute(
        f"SELECT v.id, {detector}, {spec}, {sha256}, coalesce(r.tries, 0) AS tries FROM videos AS v "
        f"LEFT JOIN rescores AS r ON r.run = ? AND r.video = v.n WHERE {where} ORDER BY v.n",
        (run, *values),
    )
    return [
        Todo(
            row["id"],
            row["detector"] or "",
            row["input_spec"] or "",
            tuple(json.loads(row["weights_sha256"] or "[]")),
            row["tries"],
        )
        for row in found
    ]


def _judged_within(since_s: float | None, until_s: float | None) -> tuple[str, tuple[Any, ...]]:
    """Of videos `v`, those that were judged then, in SQL with its values."""
    where = "v.state = ? AND v.record IS NOT NULL AND v.finished_s >= ? AND v.finished_s < ?"
    return where, (State.DONE, since_s or 0.0, until_s or 1e300)
