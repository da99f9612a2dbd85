"""Notes who looked at which video, seals the audit log day by day, and lets nothing that was deleted stay."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from typing import Any, Final

from web import audit
from web.audit import Kind
from web.database import Database
from web.repeating import Repeating

# Another look by the same person within this time is the same one: a player asks for a file piece by piece.
_SAME_S: Final = 600.0
_MAX_KNOWN: Final = 10_000
# How often the service looks whether a day is over, and cuts the log of changes, in seconds.
_SEAL_S: Final = 300.0


class Auditor:
    """Safe to share between threads.

    Args:
        database: whose log it is.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()
        self._seals = Repeating("seals of the audit log", _SEAL_S, self._seal)

    def start(self) -> None:
        """Begin to seal days, in a thread."""
        self._seals.start()

    def stop(self) -> None:
        """End."""
        self._seals.stop()

    def looked(self, by: str, video: str) -> None:
        """Note that somebody gets to see a video.

        Args:
            by: id of their key.
            video: id of the video.
        """
        now_s = time.monotonic()
        with self._lock:
            if now_s - self._known.get((by, video), -_SAME_S) < _SAME_S:
                return
        with self._database.write() as rows:
            audit.append(rows, Kind.LOOKED, by=by, video=video)
        with self._lock:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[by, video] = now_s

    def started(self, facts: dict[str, Any]) -> None:
        """Note how the service works from now on, if that is new.

        Args:
            facts: weights, thresholds, rules.
        """
        facts = json.loads(json.dumps(facts))  # as it is read again
        with self._database.write() as rows:
            if self._last_start(rows) != facts:
                audit.append(rows, Kind.STARTED, **facts)

    @staticmethod
    def _last_start(rows: sqlite3.Connection) -> dict[str, Any] | None:
        query = f"SELECT n FROM audit WHERE {audit.FIELD.format('kind')} = ? ORDER BY n DESC LIMIT 1"
        row = rows.execute(query, (Kind.STARTED,)).fetchone()
        if row is None:
            return None
        (entry,) = audit.entries(rows, row["n"] - 1, 1)
        data: dict[str, Any] = entry.values["data"]
        return data

    def _seal(self) -> None:
        with self._database.write() as rows:
            audit.seal(rows)
        self._database.erase()
