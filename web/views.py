"""Saved views: a filter of the list under a name."""

from __future__ import annotations

import secrets
import sqlite3
import time
from dataclasses import dataclass
from typing import Final

from web.database import Database
from web.keys import Key, Role
from web.problems import Code, ProblemError, not_found

MAX_PER_KEY: Final = 50


@dataclass(frozen=True, slots=True)
class View:
    """A filter under a name.

    Attributes:
        by: id of the key that saved it.
        query: of the list's address, as `label=fake&sort=-probability`.
        shared: all reviewers see it.
        created_s: Unix seconds.
    """

    id: str
    by: str
    name: str
    query: str
    shared: bool
    created_s: float


class Views:
    """The saved views of a database. Safe to share between threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, key: Key) -> list[View]:
        """The person's own views, and those that are shared, by name."""
        rows = self._database.read().execute(
            "SELECT * FROM views WHERE key_id = ?1 OR (shared AND ?2) ORDER BY name, id",
            (key.id, key.role >= Role.REVIEW),
        )
        return [_view(row) for row in rows]

    def save(self, key: Key, name: str, query: str, *, shared: bool) -> View:
        """Keep a filter.

        Raises:
            ProblemError: the person has too many, or may not share one.
        """
        if shared and key.role < Role.SENIOR:
            raise ProblemError(403, Code.NOT_ALLOWED, "views for all reviewers take a key of role senior")
        view = View(secrets.token_hex(8), key.id, name, query, shared, time.time())
        with self._database.write() as rows:
            (saved,) = rows.execute("SELECT count(*) FROM views WHERE key_id = ?", (key.id,)).fetchone()
            if saved >= MAX_PER_KEY:
                raise ProblemError(409, Code.CONFLICT, f"a key has at most {MAX_PER_KEY} views: delete one")
            rows.execute(
                "INSERT INTO views (id, key_id, name, query, shared, created_s) VALUES (?, ?, ?, ?, ?, ?)",
                (view.id, view.by, name, query, shared, view.created_s),
            )
        return view

    def delete(self, key: Key, id_: str) -> None:
        """Delete a view of the person's own; admins may delete any.

        Raises:
            ProblemError: there is no such view.
        """
        with self._database.write() as rows:
            query = "DELETE FROM views WHERE id = ? AND (key_id = ? OR ?)"
            if not rows.execute(query, (id_, key.id, key.role is Role.ADMIN)).rowcount:
                raise not_found("view")


def _view(row: sqlite3.Row) -> View:
    return View(row["id"], row["key_id"], row["name"], row["query"], bool(row["shared"]), row["created_s"])
