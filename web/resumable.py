"""Uploads that go on after a lost connection: their rows, their bytes on disk, and how they become videos.

The bytes are in a folder of this machine, under the id that the video will have. Without a store they are where the
video's file will be, and nothing has to be moved at the end; a store gets them before the last answer. Then one
transaction makes the video and names it in the upload's row.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

import structlog

from pipeline.contracts import SourceClass
from web.database import Database
from web.media import Media, StoreAwayError
from web.problems import Code, ProblemError, busy, not_found
from web.sniffing import HEAD_BYTES, media_type_of
from web.videos import Upload, Video, Videos, new_id

log = structlog.get_logger(__name__)

# A connection that is lost, or a service that is killed, costs at most this much again.
COMMIT_BYTES: Final = 16 << 20
# How often what is idle is looked for, in seconds.
_LOOK_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Resumable:
    """An upload that is under way, or that has become a video a moment ago.

    Attributes:
        id: of the upload; the video will have the same, unless the request repeats an earlier one.
        key_id: whose it is.
        wanted: what the client said of the video.
        metadata: as the client sent it.
        length: bytes of the whole file.
        offset: bytes that are on disk.
        touched_s: when it last grew, in Unix seconds.
        video: id of the video that it has become; None: it has not yet.
    """

    id: str
    key_id: str
    wanted: Upload
    metadata: str
    length: int
    offset: int
    touched_s: float
    video: str | None

    @property
    def is_complete(self) -> bool:
        """Whether all its bytes are here."""
        return self.offset == self.length


class Resumables:
    """The resumable uploads of a service. Safe to share between threads.

    Args:
        database: has their rows.
        media: has their bytes.
        videos: what they become.
        accepted: called when one became a new video.
        max_open: of each key, at once.
        idle_s: one that has not grown for this long is deleted.

    Attributes:
        held: ids of those that a request writes to; they do not expire.
    """

    def __init__(
        self,
        database: Database,
        media: Media,
        videos: Videos,
        accepted: Callable[[], None],
        *,
        max_open: int,
        idle_s: float,
    ) -> None:
        self.held: Collection[str] = ()
        self.idle_s = idle_s
        self._database, self._media, self._videos = database, media, videos
        self._accepted = accepted
        self._max_open = max_open
        # Of those that grew since the service started, so that a file is seldom read again for its hash.
        self._digests: dict[str, tuple[int, Any]] = {}
        self._turns = threading.Condition()
        self._finished_now: set[str] = set()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="uploads")

    def start(self) -> None:
        """Finish what is complete, and delete what is idle, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()

    def ids(self) -> set[str]:
        """Of those that are not videos yet."""
        return {row["id"] for row in self._database.read().execute("SELECT id FROM uploads WHERE video IS NULL")}

    def create(self, key_id: str, wanted: Upload, length: int, metadata: str) -> Resumable:
        """A new upload without bytes, or the one that an earlier request with this `Idempotency-Key` made.

        Raises:
            ProblemError: this key has too many under way, or the earlier request was about another file.
        """
        made = Resumable(new_id(), key_id, wanted, metadata, length, 0, time.time(), None)
        self._media.make(made.id)
        try:
            with self._database.write() as rows:
                if (earlier := _earlier(rows, wanted.idempotency, key_id)) is not None:
                    if (earlier.length, earlier.metadata) != (length, metadata):
                        detail = "this Idempotency-Key was used for another upload: take a new one for each video"
                        raise ProblemError(422, Code.KEY_REUSED, detail)
                else:
                    self._insert(rows, made)
        except BaseException:
            self._media.discard(made.id)
            raise
        if earlier is not None:
            self._media.discard(made.id)
        return earlier or made

    def _insert(self, rows: sqlite3.Connection, made: Resumable) -> None:
        query = "SELECT count(*) FROM uploads WHERE key_id = ? AND video IS NULL"
        (under_way,) = rows.execute(query, (made.key_id,)).fetchone()
        if under_way >= self._max_open:
            raise busy(f"{under_way} resumable uploads of this key are under way: finish or delete one", 60)
        wanted = made.wanted
        rows.execute(
            "INSERT INTO uploads (id, key_id, idempotency, metadata, name, source_class, start_s, end_s, length, "
            "touched_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                made.id,
                made.key_id,
                wanted.idempotency,
                made.metadata,
                wanted.name,
                wanted.source_class,
                wanted.start_s,
                wanted.end_s,
                made.length,
                made.touched_s,
            ),
        )

    def get(self, id_: str, key_id: str) -> Resumable:
        """An upload of this key.

        Raises:
            ProblemError: it does not exist, has expired, or is another key's.
        """
        row = self._database.read().execute("SELECT * FROM uploads WHERE id = ?", (id_,)).fetchone()
        if row is None or row["key_id"] != key_id:
            raise not_found("upload: it may have expired")
        return _resumable(row)

    def delete(self, id_: str) -> None:
        """Delete an upload; a video that it has become stays."""
        with self._database.write() as rows:
            row = rows.execute("SELECT video FROM uploads WHERE id = ?", (id_,)).fetchone()
            rows.execute("DELETE FROM uploads WHERE id = ?", (id_,))
        self._digests.pop(id_, None)
        if row is not None and row["video"] is None:
            self._media.discard(id_)

    @contextmanager
    def writing(self, upload: Resumable) -> Iterator[Appender]:
        """Append to an upload; what was committed stays if the block ends with an error."""
        self._check_bytes(upload)
        known = self._digests.pop(upload.id, (-1, None))
        digest = hashlib.sha256() if upload.offset == 0 else known[1] if known[0] == upload.offset else None
        path = self._media.grown(upload.id)
        with Appender(self._database, path, upload, digest) as appender:
            try:
                yield appender
            finally:
                if appender.digest is not None and path.exists():
                    self._digests[upload.id] = (appender.committed, appender.digest)

    def finish(self, id_: str, key_id: str) -> Resumable:
        """Make a complete upload a video, once; it is deleted if it is no media.

        Raises:
            ProblemError: it is no media, or repeats a request with another file, or a store is away, and it stays.
        """
        with self._finishing(id_):
            upload = self.get(id_, key_id)
            if upload.video is not None:
                return upload
            self._check_bytes(upload)
            if not upload.is_complete:
                return upload
            path = self._media.grown(id_)
            with path.open("rb") as file:
                media_type = media_type_of(file.read(HEAD_BYTES))
            if media_type is None:
                self.delete(id_)
                raise no_media()
            known = self._digests.pop(id_, (-1, None))
            digest = known[1] if known[0] == upload.length else _hashed(path)
            found = replace(upload.wanted, media_type=media_type, size_bytes=upload.length, sha256=digest.hexdigest())
            try:
                self._media.take(id_, self._ending.is_set)
            except StoreAwayError:
                self._digests[id_] = (upload.length, digest)
                raise

            def name_it(rows: sqlite3.Connection, video: Video) -> None:
                rows.execute("UPDATE uploads SET video = ? WHERE id = ?", (video.id, id_))

            try:
                video, is_new = self._videos.accept(found, key_id, id_, name_it)
            except ProblemError:
                self.delete(id_)
                raise
            if is_new:
                self._media.release(id_)
                self._accepted()
            else:
                self._media.discard(id_)
            return replace(upload, video=video.id)

    @contextmanager
    def _finishing(self, id_: str) -> Iterator[None]:
        """One thread at a time finishes an upload; others go on, since a store may be slow."""
        with self._turns:
            self._turns.wait_for(lambda: id_ not in self._finished_now)
            self._finished_now.add(id_)
        try:
            yield
        finally:
            with self._turns:
                self._finished_now.remove(id_)
                self._turns.notify_all()

    def expire(self) -> None:
        """Delete what has not grown for too long."""
        query = "SELECT id FROM uploads WHERE touched_s < ?"
        for row in self._database.read().execute(query, (time.time() - self.idle_s,)).fetchall():
            if row["id"] not in self.held:
                self.delete(row["id"])

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                self._finish_all()
                self.expire()
            except Exception:  # a full disk, a locked database: it goes on when that is over
                log.exception("resumable uploads could not be looked after")
            self._ending.wait(_LOOK_S)

    def _check_bytes(self, upload: Resumable) -> None:
        """Return if its bytes are there; it is deleted if someone deleted them, or restored another database.

        Raises:
            ProblemError: they are not.
        """
        path = self._media.grown(upload.id)
        if not path.is_file() or path.stat().st_size < upload.offset:
            log.warning("an upload has lost its bytes", upload=upload.id)
            self.delete(upload.id)
            raise not_found("upload: its bytes are lost")

    def _finish_all(self) -> None:
        query = "SELECT * FROM uploads WHERE video IS NULL AND at = length"
        for row in self._database.read().execute(query).fetchall():
            if self._ending.is_set():
                return
            try:
                self.finish(row["id"], row["key_id"])
            except ProblemError as error:
                log.warning(
                    "a complete upload is no video yet, or cannot become one", upload=row["id"], error=str(error)
                )


class Appender:
    """Writes at the end of an upload; its methods block, so call them in a thread.

    Attributes:
        offset: bytes so far.
        committed: of these, bytes that are on disk and in the upload's row.
        digest: sha256 of the committed bytes; None: the file has to be read for it.
    """

    def __init__(self, database: Database, path: Path, upload: Resumable, digest: Any | None) -> None:
        self._database, self._path, self._upload = database, path, upload
        self.offset = self.committed = upload.offset
        self.digest = digest
        self._ahead = None if digest is None else digest.copy()
        self._head: bytes | None = b"" if upload.offset == 0 else None

    def __enter__(self) -> Self:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        # Bytes that were written and not committed.
        os.ftruncate(self._fd, self.offset)
        os.lseek(self._fd, self.offset, os.SEEK_SET)
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._fd)

    def write(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            ProblemError: they are more than the upload's length, or nothing that can be decoded begins like it.
            OSError: the disk is full, or fails.
        """
        if self.offset + len(data) > self._upload.length:
            detail = f"more bytes came than Upload-Length says ({self._upload.length:,})"
            raise ProblemError(413, Code.TOO_LARGE, detail, {"Connection": "close"})
        if self._head is not None:
            self._head += data[: HEAD_BYTES - len(self._head)]
            if len(self._head) == HEAD_BYTES:
                if media_type_of(self._head) is None:
                    raise no_media()
                self._head = None
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        if self._ahead is not None:
            self._ahead.update(data)
        self.offset += len(data)

    def commit(self) -> None:
        """Put all bytes so far on disk, then their number into the row."""
        if self.offset == self.committed:
            return
        os.fsync(self._fd)
        with self._database.write() as rows:
            values = (self.offset, time.time(), self._upload.id)
            rows.execute("UPDATE uploads SET at = ?, touched_s = ? WHERE id = ?", values)
        self.committed = self.offset
        self.digest = None if self._ahead is None else self._ahead.copy()


def no_media() -> ProblemError:
    """Nothing that can be decoded begins like it."""
    detail = "it does not begin like a video or picture that can be decoded; the upload is deleted"
    return ProblemError(415, Code.NO_MEDIA, detail, {"Connection": "close"})


def _hashed(path: Path) -> Any:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256")


def _earlier(rows: sqlite3.Connection, idempotency: str | None, key_id: str) -> Resumable | None:
    if idempotency is None:
        return None
    query = "SELECT * FROM uploads WHERE key_id = ? AND idempotency = ?"
    row = rows.execute(query, (key_id, idempotency)).fetchone()
    return None if row is None else _resumable(row)


def _resumable(row: sqlite3.Row) -> Resumable:
    wanted = Upload(
        row["name"],
        SourceClass(row["source_class"]),
        row["idempotency"],
        start_s=row["start_s"],
        end_s=row["end_s"],
    )
    return Resumable(
        row["id"],
        row["key_id"],
        wanted,
        row["metadata"],
        row["length"],
        row["at"],
        row["touched_s"],
        row["video"],
    )
