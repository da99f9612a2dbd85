"""A copy of a service's folder as one tar file, made while the service writes.

The database comes first, as of one moment; then the other files, as they are. So each file that the database names is
in the copy, but for videos that were erased meanwhile. Uploads that came meanwhile are not in the database: a service
that starts on the copy removes their files.
"""

from __future__ import annotations

import os
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from models.errors import UnmaskError

_TEMPORARY: Final = ".backup-"
# Not of the copy: the lock of a running service, and copies of files that a store has.
_LEFT_OUT: Final = frozenset({"lock", "copies"})
_DATABASE_FILES: Final = ("", "-wal", "-shm", "-journal")


class BackupError(UnmaskError):
    """The copy cannot be made; the message says why."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Backup:
    """What a copy holds.

    Attributes:
        files: number of files besides the database.
        size_bytes: of all of them.
        tables: version of the database's tables.
    """

    files: int
    size_bytes: int
    tables: int


def write_backup(folder: Path, database: str, out: BinaryIO) -> Backup:
    """Write the copy as an uncompressed tar; the copy of the database takes its size in the folder until the end.

    Args:
        folder: of the service, which may be running.
        database: the name of the database's file in it.
        out: needs no seeking.

    Raises:
        BackupError: the database is damaged, or not one.
        OSError: a file cannot be read or written.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=_TEMPORARY) as temporary:
        copy = Path(temporary) / database
        tables = _copy_database(folder / database, copy)
        with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            size_bytes = _add(tar, copy, database)
            files = 0
            for name in _names(folder, database):
                try:
                    size_bytes += _add(tar, folder / name, name)
                except FileNotFoundError:
                    continue  # erased since the database was copied
                files += 1
    return Backup(files, size_bytes, tables)


def _copy_database(source: Path, copy: Path) -> int:
    """Returns the version of its tables, which stay as they are: `Database` would bring them up to date."""
    try:
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, timeout=60.0)) as reading,
            closing(sqlite3.connect(copy)) as writing,
        ):
            # All pages in one step: of one moment. The write-ahead log lets others write meanwhile.
            reading.backup(writing)
            faults = [row[0] for row in writing.execute("PRAGMA integrity_check(3)")]
            (tables,) = writing.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error as error:
        raise BackupError(f"{source}: {error}") from error
    if tables == 0:
        raise BackupError(f"{source} is not a database of `unmask serve`: it has no tables. No copy was made")
    if faults != ["ok"]:
        raise BackupError(f"{source} is damaged: {'; '.join(faults)}. No copy was made: restore an earlier one")
    copy.chmod(0o600)
    return int(tables)


def _names(folder: Path, database: str) -> Iterator[str]:
    left_out = _LEFT_OUT | {database + end for end in _DATABASE_FILES}
    for path in sorted(folder.iterdir()):
        if path.name in left_out or path.name.startswith(_TEMPORARY):
            continue
        # Uploads that are not complete and cannot be continued.
        # No links: with one, a program that can write here would get any file of this account copied.
        found = sorted(path.rglob("*")) if path.is_dir() and not path.is_symlink() else [path]
        yield from (
            each.relative_to(folder).as_posix()
            for each in found
            if each.is_file() and not each.is_symlink() and each.suffix != ".part"
        )


def _add(tar: tarfile.TarFile, path: Path, name: str) -> int:
    """Add a file with the bytes that it has now: it may grow meanwhile."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        member = tarfile.TarInfo(name)
        member.size, member.mtime, member.mode = status.st_size, int(status.st_mtime), 0o600
        tar.addfile(member, file)
    return status.st_size
