"""Uploaded files on this machine: whole and on disk before an upload is answered."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from web.problems import Code, ProblemError
from web.sniffing import HEAD_BYTES, media_type_of

_PARTIAL = ".part"


class MediaFolder:
    """Files by the id of their video, in sub-folders by its first two digits.

    Args:
        folder: where they are; it is made if it does not exist. Uploads that were cut short are removed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for partial in folder.glob(f"*/*{_PARTIAL}"):
            partial.unlink(missing_ok=True)

    def path(self, id_: str) -> Path:
        """Where a video's file is."""
        return self._folder / self.relative(id_)

    @staticmethod
    def relative(id_: str) -> Path:
        """Where a video's file is below the folder."""
        return Path(id_[:2], id_)

    def make(self, id_: str) -> None:
        """Make an empty file that is written later and piece by piece; its name is on disk."""
        path = self.path(id_)
        path.parent.mkdir(exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        _sync_folders(path)

    def delete(self, id_: str) -> None:
        """Delete a video's file, if there is one."""
        self.path(id_).unlink(missing_ok=True)

    def remove_unknown(self, known: set[str]) -> int:
        """Delete files without a row: uploads that ended before they were accepted. Returns their number."""
        unknown = [path for path in self._folder.glob("*/*") if path.name not in known]
        for path in unknown:
            path.unlink(missing_ok=True)
        return len(unknown)

    @contextmanager
    def writing(self, id_: str, max_bytes: int) -> Iterator[MediaWriter]:
        """A new file, which is removed if the block ends with an error or without `MediaWriter.keep`."""
        path = self.path(id_)
        path.parent.mkdir(exist_ok=True, mode=0o700)
        partial = path.with_name(path.name + _PARTIAL)
        with MediaWriter(partial, path, max_bytes) as writer:
            yield writer


class MediaWriter:
    """Writes one upload; its methods block, so call them in a thread.

    Attributes:
        size_bytes: so far.
        media_type: once kept.
        sha256: in hex, once kept.
    """

    def __init__(self, partial: Path, path: Path, max_bytes: int) -> None:
        self._partial = partial
        self._path = path
        self._max_bytes = max_bytes
        self._digest = hashlib.sha256()
        self._head = b""
        self._kept = False
        self.size_bytes = 0
        self.media_type = ""
        self.sha256 = ""

    def __enter__(self) -> Self:
        self._file = os.fdopen(os.open(self._partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._file.close()
        finally:
            if not self._kept:
                self._partial.unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            ProblemError: the file is too large, or nothing that can be decoded begins like it.
        """
        self.size_bytes += len(data)
        if self.size_bytes > self._max_bytes:
            raise ProblemError(413, Code.TOO_LARGE, f"at most {self._max_bytes:,} bytes are accepted")
        if len(self._head) < HEAD_BYTES:
            self._head += data[: HEAD_BYTES - len(self._head)]
            if len(self._head) == HEAD_BYTES:
                self._sniff()
        self._digest.update(data)
        self._file.write(data)

    def keep(self) -> None:
        """Put the whole file in its place, on disk.

        Raises:
            ProblemError: it is empty, or no media file.
        """
        if not self.size_bytes:
            raise ProblemError(422, Code.NO_MEDIA, "the file is empty")
        self._sniff()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._partial.rename(self._path)
        self._kept = True
        _sync_folders(self._path)
        self.sha256 = self._digest.hexdigest()

    def _sniff(self) -> None:
        found = media_type_of(self._head)
        if found is None:
            raise ProblemError(415, Code.NO_MEDIA, "it does not begin like a video or picture that can be decoded")
        self.media_type = found


def _sync_folders(path: Path) -> None:
    """Put the name of a file on disk."""
    for folder in (path.parent, path.parent.parent):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
