"""Videos that were handed in: from the upload to the verdict and what people decide on it."""

from __future__ import annotations

import base64
import json
import secrets
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final, Literal

from pipeline.clip_report import AppliedThresholds, ClipReport
from pipeline.contracts import Label, Outcome, SourceClass, State, Verdict
from pipeline.portraits import Portrait
from web.database import Database
from web.problems import Code, ProblemError, busy, not_found
from web.webhooks import Notify, WebhookEvent

Sort = Literal["created", "-created", "probability", "-probability"]
MAX_PAGE: Final = 200
# The service died this often while it judged a video: that is what kills it. After the first time it is judged alone.
MAX_CRASHES: Final = 3
UNDO_S: Final = 300.0
# Of SQLite.
_MAX_INTEGER: Final = 2**63


class Choice(StrEnum):
    """What a person decides on a clip, or on one of its people."""

    FAKE = "fake"
    REAL = "real"
    UNSURE = "unsure"
    NOT_APPLICABLE = "not_applicable"


@dataclass(frozen=True, slots=True)
class Upload:
    """What a client hands in.

    Attributes:
        name: of the file, as the client calls it.
        source_class: see `SourceClass`.
        idempotency: the client's name for this request: a second one with it is the same upload.
        uri: where the video is, if it was not uploaded.
        media_type: by its first bytes; None for a URI.
        size_bytes: None for a URI.
        sha256: of the file, in hex; None for a URI.
    """

    name: str
    source_class: SourceClass
    idempotency: str | None = None
    uri: str | None = None
    media_type: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Video:
    """A row of the table.

    Attributes:
        n: its number, by time of arrival.
        version: grows with each change.
        tries: times that the service died while it judged this video; one more while it does.
    """

    n: int
    id: str
    version: int
    key_id: str
    upload: Upload
    state: State
    tries: int
    created_s: float
    started_s: float | None
    finished_s: float | None
    outcome: Outcome | None
    label: Label | None
    probability: float | None
    people: int | None


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person decided.

    Attributes:
        track: the person in the clip; None: the clip.
        reason: of the policy, free text.
        by: id of the key.
        made_s: Unix seconds.
        undone_s: Unix seconds; None: it counts.
    """

    n: int
    track: int | None
    decision: Choice
    reason: str
    comment: str
    by: str
    made_s: float
    undone_s: float | None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which videos are listed; None: any.

    Attributes:
        key_id: of who handed them in.
        name: part of their name.
        decided: whether someone has decided on the clip.
    """

    key_id: str | None = None
    state: State | None = None
    outcome: Outcome | None = None
    label: Label | None = None
    source_class: SourceClass | None = None
    name: str | None = None
    decided: bool | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the videos.

    Attributes:
        cursor: asks for the next ones; None: there are no more.
    """

    videos: list[Video]
    cursor: str | None


class Videos:
    """The videos of a database. Safe to share between threads.

    Args:
        database: it.
        notify: stores a message to webhooks, in the transaction of the change that it is about.
        max_waiting: more than this many are not accepted.
    """

    def __init__(self, database: Database, notify: Notify, *, max_waiting: int = 10_000) -> None:
        self._database = database
        self._notify = notify
        self._max_waiting = max_waiting

    def accept(self, upload: Upload, key_id: str, id_: str) -> tuple[Video, bool]:
        """Queue a video; it will be judged even if the process ends now.

        Returns:
            The video, and whether it is new: a repeated request gives the one that it made before.

        Raises:
            ProblemError: too many are waiting.
        """
        with self._database.write() as rows:
            if (earlier := self._earlier(rows, upload.idempotency, key_id)) is not None:
                return earlier, False
            (waiting,) = rows.execute("SELECT count(*) FROM videos WHERE state = ?", (State.QUEUED,)).fetchone()
            if waiting >= self._max_waiting:
                raise busy(f"{waiting} videos are waiting to be judged", 10)
            rows.execute(
                "INSERT INTO videos (id, key_id, idempotency, name, source_class, uri, media_type, size_bytes, sha256, "
                "state, created_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    id_,
                    key_id,
                    upload.idempotency,
                    upload.name,
                    upload.source_class,
                    upload.uri,
                    upload.media_type,
                    upload.size_bytes,
                    upload.sha256,
                    State.QUEUED,
                    time.time(),
                ),
            )
            return _video(rows.execute("SELECT * FROM videos WHERE id = ?", (id_,)).fetchone()), True

    def earlier(self, idempotency: str | None, key_id: str) -> Video | None:
        """The video of an earlier request with this name, if there was one."""
        return self._earlier(self._database.read(), idempotency, key_id)

    def is_full(self) -> bool:
        """Whether another upload would be refused."""
        query = "SELECT count(*) FROM videos WHERE state = ?"
        (waiting,) = self._database.read().execute(query, (State.QUEUED,)).fetchone()
        return bool(waiting >= self._max_waiting)

    def take(self) -> Video | None:
        """The video that has waited longest, uploads before archives; it is running now. None: nobody waits."""
        with self._database.write() as rows:
            row = rows.execute(
                "SELECT id FROM videos WHERE state = ? ORDER BY source_class = ?, n LIMIT 1",
                (State.QUEUED, SourceClass.ARCHIVE),
            ).fetchone()
            if row is None:
                return None
            rows.execute(
                "UPDATE videos SET state = ?, started_s = ?, version = version + 1 WHERE id = ?",
                (State.RUNNING, time.time(), row["id"]),
            )
            # Within the transaction: it may be deleted right after.
            return _video(rows.execute("SELECT * FROM videos WHERE id = ?", (row["id"],)).fetchone())

    def begin(self, id_: str) -> None:
        """Judging a video begins: if the process dies meanwhile, that may be why."""
        with self._database.write() as rows:
            rows.execute("UPDATE videos SET tries = tries + 1 WHERE id = ?", (id_,))

    def requeue(self, id_: str) -> None:
        """Let a running video wait again, for a reason other than a crash."""
        with self._database.write() as rows:
            rows.execute(
                "UPDATE videos SET state = ?, tries = max(0, tries - 1), version = version + 1 "
                "WHERE id = ? AND state = ?",
                (State.QUEUED, id_, State.RUNNING),
            )

    def requeue_all(self) -> int:
        """Let those wait again that were running when the service ended; returns their number."""
        with self._database.write() as rows:
            return rows.execute(
                "UPDATE videos SET state = ?, version = version + 1 WHERE state = ?", (State.QUEUED, State.RUNNING)
            ).rowcount

    def finish(self, id_: str, report: ClipReport) -> Video | None:
        """Keep a verdict and its pictures; None if the video was deleted meanwhile."""
        verdict = report.verdict
        shown = {person.track for person in verdict.people}
        portraits = [
            (kind, portrait)
            for kind, portraits in (("suspicious", report.suspicious), ("clearest", report.clearest))
            for portrait in portraits
            if portrait.track in shown
        ]
        with self._database.write() as rows:
            row = rows.execute("SELECT n, key_id, name FROM videos WHERE id = ?", (id_,)).fetchone()
            if row is None:
                return None
            rows.execute(
                "UPDATE videos SET state = ?, finished_s = ?, outcome = ?, label = ?, probability = ?, people = ?, "
                "record = ?, thresholds = ?, sha256 = coalesce(sha256, ?), version = version + 1 WHERE id = ?",
                (
                    State.DONE,
                    time.time(),
                    verdict.outcome,
                    verdict.label,
                    verdict.suspicion,
                    len(verdict.people),
                    verdict.to_json(),
                    None if report.thresholds is None else json.dumps(asdict(report.thresholds)),
                    verdict.provenance.source_sha256,
                    id_,
                ),
            )
            rows.execute("DELETE FROM portraits WHERE video = ?", (row["n"],))
            rows.executemany(
                "INSERT INTO portraits (video, track, i, kind, t_s, probability, quality, jpeg) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (row["n"], each.track, i, kind, each.t_s, each.probability, each.quality, each.jpeg)
                    for i, (kind, each) in enumerate(portraits)
                ],
            )
            found = {"outcome": verdict.outcome, "label": verdict.label, "probability": verdict.suspicion}
            events = [WebhookEvent.FINISHED]
            if verdict.label is Label.FAKE:
                events.append(WebhookEvent.FLAGGED)
            if verdict.outcome is not Outcome.SCORED:
                events.append(WebhookEvent.FAILED)
            for event in events:
                self._notify(rows, row["key_id"], event, {"video": id_, "name": row["name"], **found})
            return _video(rows.execute("SELECT * FROM videos WHERE id = ?", (id_,)).fetchone())

    def get(self, id_: str, key_id: str | None = None) -> Video:
        """A video by its id.

        Args:
            id_: its id.
            key_id: only if this key handed it in; None: any.

        Raises:
            ProblemError: there is no such video.
        """
        row = self._row(id_)
        if row is None or (key_id is not None and row["key_id"] != key_id):
            raise not_found("video")
        return _video(row)

    def report(self, video: Video) -> ClipReport | None:
        """The verdict with its pictures; None before the video was judged."""
        row = self._row(video.id)
        if row is None or row["record"] is None:
            return None
        found = self._database.read().execute("SELECT * FROM portraits WHERE video = ? ORDER BY track, i", (video.n,))
        portraits: dict[str, list[Portrait]] = {"suspicious": [], "clearest": []}
        for each in found:
            portraits[each["kind"]].append(
                Portrait(each["track"], each["t_s"], each["probability"], each["quality"], each["jpeg"])
            )
        thresholds = None if row["thresholds"] is None else AppliedThresholds(**json.loads(row["thresholds"]))
        return ClipReport(
            Verdict.model_validate_json(row["record"]),
            tuple(portraits["suspicious"]),
            tuple(portraits["clearest"]),
            thresholds,
        )

    def crop(self, video: Video, track: int, i: int) -> bytes | None:
        """A person's picture as JPEG; None: there is no such."""
        query = "SELECT jpeg FROM portraits WHERE video = ? AND track = ? ORDER BY i LIMIT 1 OFFSET ?"
        row = self._database.read().execute(query, (video.n, track, i)).fetchone()
        return None if row is None else row["jpeg"]

    def delete(self, id_: str) -> None:
        """Delete a video with everything that is known of it.

        Raises:
            ProblemError: there is no such video.
        """
        with self._database.write() as rows:
            if not rows.execute("DELETE FROM videos WHERE id = ?", (id_,)).rowcount:
                raise not_found("video")

    def list(self, chosen: Filter, *, sort: Sort = "-created", limit: int = 50, cursor: str | None = None) -> Page:
        """Some of the videos.

        Args:
            chosen: which of them.
            sort: by number or by the probability of the most suspicious part, "-": the highest first. Those without a
                probability come last.
            limit: 1 to `MAX_PAGE`.
            cursor: of the page before.

        Raises:
            ProblemError: the cursor is not of this list.
        """
        where, values = _where(chosen)
        down = sort.startswith("-")
        ranked = sort.lstrip("-") == "probability"
        rank = f"coalesce(probability, {'-1' if down else '2'})" if ranked else "n"
        if cursor is not None:
            after = _after(cursor, sort)
            where.append(f"({rank}, n) {'<' if down else '>'} (?, ?)")
            values += after
        order = "DESC" if down else "ASC"
        rows = self._database.read().execute(
            f"SELECT *, {rank} AS rank FROM videos WHERE {' AND '.join(where) or '1'} "
            f"ORDER BY {rank} {order}, n {order} LIMIT ?",
            [*values, limit + 1],
        )
        found = rows.fetchall()
        last = found[limit - 1] if len(found) > limit else None
        return Page(
            [_video(row) for row in found[:limit]],
            None if last is None else _cursor([last["rank"], last["n"]], sort),
        )

    def counts(self, key_id: str | None) -> dict[State, int]:
        """Videos in each state; of one key, or of all."""
        query = "SELECT state, count(*) AS found FROM videos WHERE ?1 IS NULL OR key_id = ?1 GROUP BY state"
        found = {State(row["state"]): int(row["found"]) for row in self._database.read().execute(query, (key_id,))}
        return {state: found.get(state, 0) for state in State}

    def decide(
        self, video: Video, by: str, decision: Choice, *, track: int | None, reason: str, comment: str
    ) -> Decision:
        """Record a decision; it replaces the person's earlier one on the same clip or person.

        Raises:
            ProblemError: there is no verdict yet, or no such person in it.
        """
        report = self.report(video)
        if report is None:
            raise ProblemError(409, Code.CONFLICT, f"this video is {video.state}: there is no verdict to decide on yet")
        if track is not None and track not in {person.track for person in report.verdict.people}:
            raise not_found("person in this video")
        now_s = time.time()
        with self._database.write() as rows:
            rows.execute(
                "UPDATE decisions SET undone_s = ? WHERE video = ? AND track IS ? AND key_id = ? AND undone_s IS NULL",
                (now_s, video.n, track, by),
            )
            n = rows.execute(
                "INSERT INTO decisions (video, track, decision, reason, comment, key_id, made_s) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (video.n, track, decision, reason, comment, by, now_s),
            ).lastrowid
            rows.execute("UPDATE videos SET version = version + 1 WHERE n = ?", (video.n,))
            self._decided(rows, video, decision, track, by, undone=False)
        return Decision(int(n or 0), track, decision, reason, comment, by, now_s, None)

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
                raise not_found("decision of yours on this video")
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
            rows.execute("UPDATE videos SET version = version + 1 WHERE n = ?", (video.n,))
            self._decided(rows, video, row["decision"], row["track"], by, undone=True)
        return _decision(row, undone_s=now_s)

    def decisions(self, video: Video) -> Sequence[Decision]:
        """All decisions on a clip and its people, with those that were undone or replaced, by time."""
        rows = self._database.read().execute("SELECT * FROM decisions WHERE video = ? ORDER BY n", (video.n,))
        return [_decision(row, undone_s=row["undone_s"]) for row in rows]

    def _decided(
        self, rows: sqlite3.Connection, video: Video, decision: str, track: int | None, by: str, *, undone: bool
    ) -> None:
        data = {"video": video.id, "name": video.upload.name, "decision": decision, "track": track, "by": by}
        self._notify(rows, video.key_id, WebhookEvent.DECIDED, {**data, "undone": undone})

    def _row(self, id_: str) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._database.read().execute("SELECT * FROM videos WHERE id = ?", (id_,)).fetchone()
        return row

    def _earlier(self, rows: sqlite3.Connection, idempotency: str | None, key_id: str) -> Video | None:
        if idempotency is None:
            return None
        query = "SELECT * FROM videos WHERE key_id = ? AND idempotency = ?"
        row = rows.execute(query, (key_id, idempotency)).fetchone()
        return None if row is None else _video(row)


def new_id() -> str:
    """The id of a video: 96 random bits."""
    return secrets.token_hex(12)


def _where(chosen: Filter) -> tuple[list[str], list[Any]]:
    columns = ("key_id", "state", "outcome", "label", "source_class")
    pairs = [(column, getattr(chosen, column)) for column in columns]
    where = [f"{column} = ?" for column, value in pairs if value is not None]
    values: list[Any] = [value for _, value in pairs if value is not None]
    if chosen.name is not None:
        where.append("instr(lower(name), lower(?)) > 0")
        values.append(chosen.name)
    if chosen.decided is not None:
        exists = "EXISTS (SELECT 1 FROM decisions WHERE video = videos.n AND track IS NULL AND undone_s IS NULL)"
        where.append(exists if chosen.decided else f"NOT {exists}")
    return where, values


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


def _video(row: sqlite3.Row) -> Video:
    upload = Upload(
        row["name"],
        SourceClass(row["source_class"]),
        row["idempotency"],
        row["uri"],
        row["media_type"],
        row["size_bytes"],
        row["sha256"],
    )
    return Video(
        row["n"],
        row["id"],
        row["version"],
        row["key_id"],
        upload,
        State(row["state"]),
        row["tries"],
        row["created_s"],
        row["started_s"],
        row["finished_s"],
        None if row["outcome"] is None else Outcome(row["outcome"]),
        None if row["label"] is None else Label(row["label"]),
        row["probability"],
        row["people"],
    )


def _decision(row: sqlite3.Row, *, undone_s: float | None) -> Decision:
    return Decision(
        row["n"],
        row["track"],
        Choice(row["decision"]),
        row["reason"],
        row["comment"],
        row["key_id"],
        row["made_s"],
        undone_s,
    )
