"""Atomic file writes: a file exists whole or not at all."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that is renamed to `path` if the block ends without an error, and deleted otherwise.

    Bytes and name are both on disk afterwards (fsync of the file and of its directory): a crash at any time
    leaves either the old file or the new one. Missing parent directories are made. A link stays, and the file that it
    names is replaced; a device or a named pipe is written to directly.

    Raises:
        OSError: the file cannot be written; `path` is as it was.
    """
    if _is_special(path):
        with path.open("wb") as file:
            yield file
        return
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        durable_rename(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Check that `path` can become a file, by a temporary file beside it; missing parent directories are made.

    Raises:
        OSError: it cannot; the message says why.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder")
    if _is_special(path):
        return
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        # Otherwise the message names the temporary file.
        raise OSError(error.errno, f"{error.strerror or error}, in its folder", str(path)) from error


def _is_special(path: Path) -> bool:
    """Whether it exists, and is neither a file nor a folder."""
    return path.exists() and not path.is_file() and not path.is_dir()


def durable_rename(source: Path, target: Path) -> None:
    """Rename within one directory, replacing `target`, and wait until the directory is on disk."""
    source.replace(target)
    directory = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
