"""Uploaded files: what keeps them (`media_folder`, `media_store`), and how an upload is checked while it is written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from web.problems import Code, ProblemError
from web.sniffing import HEAD_BYTES, media_type_of

# Read from a file at once: few requests to a store, and little memory for each player.
READ_BYTES: Final = 4 << 20

Stop = Callable[[], bool]


class StoreAwayError(ProblemError):
    """The store does not answer, or refuses; what was asked for was not done."""

    def __init__(self) -> None:
        super().__init__(503, Code.AWAY, "the store of uploaded files does not answer: try again", {"Retry-After": "5"})


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that is kept.

    Attributes:
        size_bytes: of the whole file.
        read: the bytes from a start to an end, all of them; it blocks. Raises StoreAwayError, or OSError.
    """

    size_bytes: int
    read: Callable[[int, int], bytes]

    def blocks(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` to `end`, at most `READ_BYTES` at once."""
        for at in range(start, end, READ_BYTES):
            yield self.read(at, min(at + READ_BYTES, end))


class Media(Protocol):
    """Uploaded files by the id of their video. Safe to share between threads; all methods block.

    Methods raise `StoreAwayError` where a store is behind them that does not answer.

    Attributes:
        base: path or URI below which they are, as `relative` says.
    """

    @property
    def base(self) -> str:
        """Path or URI below which the files are."""

    def writing(self, id_: str, max_bytes: int) -> AbstractContextManager[MediaWriter]:
        """A new file; nothing is left of it if the block ends with an error or without `MediaWriter.keep`."""

    def make(self, id_: str) -> None:
        """Make an empty file on this machine that grows piece by piece; its name is on disk."""

    def grown(self, id_: str) -> Path:
        """Where such a file is."""

    def take(self, id_: str, stop: Stop = lambda: False) -> None:
        """Keep a file that has grown to its end; it stays where it grew, too, until `release`.

        Args:
            id_: of the upload.
            stop: asked between two blocks, whether to end: as if the store was away.
        """

    def release(self, id_: str) -> None:
        """A file that was taken has become a video: where it grew, it is not needed any more."""

    def find(self, id_: str) -> StoredFile | None:
        """A video's file; None: it does not exist."""

    def local(self, id_: str, stop: Stop = lambda: False) -> AbstractContextManager[Path]:
        """A video's file on this machine until the end of the block; the path of no file if it does not exist.

        Args:
            id_: of the video.
            stop: asked between two blocks, whether to end.

        Raises:
            ScanInterruptedError: `stop` said so.
        """

    def delete(self, id_: str) -> None:
        """Delete a video's file, if there is one."""

    def discard(self, id_: str) -> None:
        """As `delete`, for a file that was not accepted: if the store is away, the next start deletes it."""

    def remove_unknown(self, videos: set[str], growing: set[str]) -> None:
        """Delete what uploads left that ended before they were accepted.

        Args:
            videos: ids of all videos with a file.
            growing: ids of uploads that are not videos yet.
        """


def relative(id_: str) -> str:
    """Where a video's file is: in a sub-folder by the first two digits of its id."""
    return f"{id_[:2]}/{id_}"


class Target(Protocol):
    """Where the bytes of an upload go. `discard` is called unless `commit` has returned."""

    def write(self, data: bytes) -> None:
        """Append bytes."""

    def commit(self) -> None:
        """Put the whole file in its place, so that neither a crash nor a loss of power can take it away."""

    def discard(self) -> None:
        """Leave nothing of it; what has gone wrong is over already, so it raises no error."""


class MediaWriter:
    """Checks and hashes an upload while it is written; its methods block, so call them in a thread.

    Attributes:
        size_bytes: so far.
        media_type: once kept.
        sha256: in hex, once kept.
        is_kept: the whole file is in its place.
    """

    def __init__(self, target: Target, max_bytes: int) -> None:
        self._target = target
        self._max_bytes = max_bytes
        self._digest = hashlib.sha256()
        self._head = b""
        self.size_bytes = 0
        self.media_type = ""
        self.sha256 = ""
        self.is_kept = False

    def write(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            ProblemError: the file is too large, or nothing that can be decoded begins like it, or a store is away.
        """
        self.size_bytes += len(data)
        if self.size_bytes > self._max_bytes:
            raise ProblemError(413, Code.TOO_LARGE, f"at most {self._max_bytes:,} bytes are accepted")
        if len(self._head) < HEAD_BYTES:
            self._head += data[: HEAD_BYTES - len(self._head)]
            if len(self._head) == HEAD_BYTES:
                self._sniff()
        self._digest.update(data)
        self._target.write(data)

    def keep(self) -> None:
        """Put the whole file in its place.

        Raises:
            ProblemError: it is empty, or no media file, or a store is away.
        """
        if not self.size_bytes:
            raise ProblemError(422, Code.NO_MEDIA, "the file is empty")
        self._sniff()
        self._target.commit()
        self.is_kept = True
        self.sha256 = self._digest.hexdigest()

    def _sniff(self) -> None:
        found = media_type_of(self._head)
        if found is None:
            raise ProblemError(415, Code.NO_MEDIA, "it does not begin like a video or picture that can be decoded")
        self.media_type = found


@contextmanager
def writing_to(opened: Callable[[], Target], max_bytes: int) -> Iterator[MediaWriter]:
    """A writer whose target is discarded if the block ends with an error or without `MediaWriter.keep`."""
    target = opened()
    writer = MediaWriter(target, max_bytes)
    try:
        yield writer
    finally:
        if not writer.is_kept:
            target.discard()
