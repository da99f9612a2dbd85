"""Files of earlier versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from web import database
from web.database import Database, DatabaseError
from web.listing import Filter, VideoList
from web.rounds import Choice, Round


def test_decisions_of_an_earlier_version_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "unmask.sqlite3"
    with monkeypatch.context() as earlier:
        earlier.setattr(database, "_STEPS", database._STEPS[:2])
        old = Database(path)
        with old.write() as rows:
            rows.execute(
                "INSERT INTO keys (id, name, role, salt, hash, created_s) VALUES ('k', 'k', 'review', '', '', 0)"
            )
            for n, state in enumerate(("done", "done", "queued"), 1):
                record = '{"evidence": {"strength": "weak"}}' if state == "done" else None
                rows.execute(
                    "INSERT INTO videos (n, id, key_id, name, source_class, state, created_s, record) "
                    "VALUES (?, ?, 'k', 'a.mp4', 'upload', ?, 0, ?)",
                    (n, str(n), state, record),
                )
            for n, (decision, undone_s) in enumerate((("real", 1.0), ("fake", None)), 7):
                rows.execute(
                    "INSERT INTO decisions (n, video, track, decision, reason, comment, key_id, made_s, undone_s) "
                    "VALUES (?, 2, NULL, ?, '', '', 'k', 0, ?)",
                    (n, decision, undone_s),
                )
        old.close()
    listed = VideoList(Database(path))
    found = listed.page(Filter(), sort="created").videos
    assert [(video.round, video.answer) for video in found] == [
        (Round.FIRST, None),
        (Round.CLOSED, Choice.FAKE),
        (None, None),
    ]
    strengths = Database(path).read().execute("SELECT strength FROM videos ORDER BY n")
    assert [row["strength"] for row in strengths] == ["weak", "weak", None]


def test_a_file_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "unmask.sqlite3"
    with Database(path).write() as rows:
        rows.execute("PRAGMA user_version = 1000")
    with pytest.raises(DatabaseError, match="later version"):
        Database(path)


def test_what_was_deleted_stays_no_longer_than_somebody_reads(tmp_path: Path) -> None:
    path = tmp_path / "unmask.sqlite3"
    database, other = Database(path), Database(path)
    with database.write() as rows:
        rows.execute("INSERT INTO secrets (name, value) VALUES ('a', ?)", (b"needle " * 3000,))
    database.erase()
    reading = other.read().execute("SELECT * FROM secrets, sqlite_schema")
    reading.fetchone()
    with database.write() as rows:
        rows.execute("DELETE FROM secrets")
    database.erase()  # it does not wait for the reader
    reading.close()
    database.erase()
    assert (tmp_path / "unmask.sqlite3-wal").stat().st_size == 0
    assert b"needle" not in path.read_bytes()
