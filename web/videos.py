"""Videos that were handed in: from the upload to the verdict and what people decide on it."""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Final

from pipeline import tracing
from pipeline.clip_report import AppliedThresholds, ClipReport
from pipeline.contracts import Label, Outcome, SourceClass, State, Verdict
from pipeline.credentials import Credentials
from pipeline.portraits import Portrait
from pipeline.video.window import Window, asked_part
from web import audit
from web.audit import Kind
from web.database import Database
from web.keys import Role
from web.problems import Code, ProblemError, busy, not_found
from web.rounds import Choice, Policy, Round, Standing, standing
from web.webhooks import Notify, WebhookEvent

# The service died this often while it judged a video: that is what kills it. After the first time it is judged alone.
MAX_CRASHES: Final = 3


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
        start_s: only what follows is judged; None: from the start of the video.
        end_s: only what is before it is judged; None: to the end of the video.
    """

    name: str
    source_class: SourceClass
    idempotency: str | None = None
    uri: str | None = None
    media_type: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    start_s: float | None = None
    end_s: float | None = None

    @property
    def part(self) -> Window | None:
        """The part of the video that is judged; None: all of it.

        Raises:
            ValueError: there is no such part.
        """
        return asked_part(self.start_s, self.end_s)


@dataclass(frozen=True, slots=True)
class Video:
    """A row of the table.

    Attributes:
        n: its number, by time of arrival.
        version: grows with each change.
        tries: times that the service died while it judged this video; one more while it does.
        round: of reviewing; None before it is judged.
        answer: what the reviewing came to; None: it is open.
        golden: its answer is known, and it checks reviewers; None: it does not.
        trace: of the request that handed it in, see `tracing.carry`.
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
    round: Round | None
    answer: Choice | None
    golden: Choice | None
    trace: str | None


class Videos:
    """The videos of a database. Safe to share between threads.

    Args:
        database: it.
        notify: stores a message to webhooks, in the transaction of the change that it is about.
        policy: how much is reviewed.
        max_waiting: more than this many are not accepted.
    """

    def __init__(
        self, database: Database, notify: Notify, policy: Policy | None = None, *, max_waiting: int = 10_000
    ) -> None:
        self._database = database
        self._notify = notify
        self._policy = policy or Policy()
        self._max_waiting = max_waiting

    def accept(
        self, upload: Upload, key_id: str, id_: str, also: Callable[[sqlite3.Connection, Video], None] | None = None
    ) -> tuple[Video, bool]:
        """Queue a video; it will be judged even if the process ends now.

        Args:
            upload: it.
            key_id: of who hands it in.
            id_: of the video, if it is new.
            also: done in the same transaction, with the video, even if too many are waiting.

        Returns:
            The video, and whether it is new: a repeated request gives the one that it made before.

        Raises:
            ProblemError: too many are waiting, or the request that is repeated handed in something else.
        """
        with self._database.write() as rows:
            if (earlier := self._earlier(rows, upload.idempotency, key_id)) is not None:
                _check_same(upload, earlier.upload)
                if also is not None:
                    also(rows, earlier)
                return earlier, False
            (waiting,) = rows.execute("SELECT count(*) FROM videos WHERE state = ?", (State.QUEUED,)).fetchone()
            if waiting >= self._max_waiting and also is None:
                raise busy(f"{waiting} videos are waiting to be judged", 10)
            rows.execute(
                "INSERT INTO videos (id, key_id, idempotency, name, source_class, uri, media_type, size_bytes, sha256, "
                "start_s, end_s, trace, state, created_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
                    upload.start_s,
                    upload.end_s,
                    tracing.carry(),
                    State.QUEUED,
                    # As clients see it, in whole microseconds: they may ask for those from this moment on.
                    datetime.fromtimestamp(time.time(), UTC).timestamp(),
                ),
            )
            made = self._read(rows, id_)
            if also is not None:
                also(rows, made)
            return made, True

    def earlier(self, idempotency: str | None, key_id: str) -> Video | None:
        """The video of an earlier request with this name, if there was one."""
        return self._earlier(self._database.read(), idempotency, key_id)

    def check_waiting(self) -> None:
        """Return if another upload would be accepted now.

        Raises:
            ProblemError: too many are waiting.
        """
        query = "SELECT count(*) FROM videos WHERE state = ?"
        (waiting,) = self._database.read().execute(query, (State.QUEUED,)).fetchone()
        if waiting >= self._max_waiting:
            raise busy(f"{waiting} videos are waiting to be judged", 10)

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
            return self._read(rows, row["id"])

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
        with self._database.write() as rows:
            row = rows.execute("SELECT n, key_id, name, trace FROM videos WHERE id = ?", (id_,)).fetchone()
            if row is None:
                return None
            rows.execute(
                "UPDATE videos SET state = ?, finished_s = ?, outcome = ?, label = ?, probability = ?, people = ?, "
                "strength = ?, record = ?, thresholds = ?, credentials = ?, sha256 = coalesce(sha256, ?), "
                "version = version + 1 WHERE id = ?",
                (
                    State.DONE,
                    time.time(),
                    verdict.outcome,
                    verdict.label,
                    verdict.suspicion,
                    len(verdict.people),
                    None if verdict.evidence is None else verdict.evidence.strength,
                    verdict.to_json(),
                    None if report.thresholds is None else json.dumps(asdict(report.thresholds)),
                    None if report.credentials is None else report.credentials.model_dump_json(),
                    verdict.provenance.source_sha256,
                    id_,
                ),
            )
            weights = verdict.provenance.weights_sha256
            audit.append(
                rows,
                Kind.JUDGED,
                video=id_,
                outcome=verdict.outcome,
                label=verdict.label,
                probability=verdict.suspicion,
                weights_sha256=weights,
                thresholds=None if report.thresholds is None else asdict(report.thresholds),
                source_sha256=verdict.provenance.source_sha256,
                record_sha256=hashlib.sha256(verdict.to_json().encode()).hexdigest(),
            )
            # A verdict may come again, when people have decided already.
            now = standing_of(rows, self._read(rows, id_), self._policy)
            rows.execute(
                "UPDATE videos SET round = ?, answer = ?, audited = max(audited, ?) WHERE id = ?",
                (now.round, now.answer, now.round is Round.AUDIT, id_),
            )
            _keep_portraits(rows, row["n"], report)
            found = {"outcome": verdict.outcome, "label": verdict.label, "probability": verdict.suspicion}
            events = [WebhookEvent.FINISHED]
            if verdict.label is Label.FAKE:
                events.append(WebhookEvent.FLAGGED)
            if verdict.outcome is not Outcome.SCORED:
                events.append(WebhookEvent.FAILED)
            # The thread that found the verdict has no trace, or another one.
            with tracing.continuing(row["trace"]):
                for event in events:
                    self._notify(rows, row["key_id"], event, {"video": id_, "name": row["name"], **found})
            return self._read(rows, id_)

    def complete(self, id_: str, report: ClipReport) -> None:
        """Keep the pictures and credentials of a verdict that came before them.

        Without effect if the video was deleted, or has another verdict now.
        """
        credentials = None if report.credentials is None else report.credentials.model_dump_json()
        with self._database.write() as rows:
            row = rows.execute("SELECT n FROM videos WHERE id = ? AND record = ?", (id_, report.verdict.to_json()))
            if (found := row.fetchone()) is not None:
                _keep_portraits(rows, found["n"], report)
                rows.execute(
                    "UPDATE videos SET credentials = ?, version = version + 1 WHERE id = ?", (credentials, id_)
                )

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
        return video_of(row)

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
        credentials = None if row["credentials"] is None else Credentials.model_validate_json(row["credentials"])
        return ClipReport(
            Verdict.model_validate_json(row["record"]),
            tuple(portraits["suspicious"]),
            tuple(portraits["clearest"]),
            thresholds,
            credentials=credentials,
        )

    def crop(self, video: Video, track: int, i: int) -> bytes | None:
        """A person's picture as JPEG; None: there is no such."""
        query = "SELECT jpeg FROM portraits WHERE video = ? AND track = ? ORDER BY i LIMIT 1 OFFSET ?"
        row = self._database.read().execute(query, (video.n, track, i)).fetchone()
        return None if row is None else row["jpeg"]

    def delete(self, id_: str, by: str | None = None) -> None:
        """Delete a video with all that is known of it, messages to webhooks too. The audit log keeps ids and hashes.

        Args:
            id_: of the video.
            by: id of the key of who deletes it; None: somebody at the service's machine.

        Raises:
            ProblemError: there is no such video.
        """
        with self._database.write() as rows:
            row = rows.execute("DELETE FROM videos WHERE id = ? RETURNING sha256", (id_,)).fetchone()
            if row is None:
                raise not_found("video")
            rows.execute("DELETE FROM deliveries WHERE json_extract(body, '$.data.video') = ?", (id_,))
            audit.append(rows, Kind.DELETED, by=by, video=id_, source_sha256=row["sha256"])
        self._database.erase()

    @staticmethod
    def _read(rows: sqlite3.Connection, id_: str) -> Video:
        return video_of(rows.execute("SELECT * FROM videos WHERE id = ?", (id_,)).fetchone())

    def _row(self, id_: str) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._database.read().execute("SELECT * FROM videos WHERE id = ?", (id_,)).fetchone()
        return row

    def _earlier(self, rows: sqlite3.Connection, idempotency: str | None, key_id: str) -> Video | None:
        if idempotency is None:
            return None
        query = "SELECT * FROM videos WHERE key_id = ? AND idempotency = ?"
        row = rows.execute(query, (key_id, idempotency)).fetchone()
        return None if row is None else video_of(row)


def new_id() -> str:
    """The id of a video: 96 random bits."""
    return secrets.token_hex(12)


def _keep_portraits(rows: sqlite3.Connection, n: int, report: ClipReport) -> None:
    """Replace the pictures of a video by those of a report."""
    shown = {person.track for person in report.verdict.people}
    portraits = [
        (kind, portrait)
        for kind, portraits in (("suspicious", report.suspicious), ("clearest", report.clearest))
        for portrait in portraits
        if portrait.track in shown
    ]
    rows.execute("DELETE FROM portraits WHERE video = ?", (n,))
    rows.executemany(
        "INSERT INTO portraits (video, track, i, kind, t_s, probability, quality, jpeg, place) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (n, p.track, i, kind, p.t_s, p.probability, p.quality, p.jpeg, p.place_json)
            for i, (kind, p) in enumerate(portraits)
        ],
    )


def _check_same(upload: Upload, earlier: Upload) -> None:
    """Return if a repeated request hands in what the first one did.

    Raises:
        ProblemError: it does not.
    """
    is_same = upload.uri == earlier.uri and (upload.uri is not None or upload.sha256 == earlier.sha256)
    if not is_same or (upload.start_s, upload.end_s) != (earlier.start_s, earlier.end_s):
        what = "another part of it" if is_same else "another file or URI"
        raise ProblemError(
            422, Code.KEY_REUSED, f"this Idempotency-Key was used for {what}: take a new one for each video"
        )


def standing_of(rows: sqlite3.Connection, video: Video, policy: Policy) -> Standing:
    """How far the reviewing of a judged clip is, from its decisions. Clips whose answer is known are closed.

    Args:
        rows: in whose transaction the decisions are read.
        video: it.
        policy: how much is reviewed.
    """
    if video.golden is not None:
        return Standing(Round.CLOSED, video.golden)
    if (appealed := _standing_after_appeal(rows, video.n)) is not None:
        return appealed
    found = rows.execute(
        "SELECT decision FROM decisions AS d WHERE video = ?1 AND track IS NULL AND undone_s IS NULL ORDER BY "
        "(SELECT min(n) FROM decisions WHERE video = ?1 AND track IS NULL AND key_id = d.key_id)",
        (video.n,),
    )
    return standing(video.id, video.label, [Choice(row["decision"]) for row in found], policy)


def _standing_after_appeal(rows: sqlite3.Connection, video: int) -> Standing | None:
    """How far the review of a video is after its last appeal: a senior decides; None: nobody appealed."""
    after = appealed_after(rows, video)
    if after is None:
        return None
    row = rows.execute(
        "SELECT decision FROM decisions JOIN keys ON keys.id = key_id WHERE video = ? AND track IS NULL "
        "AND undone_s IS NULL AND n > ? AND keys.role IN (?, ?) ORDER BY n LIMIT 1",
        (video, after, Role.SENIOR.text, Role.ADMIN.text),
    ).fetchone()
    return Standing(Round.SENIOR) if row is None else Standing(Round.CLOSED, Choice(row["decision"]))


def appealed_after(rows: sqlite3.Connection, video: int) -> int | None:
    """The number of the last decision before the last appeal on a video; None: nobody appealed."""
    row = rows.execute("SELECT after FROM appeals WHERE video = ? ORDER BY n DESC LIMIT 1", (video,)).fetchone()
    return None if row is None else int(row["after"])


def video_of(row: sqlite3.Row) -> Video:
    """A row of the table."""
    upload = Upload(
        row["name"],
        SourceClass(row["source_class"]),
        row["idempotency"],
        row["uri"],
        row["media_type"],
        row["size_bytes"],
        row["sha256"],
        row["start_s"],
        row["end_s"],
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
        None if row["round"] is None else Round(row["round"]),
        None if row["answer"] is None else Choice(row["answer"]),
        None if row["golden"] is None else Choice(row["golden"]),
        row["trace"],
    )
