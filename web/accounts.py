"""People who sign in by a provider: each is a row among the keys, which no text opens."""

from __future__ import annotations

import sqlite3
import time
import unicodedata
from typing import Final

from web.database import Database
from web.keys import Key, Keys, Role, new_key_id
from web.problems import Code, ProblemError

_MAX_NAME: Final = 80


class Accounts:
    """The people of a database. Safe to share between threads.

    Args:
        database: it.
        keys: its keys.
    """

    def __init__(self, database: Database, keys: Keys) -> None:
        self._database = database
        self._keys = keys

    def enter(self, issuer: str, subject: str, name: str, role: Role | None) -> Key:
        """The row of a person who signs in now, with the name and role of now.

        Args:
            issuer: address of their provider.
            subject: their id there.
            name: to show.
            role: that the provider gives; None: none, which ends their sessions.

        Raises:
            ProblemError: they have no role, or an administrator revoked their row.
        """
        with self._database.write() as rows:
            id_ = _id_of(rows, issuer, subject)
            if role is None:
                rows.execute("DELETE FROM sessions WHERE key_id = ?", (id_,))
            elif id_ is None:
                id_ = new_key_id()
                # No hash is empty: no key has this id.
                rows.execute(
                    "INSERT INTO keys (id, name, role, salt, hash, created_s) VALUES (?, ?, ?, ?, ?, ?)",
                    (id_, _plain(name), role.text, b"", b"", time.time()),
                )
                rows.execute("INSERT INTO accounts (issuer, subject, key_id) VALUES (?, ?, ?)", (issuer, subject, id_))
            else:
                rows.execute("UPDATE keys SET name = ?, role = ? WHERE id = ?", (_plain(name), role.text, id_))
        if role is None or id_ is None:
            raise ProblemError(403, Code.NOT_ALLOWED, "the provider gives this person no role here")
        key = self._keys.get(id_)
        if not key.is_valid(time.time()):
            raise ProblemError(403, Code.NOT_ALLOWED, "an administrator revoked this person's access")
        return key

    def has(self, key_id: str) -> bool:
        """Whether this is the row of a person, not of a key."""
        query = "SELECT 1 FROM accounts WHERE key_id = ?"
        return self._database.read().execute(query, (key_id,)).fetchone() is not None


def _id_of(rows: sqlite3.Connection, issuer: str, subject: str) -> str | None:
    query = "SELECT key_id FROM accounts WHERE issuer = ? AND subject = ?"
    row = rows.execute(query, (issuer, subject)).fetchone()
    return None if row is None else str(row["key_id"])


def _plain(name: str) -> str:
    """On one line, as names of keys are."""
    shown = "".join(c for c in name if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp")).strip()
    return shown[:_MAX_NAME] or "unnamed"
