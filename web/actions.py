"""The log of what was done to many videos at once, or to how they are reviewed."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from web import audit
from web.audit import Kind
from web.database import Database
from web.keys import Key

_MAX_LISTED: Final = 200


class ActionKind(StrEnum):
    """What was done. Kinds may be added."""

    DECIDE = "decide"
    DELETE = "delete"
    GOLDEN = "golden"
    EXPORT = "export"


_AUDITED: Final = {ActionKind.GOLDEN: Kind.GOLDEN, ActionKind.EXPORT: Kind.EXPORTED}


@dataclass(frozen=True, slots=True)
class Action:
    """Something that was done.

    Attributes:
        n: its number.
        by: id of the key.
        data: which videos, and how.
        made_s: Unix seconds.
    """

    n: int
    by: str
    kind: ActionKind
    data: dict[str, Any]
    made_s: float


class Actions:
    """The log of a database. Safe to share between threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, key: Key, kind: ActionKind, data: dict[str, Any]) -> Action:
        """Log an action."""
        now_s = time.time()
        with self._database.write() as rows:
            n = rows.execute(
                "INSERT INTO actions (key_id, kind, data, made_s) VALUES (?, ?, ?, ?)",
                (key.id, kind, json.dumps(data), now_s),
            ).lastrowid
            if kind in (ActionKind.GOLDEN, ActionKind.EXPORT):  # of the others, each video has an entry of its own
                facts = {name: value for name, value in data.items() if name != "video"}
                audit.append(rows, _AUDITED[kind], by=key.id, video=data.get("video"), **facts)
        return Action(int(n or 0), key.id, kind, data, now_s)

    def last(self) -> list[Action]:
        """The last ones, the newest first."""
        rows = self._database.read().execute("SELECT * FROM actions ORDER BY n DESC LIMIT ?", (_MAX_LISTED,))
        return [
            Action(row["n"], row["key_id"], ActionKind(row["kind"]), json.loads(row["data"]), row["made_s"])
            for row in rows
        ]
