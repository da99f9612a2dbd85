"""Clips from the user's arguments: files, folders, globs and fsspec URIs, opened once and hashed."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from models.errors import UnmaskError
from pipeline import http_fetch
from pipeline.contracts import Outcome, clip_id_of
from pipeline.settings import Settings

# Containers and pictures in the reader's allow-list of demuxers.
_CONTAINERS = "mp4 m4v mov qt 3gp 3g2 mkv webm avi ts mts m2ts mpg mpeg vob flv wmv asf ogv ogg mxf"
_PICTURES = "gif jpg jpeg png webp bmp tif tiff"
MEDIA_SUFFIXES = frozenset(f".{name}" for name in f"{_CONTAINERS} {_PICTURES}".split())
# The magic numbers of media files without an extension: (offset, magic).
_MAGIC = (
    (4, b"ftyp"),  # MP4, MOV
    (0, b"\x1a\x45\xdf\xa3"),  # Matroska, WebM
    (8, b"AVI "),
    (0, b"FLV\x01"),
    (0, b"OggS"),
    (0, b"\x00\x00\x01\xba"),  # MPEG program stream
    (0, b"\x30\x26\xb2\x75"),  # ASF
    (0, b"GIF8"),
    (0, b"\xff\xd8\xff"),  # JPEG
    (0, b"\x89PNG"),
    (8, b"WEBP"),
)
# A scheme and ://, perhaps behind links of a chain without an address of their own (simplecache::s3://...).
_URI = re.compile(r"(?:[a-z][a-z0-9+.-]*::)*[a-z][a-z0-9+.-]*://")
HTTP = ("http://", "https://")
# File systems that read one file and nothing else. Others (archives, caches, git, github, reference ...) open more.
_SCHEMES = "file http https s3 s3a gs gcs az abfs abfss adl oss ftp sftp ssh hdfs webhdfs smb memory"
SCHEMES = frozenset(_SCHEMES.split())
# Without O_NONBLOCK, opening a named pipe would wait for a writer.
OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
_MPEG_TS_PACKET_BYTES = 188
_READ_BYTES = 1 << 20
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
    """

    max_fetch_bytes: int = 8 << 30
    max_file_bytes: int = 256 << 30
    chains: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The limits that the environment sets."""
        return cls(settings.max_fetch_bytes, settings.max_file_bytes, settings.uri_chains)


@dataclass(frozen=True, slots=True)
class Found:
    """What `expand` found: the clips, each once, in the order named, and how many files in folders were skipped."""

    sources: tuple[Source, ...]
    skipped: int


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


def expand(names: Sequence[str], *, recursive: bool = False, chains: bool = False) -> Found:
    """The clips behind paths, folders, globs and URIs.

    A folder yields its media files (by extension, by content without one), with `recursive` those of its sub-folders
    too. Any other name yields itself, so that it gets a record even if it is missing; so does a folder with a clip's
    extension. What exists as a path, and what a folder or a glob holds, is a path, even if it looks like a URI.

    Args:
        names: as given.
        recursive: include sub-folders.
        chains: expand chains of URIs, too.
    """
    sources: dict[str, Source] = {}
    skipped = 0
    for name in names:
        is_path = not is_uri(name) or os.path.lexists(name)
        found, passed = _expand_path(name, recursive) if is_path else _expand_uri(name, recursive, chains)
        skipped += passed
        sources.update((item, Source(item, is_path=is_path)) for item in found)
    return Found(tuple(sources.values()), skipped)


def _expand_path(name: str, recursive: bool) -> tuple[list[str], int]:
    # os.path, not pathlib: a name that is too long, or in an unreadable folder, just does not exist.
    if os.path.isdir(name) and (name.endswith(os.sep) or Path(name).suffix.lower() not in MEDIA_SUFFIXES):  # noqa: PTH112
        return _expand_folder(Path(name), recursive)
    if glob.has_magic(name) and not os.path.exists(name):  # noqa: PTH110
        matches = sorted(glob.glob(name, recursive=True))  # noqa: PTH207 - the pattern may be absolute
        found: list[str] = []
        skipped = 0
        for match in matches:
            more, passed = _expand_path(match, recursive) if recursive or not Path(match).is_dir() else ([], 1)
            found += more
            skipped += passed
        return (found, skipped) if matches else ([name], 0)
    return [name], 0


def _expand_folder(folder: Path, recursive: bool) -> tuple[list[str], int]:
    try:
        files = sorted(path for path in (folder.rglob("*") if recursive else folder.iterdir()) if path.is_file())
    except OSError:
        # Opening it fails for the same reason, which goes into its record.
        return [str(folder)], 0
    media = [str(path) for path in files if _is_media(path)]
    return media, len(files) - len(media)


def _is_media(path: Path) -> bool:
    if path.suffix:
        return path.suffix.lower() in MEDIA_SUFFIXES
    try:
        with path.open("rb") as file:
            start = file.read(2 * _MPEG_TS_PACKET_BYTES)
    except OSError:
        # It cannot be read, so its type is unknown; named directly, it would get a record.
        return False
    if any(start[offset : offset + len(magic)] == magic for offset, magic in _MAGIC):
        return True
    return len(start) > _MPEG_TS_PACKET_BYTES and start[0] == start[_MPEG_TS_PACKET_BYTES] == 0x47


def _expand_uri(uri: str, recursive: bool, chains: bool) -> tuple[list[str], int]:
    import fsspec

    if uri.startswith(HTTP):
        # A web server lists nothing, and its queries look like globs.
        return [uri], 0
    try:
        check_uri(uri, chains=chains)
        filesystem, path = fsspec.core.url_to_fs(uri)
        if glob.has_magic(path):
            inside = sorted(item for item in filesystem.glob(path) if filesystem.isfile(item))
        elif Path(path).suffix.lower() not in MEDIA_SUFFIXES and filesystem.isdir(path):
            inside = sorted(filesystem.find(path, maxdepth=None if recursive else 1))
        else:
            return [uri], 0
    except Exception:  # noqa: BLE001 - plug-in file systems raise anything; opening it reports the same in a record
        return [uri], 0
    media = [item for item in inside if Path(item).suffix.lower() in MEDIA_SUFFIXES]
    chain = uri.split("::", 1)[1:]
    names = ["::".join([filesystem.unstrip_protocol(item), *chain]) for item in media]
    return (names, len(inside) - len(media)) if names else ([uri], 0)


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

    Args:
        source: the clip; its guard, if any, is asked before anything is opened.
        limits: on sizes, and what is opened at all.
        stop: asked between two blocks, whether to end.

    Raises:
        SourceError: it is missing, not a regular file, cannot be read or fetched, is too large, or may not be read.
        ScanInterruptedError: `stop` said so.
    """
    limits = limits or SourceLimits()
    try:
        fd = _fetch(source, limits, stop) if source.is_remote else _open_file(source.path, source.guard)
    except OSError as error:
        message = f"cannot be opened: {error.strerror or error}"
        raise SourceError(Outcome.UNAVAILABLE, message, transient=error.errno in _PASSING) from error
    try:
        size_bytes = os.fstat(fd).st_size
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
    finally:
        os.close(fd)


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
                http_fetch.fetch(uri, write, guard=source.guard)
            else:
                _fetch_by_fsspec(uri, write, source.guard)
        except (SourceError, ScanInterruptedError):
            raise
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
