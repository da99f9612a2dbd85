"""Copies of stored files on this machine, for what needs whole files; those not used for longest go first."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.sources import ScanInterruptedError
from web.media import Stop, StoredFile

_PARTIAL = ".part"


class LocalCopies:
    """Copies by the id of their video. Safe to share between threads.

    Args:
        folder: where they are, nothing else is in it; it is made if it does not exist.
        max_bytes: of all copies together. Those that are in use may exceed it: they stay.
        clean_up: remove copies that were cut short: not beside a running service, which may be making them.
    """

    def __init__(self, folder: Path, max_bytes: int, *, clean_up: bool = True) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()
        self._turns: dict[str, threading.Lock] = {}  # of those that are held: one thread fetches
        self._deleted: set[str] = set()  # while they were held
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for partial in folder.glob(f"*{_PARTIAL}") if clean_up else ():
            partial.unlink(missing_ok=True)
        found = sorted(_whole(folder))
        self._sizes = {name: size_bytes for _, name, size_bytes in found}  # the one that was used last is last

    @contextmanager
    def holding(self, id_: str, find: Callable[[], StoredFile | None], stop: Stop) -> Iterator[Path]:
        """The copy of a file, which stays until the end of the block; it is fetched if it is not here.

        Args:
            id_: of the video.
            find: the stored file; None: it does not exist, and neither does the path then.
            stop: asked between two blocks, whether to end.

        Raises:
            ScanInterruptedError: `stop` said so.
            StoreAwayError: it cannot be fetched.
            OSError: the disk is full, or fails.
        """
        path = self._folder / id_
        with self._lock:
            self._held[id_] += 1
            turn = self._turns.setdefault(id_, threading.Lock())
        try:
            with turn:
                if not path.exists() and (stored := find()) is not None:
                    self._fetch(path, stored, stop)
            yield path
        finally:
            with self._lock:
                self._held[id_] -= 1
                if not self._held[id_]:
                    del self._held[id_], self._turns[id_]
                    if id_ in self._deleted:
                        self._deleted.remove(id_)
                        self._remove(id_)
                self._used(id_)
                self._evict()

    def adopt(self, id_: str, path: Path) -> None:
        """Make a file of this machine, whole and on the same disk, the copy."""
        with self._lock:
            path.rename(self._folder / id_)
            self._sizes[id_] = (self._folder / id_).stat().st_size
            self._used(id_)
            self._evict()

    def delete(self, id_: str) -> None:
        """Delete a copy, if there is one; if it is in use, for new readers at once, and then from the disk."""
        with self._lock:
            if self._held[id_]:
                self._deleted.add(id_)
            self._remove(id_)

    def keep_only(self, ids: set[str]) -> None:
        """Delete copies of videos that do not exist any more."""
        for id_ in self._sizes.keys() - ids:
            self.delete(id_)

    def _fetch(self, path: Path, stored: StoredFile, stop: Stop) -> None:
        with self._lock:
            self._sizes[path.name] = stored.size_bytes
            self._evict()
        # A command beside the service may fetch the same file.
        partial = path.with_name(f"{path.name}.{os.getpid()}{_PARTIAL}")
        try:
            with partial.open("wb") as file:
                for block in stored.blocks(0, stored.size_bytes):
                    if stop():
                        raise ScanInterruptedError
                    file.write(block)
            partial.rename(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            with self._lock:
                self._sizes.pop(path.name, None)
            raise

    def _used(self, id_: str) -> None:
        if (size_bytes := self._sizes.pop(id_, None)) is not None:
            self._sizes[id_] = size_bytes
            with suppress(FileNotFoundError):  # someone emptied the folder
                now = time.time_ns()  # the kernel's own time of a change may be milliseconds old
                os.utime(self._folder / id_, ns=(now, now))  # so that the next start knows the order

    def _evict(self) -> None:
        excess = sum(self._sizes.values()) - self._max_bytes
        for id_, size_bytes in list(self._sizes.items()):
            if excess <= 0:
                return
            if not self._held.get(id_):
                self._remove(id_)
                excess -= size_bytes

    def _remove(self, id_: str) -> None:
        (self._folder / id_).unlink(missing_ok=True)
        self._sizes.pop(id_, None)


def _whole(folder: Path) -> Iterator[tuple[int, str, int]]:
    """Of each copy, when it was used last, its name and size; another process may delete some meanwhile."""
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            if path.suffix != _PARTIAL:
                status = path.stat()
                yield status.st_mtime_ns, path.name, status.st_size
