"""Messages to other programs: stored with the change itself, signed, sent until they arrive or are given up."""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

import structlog

from pipeline import tracing
from pipeline.http_fetch import FetchError, StoppedError, post
from pipeline.sources import SourceError
from pipeline.worker.access import UriAllow
from web.database import Database
from web.keys import Role
from web.problems import Code, ProblemError, not_found
from web.signing import Signer

log = structlog.get_logger(__name__)

# Waits between tries, in seconds; after the last one it is given up: about a day in all.
WAITS_S: Final = (5, 15, 60, 300, 900, 3600, 10_800, 21_600, 43_200)
MAX_PER_KEY: Final = 20
# Webhooks that are sent to at once; each gets its messages one after the other.
_AT_ONCE: Final = 4
_LOOK_S: Final = 1.0
_MAX_LISTED: Final = 100


class WebhookEvent(StrEnum):
    """What messages are about. Events may be added."""

    FINISHED = "video.finished"
    FLAGGED = "video.flagged"
    FAILED = "video.failed"
    DECIDED = "video.decided"
    ANSWERED = "video.answered"
    CHANGED = "video.changed"
    RESCORED = "video.rescored"
    STREAM_ENDED = "stream.ended"
    DRIFT = "drift.alarm"


class DeliveryState(StrEnum):
    """How far a message is."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where messages go.

    Attributes:
        key_id: whose key made it: it gets what this key may see.
        created_s: Unix seconds.
    """

    id: str
    key_id: str
    url: str
    events: tuple[WebhookEvent, ...]
    created_s: float


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message to a webhook.

    Attributes:
        n: its number.
        made_s: Unix seconds.
        error: of the last try; None: it had none.
    """

    n: int
    event: WebhookEvent
    state: DeliveryState
    tries: int
    made_s: float
    error: str | None


class Webhooks:
    """The webhooks of a database, and the threads that send. Safe to share between threads.

    Args:
        database: it.
        signer: signs each message.
        allow: where messages may be sent.
        waits_s: between tries.
    """

    def __init__(self, database: Database, signer: Signer, allow: UriAllow, waits_s: Sequence[float] = WAITS_S) -> None:
        self.signer = signer
        self._database = database
        self._allow = allow
        self._waits_s = tuple(waits_s)
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._busy: set[str] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="webhooks")

    def create(self, key_id: str, url: str, events: Sequence[WebhookEvent]) -> Webhook:
        """Make a webhook.

        Raises:
            ProblemError: `UNMASK_WEBHOOK_ALLOW` does not list the URL, or the key has too many.
        """
        try:
            self._allow.check(url)
        except (SourceError, ValueError) as error:
            if self._allow.is_empty:
                detail = (
                    "UNMASK_WEBHOOK_ALLOW is not set, so no webhook can be made: start the service with the receivers' "
                    "addresses in it, such as https://desk.example.org"
                )
            else:
                detail = "UNMASK_WEBHOOK_ALLOW of the service does not list this URL; only http and https can be listed"
            raise ProblemError(422, Code.URI_REFUSED, detail) from error
        made = Webhook(secrets.token_hex(8), key_id, url, tuple(dict.fromkeys(events)), time.time())
        with self._database.write() as rows:
            (count,) = rows.execute("SELECT count(*) FROM webhooks WHERE key_id = ?", (key_id,)).fetchone()
            if count >= MAX_PER_KEY:
                raise ProblemError(409, Code.CONFLICT, f"a key has at most {MAX_PER_KEY} webhooks")
            rows.execute(
                "INSERT INTO webhooks (id, key_id, url, events, created_s) VALUES (?, ?, ?, ?, ?)",
                (made.id, key_id, url, json.dumps(made.events), made.created_s),
            )
        return made

    def of_key(self, key_id: str) -> list[Webhook]:
        """The webhooks of a key, the oldest first."""
        rows = self._database.read().execute("SELECT * FROM webhooks WHERE key_id = ? ORDER BY created_s", (key_id,))
        return [_webhook(row) for row in rows]

    def get(self, id_: str, key_id: str) -> Webhook:
        """A webhook of a key.

        Raises:
            ProblemError: it does not exist, or is another key's.
        """
        row = self._database.read().execute("SELECT * FROM webhooks WHERE id = ?", (id_,)).fetchone()
        if row is None or row["key_id"] != key_id:
            raise not_found("webhook")
        return _webhook(row)

    def delete(self, id_: str, key_id: str) -> None:
        """Delete a webhook with its messages.

        Raises:
            ProblemError: as `get`.
        """
        self.get(id_, key_id)
        with self._database.write() as rows:
            rows.execute("DELETE FROM webhooks WHERE id = ?", (id_,))

    def deliveries(self, webhook: Webhook) -> list[Delivery]:
        """The last messages to a webhook, the newest first."""
        query = "SELECT * FROM deliveries WHERE webhook = ? ORDER BY n DESC LIMIT ?"
        return [_delivery(row) for row in self._database.read().execute(query, (webhook.id, _MAX_LISTED))]

    def retry(self, webhook: Webhook, n: int) -> Delivery:
        """Send a message again that was given up.

        Raises:
            ProblemError: there is no such message, or it was not given up.
        """
        with self._database.write() as rows:
            changed = rows.execute(
                "UPDATE deliveries SET state = ?, tries = 0, due_s = ? WHERE webhook = ? AND n = ? AND state = ?",
                (DeliveryState.WAITING, time.time(), webhook.id, n, DeliveryState.DEAD),
            ).rowcount
            row = rows.execute("SELECT * FROM deliveries WHERE webhook = ? AND n = ?", (webhook.id, n)).fetchone()
        if row is None:
            raise not_found("message to this webhook")
        if not changed:
            raise ProblemError(409, Code.CONFLICT, f"only a dead message is sent again; this one is {row['state']}")
        self._wake.set()
        return _delivery(row)

    def enqueue(self, rows: sqlite3.Connection, owner: str, event: WebhookEvent, data: dict[str, Any]) -> None:
        """See `enqueue`; call `wake` after the transaction."""
        enqueue(rows, owner, event, data)

    def wake(self) -> None:
        """Messages may wait."""
        self._wake.set()

    def start(self) -> None:
        """Begin to send, in threads."""
        self._thread.start()

    def stop(self) -> None:
        """End; what was not sent waits for the next start."""
        self._stopping.set()
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="webhook") as pool:
            while not self._stopping.is_set():
                self._wake.clear()
                for row in self._due():
                    pool.submit(self._send, row)
                self._wake.wait(_LOOK_S)

    def _due(self) -> list[sqlite3.Row]:
        """The oldest due message of each webhook that none is being sent to; these are being sent now."""
        query = (
            "SELECT deliveries.*, webhooks.url FROM deliveries JOIN webhooks ON webhooks.id = webhook "
            "WHERE n IN (SELECT min(n) FROM deliveries WHERE state = ?1 AND due_s <= ?2 GROUP BY webhook)"
        )
        with self._lock:
            # Before the rows are read: one that is delivered meanwhile would be read as waiting, and be free by then.
            busy = set(self._busy)
        found = self._database.read().execute(query, (DeliveryState.WAITING, time.time())).fetchall()
        free = [row for row in found if row["webhook"] not in busy]
        with self._lock:
            self._busy.update(row["webhook"] for row in free)
        return free

    def _send(self, row: sqlite3.Row) -> None:
        try:
            error = self._tried(row)
            if not self._stopping.is_set():
                self._record(row, error)
        except Exception:
            log.exception("a webhook cannot be served", webhook=row["webhook"])
        finally:
            with self._lock:
                self._busy.discard(row["webhook"])
            self._wake.set()

    def _tried(self, row: sqlite3.Row) -> str | None:
        """Send once; returns what went wrong."""
        body, now_s = row["body"].encode(), int(time.time())
        headers = self.signer.headers(f"msg_{row['webhook']}_{row['n']}", now_s, body)
        facts = {"http.request.method": "POST", "unmask.event": row["event"], "http.request.resend_count": row["tries"]}
        # The receiver's address may be a secret: it is no attribute.
        with tracing.span("POST webhook", facts, kind="client", carried=row["trace"]) as span:
            headers |= tracing.http_headers()
            try:
                status = post(row["url"], body, headers, guard=self._allow, stop=self._stopping.is_set)
            except StoppedError:
                return "the service was stopped"
            except (FetchError, SourceError) as error:
                span.fail(type(error).__name__)
                # The guard is that of URIs, and names its own setting.
                return str(error).replace("UNMASK_URI_ALLOW", "UNMASK_WEBHOOK_ALLOW")
            span.set({"http.response.status_code": status})
            if 200 <= status < 300:
                return None
            span.fail(str(status))
            return f"the answer was {status}"

    def _record(self, row: sqlite3.Row, error: str | None) -> None:
        tries = row["tries"] + 1
        state, due_s = DeliveryState.DELIVERED, row["due_s"]
        if error is not None:
            given_up = tries > len(self._waits_s)
            state = DeliveryState.DEAD if given_up else DeliveryState.WAITING
            due_s = time.time() + (0 if given_up else self._waits_s[tries - 1])
            log.warning("a webhook was not reached", webhook=row["webhook"], error=error, tries=tries, state=state)
        with self._database.write() as rows:
            rows.execute(
                "UPDATE deliveries SET state = ?, tries = ?, due_s = ?, error = ? WHERE n = ?",
                (state, tries, due_s, error, row["n"]),
            )


def receivers(rows: sqlite3.Connection, owner: str, event: WebhookEvent) -> list[str]:
    """Ids of the webhooks that get a message.

    Args:
        rows: the transaction.
        owner: id of the key that handed the video in; empty: it is about no video.
        event: what happened.
    """
    # Reviewers decide without knowing what others decided; drift is for those who may see its page.
    least = Role.SENIOR if event in (WebhookEvent.DECIDED, WebhookEvent.DRIFT) else Role.REVIEW
    found = rows.execute(
        "SELECT webhooks.*, keys.role FROM webhooks JOIN keys ON keys.id = key_id WHERE keys.revoked_s IS NULL"
    )
    return [
        row["id"]
        for row in found
        if (row["key_id"] == owner or Role.of(row["role"]) >= least) and event in json.loads(row["events"])
    ]


def enqueue(rows: sqlite3.Connection, owner: str, event: WebhookEvent, data: dict[str, Any]) -> None:
    """Store messages to all who want to know, in the transaction of the change.

    Args:
        rows: the transaction.
        owner: id of the key that handed the video in.
        event: what happened.
        data: about it, as JSON.
    """
    now_s = time.time()
    for webhook in receivers(rows, owner, event):
        happened_at = datetime.fromtimestamp(now_s, UTC).isoformat().replace("+00:00", "Z")
        body = json.dumps({"type": event, "timestamp": happened_at, "data": data})
        rows.execute(
            "INSERT INTO deliveries (webhook, event, body, state, made_s, due_s, trace) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (webhook, event, body, DeliveryState.WAITING, now_s, now_s, tracing.carry()),
        )


Notify = Callable[[sqlite3.Connection, str, WebhookEvent, dict[str, Any]], None]


def _webhook(row: sqlite3.Row) -> Webhook:
    events = tuple(WebhookEvent(name) for name in json.loads(row["events"]))
    return Webhook(row["id"], row["key_id"], row["url"], events, row["created_s"])


def _delivery(row: sqlite3.Row) -> Delivery:
    return Delivery(
        row["n"],
        WebhookEvent(row["event"]),
        DeliveryState(row["state"]),
        row["tries"],
        row["made_s"],
        row["error"],
    )
