"""Clips behind paths and fsspec URIs, opened once and hashed."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, Self

from models.errors import UnmaskError
from pipeline import http_fetch
from pipeline.contracts import Outcome, clip_id_of
from pipeline.settings import Settings

# A scheme and ://, perhaps behind links of a chain without an address of their own (simplecache::s3://...).
_URI = re.compile(r"(?:[a-z][a-z0-9+.-]*::)*[a-z][a-z0-9+.-]*://")
HTTP = ("http://", "https://")
# File systems that read one file and nothing else. Others (archives, caches, git, github, reference ...) open more.
_SCHEMES = "file http https s3 s3a gs gcs az abfs abfss adl oss ftp sftp ssh hdfs webhdfs smb memory"
SCHEMES = frozenset(_SCHEMES.split())
# Of these, the ones whose URIs name a host to connect to; others name a bucket.
_WITH_HOSTS = frozenset({"ftp", "sftp", "ssh", "smb", "hdfs", "webhdfs"})
# Without O_NONBLOCK, opening a named pipe would wait for a writer.
OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
_READ_BYTES = 1 << 20
# How often a file is looked at that may still grow.
_LOOK_AGAIN_S = 0.5
# Transient errors: the machine lacks a resource, or a network disk fails.
_PASSING = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EINTR}
)


class SourceError(UnmaskError):
    """A source cannot be fetched or opened.

    Attributes:
        outcome: `unavailable` or `over_limit`.
        transient: another try may succeed.
    """

    def __init__(self, outcome: Outcome, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.transient = transient


class ScanInterruptedError(Exception):
    """The scan was stopped before this clip was done; it has no verdict."""


class Guard(http_fetch.Guard, Protocol):
    """What may be opened on behalf of others, who named it in a message."""

    def open_file(self, path: str) -> int:
        """Open a file for reading, and return its descriptor.

        Raises:
            SourceError: it may not be read.
            OSError: it cannot be opened.
        """


@dataclass(frozen=True, slots=True)
class Source:
    """One clip to be judged.

    Attributes:
        name: path or URI as given, or as found in a folder that was given.
        given_id: id of a task; None derives one from the name.
        is_path: the name is that of a file, even if it looks like a URI; None: it is a URI if it looks like one.
        guard: what may be opened where others named it; None: everything.
    """

    name: str
    given_id: str | None = None
    is_path: bool | None = None
    guard: Guard | None = None

    @property
    def id(self) -> str:
        """Id of the record."""
        return self.given_id or clip_id_of(self.name)

    @property
    def is_remote(self) -> bool:
        """Whether it has to be fetched: a URI that is not a file's."""
        return not self.is_path and is_uri(self.name) and not self.name.startswith("file://")

    @property
    def path(self) -> str:
        """Path of a source that is not remote."""
        return self.name if self.is_path else self.name.removeprefix("file://")


@dataclass(frozen=True, slots=True)
class SourceLimits:
    """What is opened at most.

    Attributes:
        max_fetch_bytes: of a URI.
        max_file_bytes: of a file; each is read once from start to end.
        chains: open fsspec's chains of URIs (`zip://a.mp4::s3://bucket/a.zip`).
        quiet_s: wait until a file has not changed for this long, in seconds: it may still be recorded.
    """

    max_fetch_bytes: int = 8 << 30
    max_file_bytes: int = 256 << 30
    chains: bool = False
    quiet_s: float = 0.0

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The limits that the environment sets."""
        return cls(settings.max_fetch_bytes, settings.max_file_bytes, settings.uri_chains)


def is_uri(name: str) -> bool:
    """Whether a name looks like a URI (`scheme://...`, or a chain of them) rather than a path."""
    return _URI.match(name) is not None


def check_uri(uri: str, *, chains: bool) -> None:
    """Refuse a URI that would make fsspec do more than read one file: other file systems, archives, caches, commands.

    Raises:
        SourceError: it is a chain without `chains`, or of a scheme that is not in `SCHEMES`.
    """
    if uri.startswith(HTTP):
        return  # not fsspec's: its colons mean nothing
    if "::" in uri:
        if not chains:
            raise SourceError(Outcome.UNAVAILABLE, "a chain of URIs (::) is not opened unless UNMASK_URI_CHAINS is 1")
        return
    scheme = uri.partition("://")[0]
    if scheme not in SCHEMES:
        raise SourceError(
            Outcome.UNAVAILABLE, f"the scheme {scheme!r} is not opened; these are: {', '.join(sorted(SCHEMES))}"
        )


@dataclass(frozen=True, slots=True)
class Opened:
    """A clip's bytes: an open file at its start, and their sha256."""

    fd: int
    sha256: str
    size_bytes: int


@contextmanager
def open_source(
    source: Source, limits: SourceLimits | None = None, *, stop: Callable[[], bool] = lambda: False
) -> Iterator[Opened]:
    """Open a clip, fetching it first if it is remote; its bytes are hashed and the file closed at the end.

    The bytes that were hashed must be those that the block reads: a file that changes meanwhile ends with an error.

    Args:
        source: the clip; its guard, if any, is asked before anything is opened.
        limits: on sizes, and what is opened at all.
        stop: asked between two blocks, whether to end.

    Raises:
        SourceError: it is missing, not a regular file, cannot be read or fetched, is too large, may not be read, or
            changed while it was read (at the end of the block, unless that raised an error).
        ScanInterruptedError: `stop` said so.
    """
    limits = limits or SourceLimits()
    try:
        fd = _fetch(source, limits, stop) if source.is_remote else _open_file(source.path, source.guard)
    except OSError as error:
        message = f"cannot be opened: {error.strerror or error}"
        raise SourceError(Outcome.UNAVAILABLE, message, transient=error.errno in _PASSING) from error
    try:
        _wait_until_quiet(fd, limits.quiet_s, stop)
        before = os.fstat(fd)
        size_bytes = before.st_size
        if size_bytes > limits.max_file_bytes and not source.is_remote:
            raise SourceError(
                Outcome.OVER_LIMIT,
                f"holds {size_bytes} bytes; at most {limits.max_file_bytes} are read (UNMASK_MAX_FILE_BYTES)",
            )
        try:
            sha256 = _hash(fd, stop)
        except OSError as error:
            message = f"cannot be read: {error.strerror or error}"
            raise SourceError(Outcome.UNAVAILABLE, message, transient=error.errno in _PASSING) from error
        yield Opened(fd, sha256, size_bytes)
        after = os.fstat(fd)
        if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise SourceError(
                Outcome.UNAVAILABLE,
                f"changed while it was read: from {size_bytes} to {after.st_size} bytes",
                transient=True,
            )
    finally:
        os.close(fd)


def _wait_until_quiet(fd: int, quiet_s: float, stop: Callable[[], bool]) -> None:
    known, since_s = None, time.monotonic()
    while quiet_s > 0:
        status = os.fstat(fd)
        if (now := (status.st_size, status.st_mtime_ns)) != known:
            known, since_s = now, time.monotonic()
        elif time.monotonic() - since_s >= quiet_s:
            return
        if stop():
            raise ScanInterruptedError
        time.sleep(min(_LOOK_AGAIN_S, quiet_s / 4))


def _open_file(path: str, guard: Guard | None) -> int:
    fd = os.open(path, OPEN_FLAGS) if guard is None else guard.open_file(path)
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        what = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise SourceError(Outcome.UNAVAILABLE, f"cannot be opened: it is {what}")
    return fd


def _fetch(source: Source, limits: SourceLimits, stop: Callable[[], bool]) -> int:
    """Copy a URI's content into an unnamed temporary file; returns its descriptor."""
    uri = source.name
    check_uri(uri, chains=limits.chains)
    with tempfile.TemporaryFile(prefix="unmask-") as copy:
        written = 0

        def write(block: bytes) -> None:
            nonlocal written
            if stop():
                raise ScanInterruptedError
            written += len(block)
            if written > limits.max_fetch_bytes:
                raise SourceError(
                    Outcome.OVER_LIMIT,
                    f"holds more than {limits.max_fetch_bytes} bytes, the limit for what is fetched "
                    "(UNMASK_MAX_FETCH_BYTES)",
                )
            copy.write(block)

        try:
            if uri.startswith(HTTP):
                http_fetch.fetch(uri, write, guard=source.guard, stop=stop)
            else:
                _fetch_by_fsspec(uri, write, source.guard)
        except (SourceError, ScanInterruptedError):
            raise
        except http_fetch.StoppedError as error:
            raise ScanInterruptedError from error
        except http_fetch.FetchError as error:
            raise SourceError(Outcome.UNAVAILABLE, f"cannot be fetched: {error}", transient=error.transient) from error
        except Exception as error:  # plug-in file systems raise anything
            message = f"cannot be fetched: {type(error).__name__}: {error}"
            # A missing or forbidden file is not transient.
            lasting = isinstance(error, FileNotFoundError | PermissionError | ImportError | ValueError)
            raise SourceError(Outcome.UNAVAILABLE, message, transient=not lasting) from error
        copy.flush()
        return os.dup(copy.fileno())


def _fetch_by_fsspec(uri: str, write: Callable[[bytes], None], guard: Guard | None) -> None:
    import fsspec

    if guard is not None:
        guard.check(uri)
        if uri.partition("://")[0] in _WITH_HOSTS:
            http_fetch.check_host(uri, guard)
    with fsspec.open(uri, "rb") as remote:
        while block := remote.read(_READ_BYTES):
            write(block)


def _hash(fd: int, stop: Callable[[], bool]) -> str:
    digest = hashlib.sha256()
    os.lseek(fd, 0, os.SEEK_SET)
    while block := os.read(fd, _READ_BYTES):
        if stop():
            raise ScanInterruptedError
        digest.update(block)
    os.lseek(fd, 0, os.SEEK_SET)
    return digest.hexdigest()
