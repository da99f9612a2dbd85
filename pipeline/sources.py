"""Clips from the user's arguments: files, folders, globs and fsspec URIs, opened once and hashed."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import UnmaskError
from pipeline.contracts import Outcome, clip_id_of

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


@dataclass(frozen=True, slots=True)
class Source:
    """One clip to be judged.

    Attributes:
        name: path or URI as given, or as found in a folder that was given.
        given_id: id of a task; None derives one from the name.
    """

    name: str
    given_id: str | None = None

    @property
    def id(self) -> str:
        """Id of the record."""
        return self.given_id or clip_id_of(self.name)


@dataclass(frozen=True, slots=True)
class Found:
    """What `expand` found: the clips, each once, in the order named, and how many files in folders were skipped."""

    sources: tuple[Source, ...]
    skipped: int


def is_uri(name: str) -> bool:
    """Whether a name is a URI for fsspec (`scheme://...` or a chain) rather than a path; an absolute path never is."""
    return not name.startswith("/") and ("://" in name or "::" in name)


def expand(names: Sequence[str], *, recursive: bool = False) -> Found:
    """The clips behind paths, folders, globs and URIs.

    A folder yields its media files (by extension, by content without one), with `recursive` those of its sub-folders
    too. Any other name yields itself, so that it gets a record even if it is missing; so does a folder with a clip's
    extension.
    """
    sources: dict[str, Source] = {}
    skipped = 0
    for name in names:
        if is_uri(name):
            found, passed = _expand_uri(name, recursive)
        else:
            found, passed = _expand_path(name, recursive)
        skipped += passed
        sources.update((item, Source(item)) for item in found)
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


def _expand_uri(uri: str, recursive: bool) -> tuple[list[str], int]:
    import fsspec

    try:
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
def open_source(source: Source, *, max_fetch_bytes: int) -> Iterator[Opened]:
    """Open a clip, fetching it first if it is a URI; its bytes are hashed and the file closed at the end.

    Args:
        max_fetch_bytes: a larger URI is refused.

    Raises:
        SourceError: it is missing, not a regular file, cannot be read or fetched, or is too large.
    """
    try:
        fd = (
            _fetch(source.name, max_fetch_bytes)
            if is_uri(source.name) and not source.name.startswith("file://")
            else _open_file(source.name.removeprefix("file://"))
        )
    except OSError as error:
        message = f"cannot be opened: {error.strerror or error}"
        raise SourceError(Outcome.UNAVAILABLE, message, transient=error.errno in _PASSING) from error
    try:
        try:
            sha256 = _hash(fd)
        except OSError as error:
            message = f"cannot be read: {error.strerror or error}"
            raise SourceError(Outcome.UNAVAILABLE, message, transient=error.errno in _PASSING) from error
        yield Opened(fd, sha256, os.fstat(fd).st_size)
    finally:
        os.close(fd)


def _open_file(path: str) -> int:
    # Without O_NONBLOCK, opening a named pipe would wait for a writer.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        what = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise SourceError(Outcome.UNAVAILABLE, f"cannot be opened: it is {what}")
    return fd


def _fetch(uri: str, max_bytes: int) -> int:
    """Copy a URI's content into an unnamed temporary file; returns its descriptor."""
    import fsspec

    # One stream from start to end: in block mode, a server without range requests serves only the first block.
    options = {"block_size": 0} if uri.startswith(("http://", "https://")) else {}
    with tempfile.TemporaryFile(prefix="unmask-") as copy:
        try:
            with fsspec.open(uri, "rb", **options) as remote:
                _copy(remote, copy, max_bytes)
        except SourceError:
            raise
        except Exception as error:  # plug-in file systems raise anything
            message = f"cannot be fetched: {type(error).__name__}: {error}"
            # A missing or forbidden file is not transient.
            lasting = isinstance(error, FileNotFoundError | PermissionError | ImportError | ValueError)
            raise SourceError(Outcome.UNAVAILABLE, message, transient=not lasting) from error
        copy.flush()
        return os.dup(copy.fileno())


def _copy(remote: Any, copy: Any, max_bytes: int) -> None:
    copied = 0
    while block := remote.read(_READ_BYTES):
        copied += len(block)
        if copied > max_bytes:
            raise SourceError(
                Outcome.OVER_LIMIT,
                f"holds more than {max_bytes} bytes, the limit for what is fetched (UNMASK_MAX_FETCH_BYTES)",
            )
        copy.write(block)


def _hash(fd: int) -> str:
    digest = hashlib.sha256()
    os.lseek(fd, 0, os.SEEK_SET)
    while block := os.read(fd, _READ_BYTES):
        digest.update(block)
    os.lseek(fd, 0, os.SEEK_SET)
    return digest.hexdigest()
