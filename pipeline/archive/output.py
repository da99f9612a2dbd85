"""The folder of an archive: of this machine, or behind a URI of fsspec; files appear in it whole."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import IO, Any, BinaryIO, Final

from models.atomic import atomic_write
from models.errors import UnmaskError
from pipeline.settings import Settings
from pipeline.sources import check_uri, is_uri
from pipeline.visible import masked

_JOURNALS: Final = "journal"
_LOCK: Final = ".lock"
# What `atomic_write` leaves where its process is killed.
_TEMPORARY: Final = ".*.*.tmp"
_COPY_BYTES: Final = 1 << 20


class NotWrittenError(UnmaskError):
    """A file of the output cannot be written, such as on a full disk; the message names it."""

    exit_code = 1


class NotReadError(UnmaskError):
    """A file of the output cannot be read."""

    exit_code = 1


class OutFolder:
    """The output of an archive.

    Args:
        target: a path, or a URI such as s3://bucket/archive.

    Attributes:
        target: without a slash at its end; a path is absolute, since workers may have other working folders.
        shown: for people, without name and password.
        path: the folder on this machine; None behind a URI.

    Raises:
        SourceError: the scheme is not opened.
        ValueError: no file system is known for it, or it cannot be written to.
    """

    def __init__(self, target: str) -> None:
        plain = target.removeprefix("file://")
        self.path = None if is_uri(plain) else Path(plain).expanduser().absolute()
        self.target = target.rstrip("/") if self.path is None else str(self.path)
        self.shown = masked(self.target)
        self._files: Any = None
        if self.path is None:
            import fsspec

            check_uri(self.target, chains=False)
            if self.target.startswith(("http://", "https://")):
                raise ValueError(f"{self.shown}: nothing can be written to http(s); name a folder or a store")
            try:
                # Listings are read again: other workers write there.
                self._files, self._root = fsspec.core.url_to_fs(self.target, use_listings_cache=False)
            except (ValueError, ImportError) as error:
                raise ValueError(f"{self.shown}: {masked(str(error))}") from error

    def names(self) -> dict[str, int]:
        """Sizes in bytes of what it holds, by name; empty if it does not exist.

        Raises:
            NotReadError: it cannot be listed.
        """
        with self._reading(""):
            if self.path is not None:
                if not self.path.exists():
                    return {}
                with os.scandir(self.path) as entries:
                    return {entry.name: entry.stat(follow_symlinks=False).st_size for entry in entries}
            try:
                listed = self._files.ls(self._root, detail=True)
            except FileNotFoundError:
                return {}
            return {str(info["name"]).rstrip("/").rpartition("/")[2]: int(info["size"] or 0) for info in listed}

    def write(self, name: str, content: bytes | IO[bytes]) -> None:
        """Write a file, whole or not at all; an earlier one of this name is replaced.

        Args:
            name: of the file.
            content: its bytes, or an open file that is read from its start.

        Raises:
            NotWrittenError: it cannot be written.
        """
        with self._writing(name), ExitStack() as stack:
            if self.path is not None:
                target: IO[bytes] = stack.enter_context(atomic_write(self.path / name))
            else:
                self._files.makedirs(self._root, exist_ok=True)
                stack.enter_context(self._files.transaction)
                target = stack.enter_context(self._files.open(f"{self._root}/{name}", "wb"))
            if isinstance(content, bytes):
                target.write(content)
            else:
                content.seek(0)
                shutil.copyfileobj(content, target, _COPY_BYTES)

    def read(self, name: str) -> bytes | None:
        """The bytes of a small file; None: it does not exist.

        Raises:
            NotReadError: it cannot be read.
        """
        with self._reading(name):
            try:
                if self.path is not None:
                    return (self.path / name).read_bytes()
                return bytes(self._files.cat_file(f"{self._root}/{name}"))
            except FileNotFoundError:
                return None

    @contextmanager
    def opened(self, name: str) -> Iterator[BinaryIO]:
        """A file of any size, which can be read at any place: behind a URI, a temporary copy.

        Raises:
            NotReadError: it does not exist, or cannot be read.
        """
        with ExitStack() as stack:
            with self._reading(name):
                if self.path is not None:
                    file: BinaryIO = stack.enter_context((self.path / name).open("rb"))
                else:
                    file = stack.enter_context(TemporaryFile(prefix="unmask-"))
                    with self._files.open(f"{self._root}/{name}", "rb") as remote:
                        shutil.copyfileobj(remote, file, _COPY_BYTES)
                    file.seek(0)
            yield file

    def sha256(self, name: str) -> str:
        """Of a file's bytes, as lower-case hex digits.

        Raises:
            NotReadError: it cannot be read.
        """
        with self.opened(name) as file, self._reading(name):
            return digest_of(file)

    def delete(self, name: str) -> None:
        """Delete a file, if it exists.

        Raises:
            NotWrittenError: it exists and cannot be deleted.
        """
        with self._writing(name), suppress(FileNotFoundError):
            if self.path is not None:
                (self.path / name).unlink()
            else:
                self._files.rm_file(f"{self._root}/{name}")

    def journals(self, key: str) -> Path:
        """The folder for what parts under way have found: in the output if it is a path, else in the cache.

        Args:
            key: of the plan.
        """
        if self.path is not None:
            return self.path / _JOURNALS
        return Settings().cache_dir / "archives" / key

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Only one process at a time; it begins by removing what a killed one left half written.

        Behind a URI nothing is locked, and nothing is left.

        Raises:
            NotWrittenError: the folder cannot be made or written.
            ValueError: another process has it.
        """
        if self.path is None:
            yield
            return
        with ExitStack() as stack:
            with self._writing(_LOCK):
                self.path.mkdir(parents=True, exist_ok=True)
                lock = stack.enter_context((self.path / _LOCK).open("wb"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ValueError(f"{self.shown}: another unmask archive is at work there") from error
            with self._writing(""):
                for path in self.path.glob(_TEMPORARY):
                    path.unlink(missing_ok=True)
            yield

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        try:
            yield
        except NotWrittenError:
            raise
        except Exception as error:  # plug-in file systems raise anything
            raise NotWrittenError(f"{self.shown}/{name}: cannot be written: {_reason(error)}") from error

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # plug-in file systems raise anything
            raise NotReadError(f"{self.shown}/{name}: cannot be read: {_reason(error)}") from error


def digest_of(file: BinaryIO) -> str:
    """The sha256 of a file's bytes, from its start, as lower-case hex digits."""
    digest = hashlib.sha256()
    file.seek(0)
    while block := file.read(_COPY_BYTES):
        digest.update(block)
    return digest.hexdigest()


@contextmanager
def scratch() -> Iterator[BinaryIO]:
    """An unnamed temporary file, to be written and then copied to where it belongs.

    Raises:
        NotWrittenError: it cannot be written, such as on a full disk.
    """
    try:
        with TemporaryFile(prefix="unmask-") as file:
            yield file
    except OSError as error:
        raise NotWrittenError(f"{gettempdir()}: a temporary file cannot be written: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else f"{type(error).__name__}: {error}"
    return masked(text)
