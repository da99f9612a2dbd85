"""Live streams: who may send to one, its segments to Kafka, and what Redis has of it."""

from __future__ import annotations

import sqlite3
import time
from typing import Final

import redis
import structlog
from pydantic import ValidationError

from pipeline import tracing
from pipeline.contracts import Verdict, clip_key, stream_key
from pipeline.live.look import StreamLook, look_at, open_streams
from pipeline.transport.kafka import TransportError
from pipeline.transport.messages import Segment
from web.database import Database
from web.keys import Key, Role
from web.problems import Code, ProblemError, not_found
from web.webhooks import Notify, WebhookEvent
from web.workers import Workers

log = structlog.get_logger(__name__)

# A segment that Kafka does not acknowledge within this time is too old to be of use, in seconds.
_SEND_S: Final = 10.0
_MAX_OPEN: Final = 1000
# Redis has lost a stream that it has not known for this long, in seconds.
_LOST_S: Final = 86400.0


class Streams:
    """The streams of the workers. Safe to share between threads.

    Args:
        workers: the way to them.
        database: has who began which stream, and which have ended.
        notify: stores a message to webhooks.
    """

    def __init__(self, workers: Workers, database: Database, notify: Notify) -> None:
        self._workers = workers
        self._database = database
        self._notify = notify

    def send(self, key: Key, segment: Segment, media: bytes) -> None:
        """Send a segment, and wait until Kafka has it. Its first one makes the stream the key's.

        Raises:
            ContractError: the media is empty or too large.
            ProblemError: the stream is another one's or has ended, or Kafka or Redis is away. Workers ignore a segment
                that comes twice: it may be sent again.
        """
        try:
            self._claim(key, segment.stream_id)
            publisher = self._workers.connected
            if publisher is None:
                raise TransportError("Kafka was not reached yet")
            if segment.final and (trace := tracing.carry()) is not None:
                with self._database.write() as rows:
                    rows.execute("UPDATE streams SET trace = ? WHERE id = ?", (trace, segment.stream_id))
            with tracing.span("submit", {"unmask.clip.id": segment.stream_id, "unmask.sequence": segment.sequence}):
                publisher.segment(segment, media).wait(_SEND_S)
        except (redis.RedisError, TransportError) as error:
            raise away(error) from error

    def running(self, limit: int) -> list[StreamLook]:
        """Streams that have not ended, the one with the latest segment first.

        Raises:
            ProblemError: Redis is away.
        """
        try:
            found = look_at(self._workers.client, open_streams(self._workers.client, limit))
        except redis.RedisError as error:
            raise away(error) from error
        return [look for look in found if look is not None and not look.is_closed]

    def get(self, stream_id: str) -> StreamLook:
        """A stream, running or ended.

        Raises:
            ProblemError: it is unknown, or Redis is away.
        """
        try:
            (look,) = look_at(self._workers.client, [stream_id])
        except redis.RedisError as error:
            raise away(error) from error
        if look is None:
            raise not_found("stream")
        return look

    def look(self) -> bool:
        """Note which streams run and which have ended; returns whether a message to webhooks was stored.

        Raises:
            redis.RedisError: Redis is away.
        """
        running = open_streams(self._workers.client, _MAX_OPEN)
        now_s = time.time()
        rows = self._database.read().execute("SELECT * FROM streams WHERE ended_s IS NULL").fetchall()
        known = {row["id"] for row in rows}
        if fresh := [(stream_id, now_s) for stream_id in running if stream_id not in known]:
            with self._database.write() as writing:
                # One that has ended may have begun again: workers had forgotten it.
                writing.executemany(
                    "INSERT INTO streams (id, created_s) VALUES (?1, ?2) "
                    "ON CONFLICT DO UPDATE SET created_s = ?2, ended_s = NULL",
                    fresh,
                )
        gone = [row for row in rows if row["id"] not in set(running)]
        notified = False
        for row in gone:
            record = self._workers.verdicts.record(row["id"])
            if record is not None:
                notified |= self._end(row, record)
            elif now_s - row["created_s"] > _LOST_S:
                notified |= self._end(row, None)
        return notified

    def _end(self, row: sqlite3.Row, record: bytes | None) -> bool:
        try:
            verdict = None if record is None else Verdict.model_validate_json(record)
        except ValidationError as error:
            log.warning("the record of a stream cannot be read", stream=row["id"], error=str(error))
            verdict = None
        with self._database.write() as rows:
            rows.execute("UPDATE streams SET ended_s = ? WHERE id = ?", (time.time(), row["id"]))
            if verdict is None:
                return False
            found = {"outcome": verdict.outcome, "label": verdict.label, "probability": verdict.suspicion}
            # Of the stream's last segment, which may have come after `row` was read.
            (trace,) = rows.execute("SELECT trace FROM streams WHERE id = ?", (row["id"],)).fetchone()
            with tracing.continuing(trace):
                self._notify(rows, row["key_id"] or "", WebhookEvent.STREAM_ENDED, {"stream": row["id"], **found})
        return True

    def _claim(self, key: Key, stream_id: str) -> None:
        row = self._database.read().execute("SELECT * FROM streams WHERE id = ?", (stream_id,)).fetchone()
        if row is None:
            taken = self._workers.client.exists(clip_key(stream_id), stream_key(stream_id))
            with self._database.write() as rows:
                taken = taken or rows.execute("SELECT 1 FROM videos WHERE id = ?", (stream_id,)).fetchone()
                if not taken:
                    rows.execute(
                        "INSERT INTO streams (id, key_id, created_s) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                        (stream_id, key.id, time.time()),
                    )
            if taken:
                raise _conflict("this id is in use: choose another one for the stream")
            row = self._database.read().execute("SELECT * FROM streams WHERE id = ?", (stream_id,)).fetchone()
        if row["key_id"] != key.id and key.role < Role.SENIOR:
            raise _conflict("this stream is not of your key: choose another id")
        if row["ended_s"] is not None:
            raise _conflict("this stream has ended: choose another id for the next one")


def away(error: Exception) -> ProblemError:
    """Kafka or Redis cannot be reached; nothing was accepted."""
    log.warning("Kafka or Redis is away", error=str(error))
    return ProblemError(503, Code.AWAY, "Kafka or Redis does not answer; try again", {"Retry-After": "2"})


def _conflict(detail: str) -> ProblemError:
    return ProblemError(409, Code.CONFLICT, detail)


def no_workers() -> ProblemError:
    """The service judges by itself."""
    detail = "live streams need workers: start the service with UNMASK_KAFKA and UNMASK_REDIS, and without --embedded"
    return ProblemError(409, Code.NO_WORKERS, detail)
