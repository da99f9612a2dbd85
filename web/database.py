"""The service's SQLite file: one connection a thread, write-ahead log, every commit on disk before it is answered."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from models.errors import UnmaskError
from web.signing import Signer

# Steps from one version of the tables to the next; a file has done the first `PRAGMA user_version` of them.
_STEPS: Final = (
    """
    CREATE TABLE keys (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, role TEXT NOT NULL, salt BLOB NOT NULL, hash BLOB NOT NULL,
        created_s REAL NOT NULL, expires_s REAL, revoked_s REAL
    );
    CREATE TABLE sessions (
        hash BLOB PRIMARY KEY, key_id TEXT NOT NULL REFERENCES keys, csrf TEXT NOT NULL,
        created_s REAL NOT NULL, expires_s REAL NOT NULL
    );
    CREATE TABLE videos (
        n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL DEFAULT 1,
        key_id TEXT NOT NULL REFERENCES keys, idempotency TEXT, name TEXT NOT NULL, source_class TEXT NOT NULL,
        uri TEXT, media_type TEXT, size_bytes INTEGER, sha256 TEXT,
        state TEXT NOT NULL, tries INTEGER NOT NULL DEFAULT 0,
        created_s REAL NOT NULL, started_s REAL, finished_s REAL,
        outcome TEXT, label TEXT, probability REAL, people INTEGER, record TEXT, thresholds TEXT,
        UNIQUE (key_id, idempotency)
    );
    CREATE INDEX videos_waiting ON videos (state, n);
    CREATE INDEX videos_ranked ON videos (probability, n);
    CREATE TABLE portraits (
        video INTEGER NOT NULL REFERENCES videos ON DELETE CASCADE, track INTEGER NOT NULL, i INTEGER NOT NULL,
        kind TEXT NOT NULL, t_s REAL NOT NULL, probability REAL NOT NULL, quality REAL NOT NULL, jpeg BLOB NOT NULL,
        PRIMARY KEY (video, track, i)
    ) WITHOUT ROWID;
    CREATE TABLE decisions (
        n INTEGER PRIMARY KEY AUTOINCREMENT, video INTEGER NOT NULL REFERENCES videos ON DELETE CASCADE,
        track INTEGER, decision TEXT NOT NULL, reason TEXT NOT NULL, comment TEXT NOT NULL,
        key_id TEXT NOT NULL REFERENCES keys, made_s REAL NOT NULL, undone_s REAL
    );
    CREATE INDEX decisions_of ON decisions (video, n);
    """,
    """
    CREATE TABLE webhooks (
        id TEXT PRIMARY KEY, key_id TEXT NOT NULL REFERENCES keys, url TEXT NOT NULL, events TEXT NOT NULL,
        created_s REAL NOT NULL
    );
    CREATE TABLE deliveries (
        n INTEGER PRIMARY KEY AUTOINCREMENT, webhook TEXT NOT NULL REFERENCES webhooks ON DELETE CASCADE,
        event TEXT NOT NULL, body TEXT NOT NULL, state TEXT NOT NULL, tries INTEGER NOT NULL DEFAULT 0,
        made_s REAL NOT NULL, due_s REAL NOT NULL, error TEXT
    );
    CREATE INDEX deliveries_due ON deliveries (state, due_s);
    CREATE INDEX deliveries_of ON deliveries (webhook, n);
    """,
    """
    ALTER TABLE videos ADD COLUMN strength TEXT;
    ALTER TABLE videos ADD COLUMN round TEXT;
    ALTER TABLE videos ADD COLUMN answer TEXT;
    ALTER TABLE videos ADD COLUMN golden TEXT;
    ALTER TABLE videos ADD COLUMN audited INTEGER NOT NULL DEFAULT 0;
    UPDATE videos SET strength = json_extract(record, '$.evidence.strength') WHERE record IS NOT NULL;
    UPDATE videos SET answer = (
        SELECT decision FROM decisions WHERE video = videos.n AND track IS NULL AND undone_s IS NULL ORDER BY n LIMIT 1
    );
    UPDATE videos SET round = CASE WHEN answer IS NULL THEN 'first' ELSE 'closed' END WHERE state = 'done';
    CREATE INDEX videos_reviewed ON videos (round, n);
    CREATE INDEX videos_golden ON videos (golden) WHERE golden IS NOT NULL;
    ALTER TABLE decisions ADD COLUMN blind INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE keys ADD COLUMN preferences TEXT NOT NULL DEFAULT '{}';
    CREATE TABLE leases (
        video INTEGER PRIMARY KEY REFERENCES videos ON DELETE CASCADE, key_id TEXT NOT NULL REFERENCES keys,
        expires_s REAL NOT NULL
    );
    CREATE TABLE skips (
        video INTEGER NOT NULL REFERENCES videos ON DELETE CASCADE, key_id TEXT NOT NULL REFERENCES keys,
        reason TEXT NOT NULL, made_s REAL NOT NULL, PRIMARY KEY (video, key_id)
    ) WITHOUT ROWID;
    CREATE TABLE secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL);
    CREATE TABLE views (
        id TEXT PRIMARY KEY, key_id TEXT NOT NULL REFERENCES keys, name TEXT NOT NULL, query TEXT NOT NULL,
        shared INTEGER NOT NULL, created_s REAL NOT NULL
    );
    CREATE TABLE actions (
        n INTEGER PRIMARY KEY AUTOINCREMENT, key_id TEXT NOT NULL REFERENCES keys, kind TEXT NOT NULL,
        data TEXT NOT NULL, made_s REAL NOT NULL
    );
    """,
    # A task outlives its video until the workers' record of it is deleted, so it has no foreign key.
    """
    CREATE TABLE tasks (
        video TEXT PRIMARY KEY, intended_s REAL NOT NULL, submitted_s REAL, again INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    CREATE TABLE streams (
        id TEXT PRIMARY KEY, key_id TEXT REFERENCES keys, created_s REAL NOT NULL, ended_s REAL
    );
    CREATE INDEX streams_open ON streams (ended_s);
    CREATE INDEX videos_by_outcome ON videos (outcome, finished_s);
    """,
    """
    ALTER TABLE videos ADD COLUMN start_s REAL;
    ALTER TABLE videos ADD COLUMN end_s REAL;
    CREATE TABLE uploads (
        id TEXT PRIMARY KEY, key_id TEXT NOT NULL REFERENCES keys, idempotency TEXT, metadata TEXT NOT NULL,
        name TEXT NOT NULL, source_class TEXT NOT NULL, start_s REAL, end_s REAL,
        length INTEGER NOT NULL, at INTEGER NOT NULL DEFAULT 0, touched_s REAL NOT NULL, video TEXT,
        UNIQUE (key_id, idempotency)
    );
    """,
    """
    ALTER TABLE videos ADD COLUMN credentials TEXT;
    CREATE TABLE accounts (
        issuer TEXT NOT NULL, subject TEXT NOT NULL, key_id TEXT NOT NULL UNIQUE REFERENCES keys,
        PRIMARY KEY (issuer, subject)
    ) WITHOUT ROWID;
    """,
    """
    ALTER TABLE portraits ADD COLUMN place TEXT;
    CREATE TABLE explanations (
        video INTEGER NOT NULL, track INTEGER NOT NULL, i INTEGER NOT NULL, facts TEXT NOT NULL, picture BLOB,
        PRIMARY KEY (video, track, i), FOREIGN KEY (video, track, i) REFERENCES portraits ON DELETE CASCADE
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE prints (video INTEGER PRIMARY KEY REFERENCES videos ON DELETE CASCADE, hashes BLOB NOT NULL);
    CREATE TABLE similar (
        video INTEGER NOT NULL REFERENCES videos ON DELETE CASCADE,
        other INTEGER NOT NULL REFERENCES videos ON DELETE CASCADE,
        share REAL NOT NULL, other_share REAL NOT NULL, distance REAL NOT NULL, PRIMARY KEY (video, other)
    ) WITHOUT ROWID;
    CREATE INDEX similar_other ON similar (other);
    CREATE INDEX videos_sha256 ON videos (sha256);
    CREATE INDEX videos_uri ON videos (uri);
    """,
    """
    ALTER TABLE prints ADD COLUMN middles BLOB NOT NULL DEFAULT x'';
    """,
    """
    ALTER TABLE tasks ADD COLUMN tries_left INTEGER NOT NULL DEFAULT 3;
    CREATE INDEX tasks_without_pictures ON tasks (video) WHERE tries_left > 0;
    """,
    """
    CREATE TABLE audit (
        n INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL, hash TEXT NOT NULL, signature BLOB NOT NULL
    );
    CREATE TABLE audit_seals (
        day TEXT PRIMARY KEY, n INTEGER NOT NULL, hash TEXT NOT NULL, signature BLOB NOT NULL
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE appeals (
        n INTEGER PRIMARY KEY AUTOINCREMENT, video INTEGER NOT NULL REFERENCES videos ON DELETE CASCADE,
        key_id TEXT NOT NULL REFERENCES keys, reason TEXT NOT NULL, salt TEXT NOT NULL, against TEXT,
        after INTEGER NOT NULL, made_s REAL NOT NULL
    );
    CREATE INDEX appeals_of ON appeals (video, n);
    ALTER TABLE decisions ADD COLUMN salt TEXT NOT NULL DEFAULT '';
    """,
    # Ids in `rescore_keys` outlive their videos until Redis has nothing of them, so they have no foreign key.
    """
    CREATE TABLE rescore_runs (
        n INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, weights TEXT NOT NULL, sha256 TEXT NOT NULL,
        since_s REAL, until_s REAL, begun_s REAL NOT NULL, ended_s REAL, notified_s REAL
    );
    CREATE TABLE rescores (
        run INTEGER NOT NULL REFERENCES rescore_runs ON DELETE CASCADE,
        video INTEGER NOT NULL REFERENCES videos ON DELETE CASCADE,
        tries INTEGER NOT NULL DEFAULT 0, left_out TEXT, finished_s REAL,
        outcome TEXT, label TEXT, probability REAL, record TEXT, before TEXT, before_s REAL, replayed TEXT,
        in_redis INTEGER NOT NULL DEFAULT 0, notified_s REAL, PRIMARY KEY (run, video)
    );
    CREATE INDEX rescores_of ON rescores (video);
    CREATE TABLE rescore_keys (video TEXT PRIMARY KEY) WITHOUT ROWID;
    """,
    """
    CREATE TABLE weights (sha256 TEXT PRIMARY KEY, name TEXT NOT NULL, made_s REAL, source TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE drift_counts (
        video INTEGER PRIMARY KEY REFERENCES videos ON DELETE CASCADE, judged_s REAL NOT NULL, weights TEXT NOT NULL,
        counts TEXT NOT NULL, novelty REAL, typical REAL
    );
    CREATE TABLE drift_result (
        n INTEGER PRIMARY KEY CHECK (n = 1), reference TEXT, alarms TEXT NOT NULL, data TEXT NOT NULL
    );
    """,
    # In which split the labels of a video were exported first: what was trained on never becomes a test.
    """
    CREATE TABLE label_splits (
        video INTEGER PRIMARY KEY REFERENCES videos ON DELETE CASCADE, split TEXT NOT NULL
    );
    """,
    # The traces of who handed a video in, of a stream's last segment, and of what a message is about.
    """
    ALTER TABLE videos ADD COLUMN trace TEXT;
    ALTER TABLE streams ADD COLUMN trace TEXT;
    ALTER TABLE deliveries ADD COLUMN trace TEXT;
    """,
)
# A writer waits this long for another one, in seconds.
_BUSY_S: Final = 30.0


def _chance(id_: str) -> float:
    """A random number from 0 to 1 that a video keeps: by a hash of its id."""
    return int.from_bytes(hashlib.sha256(f"chance:{id_}".encode()).digest()[:6]) / 2**48


class DatabaseError(UnmaskError):
    """The file is not this service's, or of a later version."""


class Database:
    """The tables. Safe to share between threads.

    Args:
        path: the file; it is made if it does not exist. The key that signs is next to it.

    Attributes:
        signer: signs the audit log, and what is sent to others.

    Raises:
        DatabaseError: it is of a later version, or not a database.
        SigningError: the key that signs is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.signer = Signer(path.with_name("signing.key"))
        self._path = path
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        try:
            self._upgrade()
        except sqlite3.DatabaseError as error:
            raise DatabaseError(f"{path}: {error}") from error

    def read(self) -> sqlite3.Connection:
        """This thread's connection, for queries."""
        found: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if found is None:
            found = self._local.connection = self._connect()
        return found

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it is on disk at the end of the block, or nothing after an error."""
        connection = self.read()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def erase(self) -> None:
        """Let nothing that was deleted stay in the log of changes. While somebody reads from it, nothing is done."""
        connection = self.read()
        connection.execute("PRAGMA busy_timeout = 0")
        try:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise
        finally:
            connection.execute(f"PRAGMA busy_timeout = {round(_BUSY_S * 1000)}")

    def close(self) -> None:
        """Close all connections; no thread may use them any more."""
        with self._lock:
            for connection in self._open:
                connection.close()
            self._open.clear()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        # SQLite's lower() knows ASCII only.
        connection.create_function("casefold", 1, str.casefold, deterministic=True)
        connection.create_function("chance", 1, _chance, deterministic=True)
        # What the audit log is signed with.
        connection.create_function("sign", 1, self._sign, deterministic=True)
        connection.execute("PRAGMA journal_mode = WAL")
        # In WAL mode "normal" may lose the last commits when the machine loses power.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        # What is deleted is overwritten with zeros.
        connection.execute("PRAGMA secure_delete = ON")
        with self._lock:
            self._open.append(connection)
        return connection

    def _sign(self, data: str | bytes) -> bytes:
        return self.signer.sign(data.encode() if isinstance(data, str) else data)

    def _upgrade(self) -> None:
        # Usually nothing is to be done, and somebody else may be writing.
        if self.read().execute("PRAGMA user_version").fetchone()[0] == len(_STEPS):
            return
        with self.write() as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > len(_STEPS):
                raise DatabaseError(
                    f"{self._path}: written by a later version of Unmask (tables {version}, this one knows "
                    f"{len(_STEPS)}): update Unmask, or take another folder"
                )
            for step in _STEPS[version:]:
                for statement in filter(str.strip, step.split(";")):
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {len(_STEPS)}")
