"""A service's folder is copied while it works, and a service on the copy has all that the database names."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.web.served import Served, hand_in, judged, serving
from web.audit import check
from web.keys import Role
from web.signing import verifier

COMMAND = (sys.executable, "-c", "import typer; from web.commands.backup import run; typer.run(run)")


def backup(out: str | Path, folder: Path) -> subprocess.CompletedProcess[bytes]:
    command = [*COMMAND, str(out), "--folder", str(folder)]
    return subprocess.run(command, capture_output=True, timeout=100, check=False)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path / "service") as served:
        yield served


@pytest.fixture(scope="module")
def uploads(no_face: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files with different bytes."""
    folder = tmp_path_factory.mktemp("uploads")
    found = []
    for number in range(40):
        path = folder / f"clip-{number}.mp4"
        text = str(number).encode()
        path.write_bytes(no_face.read_bytes() + (8 + len(text)).to_bytes(4, "big") + b"free" + text)
        found.append(path)
    return found


def test_a_copy_that_is_made_during_uploads_is_whole(served: Served, uploads: list[Path], tmp_path: Path) -> None:
    client, folder, restored = served.client(), tmp_path / "service", tmp_path / "restored"
    reviewer = served.key(Role.REVIEW)
    first = judged(client, uploads[0])
    assert client.post(f"/v1/videos/{first['id']}/decisions", json={"decision": "real"}).status_code in (200, 201)
    begun, ended = threading.Event(), threading.Event()

    def upload() -> None:
        for path in uploads[1:]:
            assert hand_in(client, path, wait_s=0).status_code == 202
            begun.set()
            if ended.is_set():
                break

    uploading = threading.Thread(target=upload)
    uploading.start()
    try:
        assert begun.wait(60)
        done = backup(tmp_path / "service.tar", folder)
    finally:
        ended.set()
        uploading.join()
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "service.tar").stat().st_mode & 0o777 == 0o600
    # The service has noticed nothing, and nothing of the copying is left.
    assert client.get("/healthz").status_code == 200
    assert not list(folder.glob(".backup-*"))

    restored.mkdir(mode=0o700)
    subprocess.run(["tar", "--extract", "--file", tmp_path / "service.tar", "--directory", restored], check=True)
    with serving(restored) as again:
        database = again.service.database
        rows = database.read().execute("SELECT id, sha256 FROM videos").fetchall()
        assert first["id"] in {row["id"] for row in rows}
        for row in rows:
            data = (restored / "media" / row["id"][:2] / row["id"]).read_bytes()
            assert hashlib.sha256(data).hexdigest() == row["sha256"]
        files = {path.name for path in (restored / "media").rglob("*") if path.is_file()}
        assert files == {row["id"] for row in rows}  # files of later uploads are removed at the start
        # Keys, decisions, the key that signs and the audit log.
        with again.client(None) as known:
            known.headers["Authorization"] = f"Bearer {reviewer}"
            assert known.get(f"/v1/videos/{first['id']}").status_code == 200
        found = again.client().get(f"/v1/videos/{first['id']}").json()
        assert [each["decision"] for each in found["decisions"]] == ["real"]
        assert database.signer.public == served.service.database.signer.public
        assert check(database.read(), verifier([database.signer.public])).faults == []


def test_a_copy_goes_to_standard_output(served: Served, uploads: list[Path], tmp_path: Path) -> None:
    judged(served.client(), uploads[0])
    done = backup("-", tmp_path / "service")
    assert done.returncode == 0, done.stderr
    (tmp_path / "service.tar").write_bytes(done.stdout)
    with tarfile.open(tmp_path / "service.tar") as tar:
        names = tar.getnames()
    assert names[0] == "unmask.sqlite3"
    assert "signing.key" in names
    assert sum(name.startswith("media/") for name in names) == 1
    assert not {"lock", "unmask.sqlite3-wal", "unmask.sqlite3-shm"} & set(names)


def test_the_tables_of_the_service_stay_as_they_are(tmp_path: Path) -> None:
    """A copy before an update is made by either version: the command must not bring the tables up to date."""
    with sqlite3.connect(tmp_path / "unmask.sqlite3") as connection:
        connection.execute("CREATE TABLE of_another_version (n)")
        connection.execute("PRAGMA user_version = 99")
    # Of a file elsewhere, nothing is copied.
    (tmp_path / "linked").symlink_to(__file__)
    (tmp_path / "folder").symlink_to(Path(__file__).parent)
    done = backup(tmp_path / "copy" / "service.tar", tmp_path)
    # In the folder itself.
    assert done.returncode == 2
    done = backup("-", tmp_path)
    assert done.returncode == 0, done.stderr
    assert b"0 files and the database (tables 99)" in done.stderr


@pytest.mark.parametrize(
    ("damage", "code", "why"),
    [
        (lambda path: path.unlink(), 2, b"no such file"),
        (lambda path: path.write_bytes(b"no database" * 100), 1, b"not a database"),
        (lambda path: _overwrite(path), 1, b""),
        (lambda path: path.write_bytes(b""), 1, b"is not a database of `unmask serve`"),
    ],
    ids=["missing", "not a database", "damaged", "empty"],
)
def test_a_damaged_database_is_not_copied(damage, code: int, why: bytes, tmp_path: Path) -> None:
    folder, out = tmp_path / "service", tmp_path / "service.tar"
    folder.mkdir()
    path = folder / "unmask.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE rows (n INTEGER PRIMARY KEY, text)")
        connection.execute("PRAGMA user_version = 1")
        connection.execute("CREATE INDEX texts ON rows (text)")
        connection.executemany("INSERT INTO rows (text) VALUES (?)", [(os.urandom(500).hex(),) for _ in range(200)])
    damage(path)
    out.write_bytes(b"an earlier copy")
    done = backup(out, folder)
    assert done.returncode == code
    assert why in done.stderr
    assert b"Traceback" not in done.stderr
    assert out.read_bytes() == b"an earlier copy"


def _overwrite(path: Path) -> None:
    """Pages in the middle are of something else."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(b"\x05" * 4096 * 4)
