"""Uploaded files in a folder of this machine: whole and on disk before an upload is answered."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Final

from web.media import MediaWriter, Stop, StoredFile, relative, writing_to

_PARTIAL: Final = ".part"
# Names that this module and `media_store` give: `relative`, and whole ones only.
NAME: Final = re.compile(r"([0-9a-f]{2})/(\1[0-9a-f]{22})")


class MediaFolder:
    """Files by the id of their video, in sub-folders by its first two digits. See `Media`.

    Args:
        folder: where they are; it is made if it does not exist.
        clean_up: remove uploads that were cut short: not beside a running service, whose uploads are under way.
    """

    def __init__(self, folder: Path, *, clean_up: bool = True) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, path in _files(folder) if clean_up else ():
            if name.endswith(_PARTIAL) and NAME.fullmatch(name.removesuffix(_PARTIAL)):
                path.unlink(missing_ok=True)

    @property
    def base(self) -> str:
        """Absolute path of the folder."""
        return str(self._folder.absolute())

    def path(self, id_: str) -> Path:
        """Where a video's file is."""
        return self._folder / relative(id_)

    def writing(self, id_: str, max_bytes: int) -> AbstractContextManager[MediaWriter]:
        """See `Media.writing`."""
        return writing_to(lambda: _FileTarget(self.path(id_)), max_bytes)

    def make(self, id_: str) -> None:
        """See `Media.make`."""
        path = self.path(id_)
        os.close(_opened(path))
        _sync_folders(path)

    def grown(self, id_: str) -> Path:
        """See `Media.grown`: where it will be as a video, so that nothing has to be moved at the end."""
        return self.path(id_)

    def take(self, id_: str, stop: Stop = lambda: False) -> None:
        """See `Media.take`: it is in its place."""

    def release(self, id_: str) -> None:
        """See `Media.release`: it is in its place."""

    def find(self, id_: str) -> StoredFile | None:
        """See `Media.find`."""
        path = self.path(id_)
        if not path.is_file():
            return None

        def read(start: int, end: int) -> bytes:
            with path.open("rb") as file:
                file.seek(start)
                return file.read(end - start)

        return StoredFile(path.stat().st_size, read)

    @contextmanager
    def local(self, id_: str, stop: Stop = lambda: False) -> Iterator[Path]:
        """See `Media.local`."""
        yield self.path(id_)

    def delete(self, id_: str) -> None:
        """See `Media.delete`."""
        self.path(id_).unlink(missing_ok=True)

    discard = delete

    def remove_unknown(self, videos: set[str], growing: set[str]) -> None:
        """See `Media.remove_unknown`. Files under names that this service does not give stay."""
        for name, path in _files(self._folder):
            if (found := NAME.fullmatch(name)) and found[2] not in videos and found[2] not in growing:
                path.unlink(missing_ok=True)


class _FileTarget:
    """A file that gets its name at the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(path.name + _PARTIAL)
        self._file = os.fdopen(_opened(self._partial), "wb")

    def write(self, data: bytes) -> None:
        self._file.write(data)

    def commit(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._partial.rename(self._path)
        _sync_folders(self._path)

    def discard(self) -> None:
        with suppress(OSError):  # of a full disk: the rest could not be written
            self._file.close()
        self._partial.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Each file of the sub-folders, with its name below the folder."""
    for path in folder.glob("*/*"):
        yield f"{path.parent.name}/{path.name}", path


def _opened(path: Path) -> int:
    """The descriptor of a new file."""
    path.parent.mkdir(exist_ok=True, mode=0o700)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def _sync_folders(path: Path) -> None:
    """Put the name of a file on disk."""
    for folder in (path.parent, path.parent.parent):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
