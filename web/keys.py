"""API keys and the page's sessions: who is asking, and what they may do."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from web import audit
from web.audit import Kind
from web.database import Database
from web.problems import Code, ProblemError

# RFC 7914's cost for interactive logins, as OWASP's cheat sheet on password storage has it for 16 MiB. Keys are 256
# random bits, so this is a second line.
_SCRYPT: Final = {"n": 2**14, "r": 8, "p": 1, "dklen": 32}
# 1 January 9999: later moments have no date in every time zone.
_LATEST_S: Final = 253_370_764_800.0
_KEY: Final = re.compile(r"unmask_([0-9a-z]{10})_([A-Za-z0-9_-]{43})")
SESSION_S: Final = 12 * 3600.0
NAME: Final = re.compile(r"[^\x00-\x1f\x7f]{1,80}")
# Of keys that were checked a moment ago: scrypt takes 40 ms, too long for every request.
_MAX_KNOWN: Final = 1024


class Role(IntEnum):
    """What a key may do; each includes those before it."""

    SUBMIT = 1
    REVIEW = 2
    SENIOR = 3
    ADMIN = 4

    @classmethod
    def of(cls, name: str) -> Role:
        """By its name in lower case.

        Raises:
            ValueError: there is no such role.
        """
        try:
            return cls[name.upper()]
        except KeyError:
            names = ", ".join(role.name.lower() for role in cls)
            raise ValueError(f"no role {name!r}; there are: {names}") from None

    @property
    def text(self) -> str:
        """Its name in lower case."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Key:
    """A key without its secret.

    Attributes:
        id: the part of the key that is not secret.
        name: of the person or program that holds it.
        created_s: Unix seconds.
        expires_s: Unix seconds; None: never.
        revoked_s: Unix seconds; None: it is not.
    """

    id: str
    name: str
    role: Role
    created_s: float
    expires_s: float | None
    revoked_s: float | None

    def is_valid(self, now_s: float) -> bool:
        """Whether it opens anything now."""
        return self.revoked_s is None and (self.expires_s is None or now_s < self.expires_s)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is asking.

    Attributes:
        key: theirs.
        csrf: of a session of the page: what requests that change something must bring; None: they brought the key.
    """

    key: Key
    csrf: str | None = None

    def require(self, role: Role) -> None:
        """Return if they may do what takes this role.

        Raises:
            ProblemError: they may not.
        """
        if self.key.role < role:
            raise ProblemError(
                403, Code.NOT_ALLOWED, f"this takes a key of role {role.text}; this one has {self.key.role.text}"
            )


class Keys:
    """The keys of a database. Safe to share between threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[bytes, str] = {}
        self._lock = threading.Lock()

    def create(
        self, name: str, role: Role, *, expires_s: float | None = None, by: str | None = None
    ) -> tuple[Key, str]:
        """Make a key.

        Args:
            name: of the person or program that will hold it, at most 80 characters on one line.
            role: what it may do.
            expires_s: Unix seconds; None: never.
            by: id of the key of who makes it; None: somebody at the service's machine.

        Returns:
            The key, and its text, which is stored nowhere.

        Raises:
            ValueError: the name is empty, too long or has control characters; or the key would expire in the past.
        """
        if not NAME.fullmatch(name):
            raise ValueError("a key's name has 1 to 80 characters on one line")
        if expires_s is not None and not time.time() < expires_s < _LATEST_S:
            raise ValueError("a key expires in the future, before the year 9999")
        id_, secret, salt = new_key_id(), secrets.token_urlsafe(32), secrets.token_bytes(16)
        key = Key(id_, name, role, time.time(), expires_s, None)
        with self._database.write() as rows:
            rows.execute(
                "INSERT INTO keys (id, name, role, salt, hash, created_s, expires_s) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (id_, name, role.text, salt, _hash(secret, salt), key.created_s, expires_s),
            )
            audit.append(rows, Kind.KEY_MADE, by=by, key=id_, role=role.text, expires_s=expires_s)
        return key, f"unmask_{id_}_{secret}"

    def revoke(self, id_: str, by: str | None = None) -> Key:
        """End a key and its sessions now.

        Args:
            id_: of the key.
            by: id of the key of who ends it; None: somebody at the service's machine.

        Raises:
            ProblemError: there is no such key.
        """
        with self._database.write() as rows:
            now_s = time.time()
            if rows.execute("UPDATE keys SET revoked_s = ? WHERE id = ? AND revoked_s IS NULL", (now_s, id_)).rowcount:
                audit.append(rows, Kind.KEY_ENDED, by=by, key=id_)
            rows.execute("DELETE FROM sessions WHERE key_id = ?", (id_,))
        return self.get(id_)

    def get(self, id_: str) -> Key:
        """A key by its id.

        Raises:
            ProblemError: there is no such key.
        """
        row = self._database.read().execute("SELECT * FROM keys WHERE id = ?", (id_,)).fetchone()
        if row is None:
            raise ProblemError(404, Code.NOT_FOUND, "no such key")
        return _key(row)

    def all(self) -> list[Key]:
        """All keys, the newest first, with those that ended."""
        rows = self._database.read().execute("SELECT * FROM keys ORDER BY created_s DESC, id")
        return [_key(row) for row in rows]

    def knows(self, text: str) -> bool:
        """Whether this text was right a moment ago, so that checking it is quick."""
        return hashlib.sha256(text.encode("utf-8", "replace")).digest() in self._known

    def check(self, text: str) -> Key:
        """The valid key of this text.

        Raises:
            ProblemError: it is malformed, unknown, wrong, expired or revoked; the message is the same for each.
        """
        wrong = ProblemError(401, Code.WRONG_KEY, "this key is wrong, has expired or was revoked", _CHALLENGE)
        parts = _KEY.fullmatch(text)
        if parts is None:
            raise wrong
        id_, secret = parts.groups()
        row = self._database.read().execute("SELECT * FROM keys WHERE id = ?", (id_,)).fetchone()
        if row is None:
            _hash(secret, bytes(16))  # as long as for a key that exists
            raise wrong
        quick = hashlib.sha256(text.encode()).digest()
        if self._known.get(quick) != id_:
            if not hmac.compare_digest(_hash(secret, row["salt"]), row["hash"]):
                raise wrong
            with self._lock:
                if len(self._known) >= _MAX_KNOWN:
                    self._known.clear()
                self._known[quick] = id_
        key = _key(row)
        if not key.is_valid(time.time()):
            raise wrong
        return key

    def preferences(self, key: Key) -> dict[str, Any]:
        """How the page shows videos to this person, as it was set last."""
        (text,) = self._database.read().execute("SELECT preferences FROM keys WHERE id = ?", (key.id,)).fetchone()
        found: dict[str, Any] = json.loads(text)
        return found

    def change_preferences(self, key: Key, changed: Mapping[str, Any]) -> dict[str, Any]:
        """Keep some of how the page shows videos to this person; returns all of it."""
        with self._database.write() as rows:
            now = self.preferences(key) | dict(changed)
            rows.execute("UPDATE keys SET preferences = ? WHERE id = ?", (json.dumps(now), key.id))
        return now

    def open_session(self, key: Key) -> tuple[str, str]:
        """Start a session of the page.

        Returns:
            The text of its cookie, which is stored nowhere, and its token against requests from foreign pages.
        """
        text, csrf, now_s = secrets.token_urlsafe(32), secrets.token_urlsafe(32), time.time()
        ends_s = now_s + SESSION_S if key.expires_s is None else min(now_s + SESSION_S, key.expires_s)
        with self._database.write() as rows:
            rows.execute("DELETE FROM sessions WHERE expires_s <= ?", (now_s,))
            rows.execute(
                "INSERT INTO sessions (hash, key_id, csrf, created_s, expires_s) VALUES (?, ?, ?, ?, ?)",
                (_session_hash(text), key.id, csrf, now_s, ends_s),
            )
            audit.append(rows, Kind.SIGNED_IN, by=key.id)
        return text, csrf

    def session(self, text: str) -> Caller | None:
        """The caller of a session's cookie; None if it has ended."""
        query = (
            "SELECT keys.*, sessions.csrf FROM sessions JOIN keys ON keys.id = sessions.key_id "
            "WHERE sessions.hash = ? AND sessions.expires_s > ?"
        )
        now_s = time.time()
        row = self._database.read().execute(query, (_session_hash(text), now_s)).fetchone()
        if row is None or not (key := _key(row)).is_valid(now_s):
            return None
        return Caller(key, row["csrf"])

    def close_session(self, text: str) -> None:
        """End a session."""
        with self._database.write() as rows:
            rows.execute("DELETE FROM sessions WHERE hash = ?", (_session_hash(text),))


_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="unmask"'}


def no_key() -> ProblemError:
    """A request without a key."""
    return ProblemError(401, Code.NO_KEY, "this takes a key: Authorization: Bearer unmask_...", _CHALLENGE)


def new_key_id() -> str:
    """An id, which is not secret."""
    return "".join(secrets.choice("0123456789abcdefghijklmnopqrstuvwxyz") for _ in range(10))


def _hash(secret: str, salt: bytes) -> bytes:
    return hashlib.scrypt(secret.encode(), salt=salt, **_SCRYPT)


def _session_hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _key(row: sqlite3.Row) -> Key:
    return Key(row["id"], row["name"], Role.of(row["role"]), row["created_s"], row["expires_s"], row["revoked_s"])
