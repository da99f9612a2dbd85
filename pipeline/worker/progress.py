"""Writes how far clips are to Redis, once a second: for those who show it, so a note that is lost does not matter."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Final, Self

import redis

from pipeline.results.store import VerdictStore
from pipeline.sources import Source

_EVERY_S: Final = 1.0
# Redis is away: the clips' own writes say so.
_AWAY_S: Final = 10.0


class ProgressNotes:
    """A thread that writes; a context manager that ends it. Clips do not wait for Redis.

    Args:
        store: of the clips' hashes.
        every_s: between two writes, in seconds.
    """

    def __init__(self, store: VerdictStore, *, every_s: float = _EVERY_S) -> None:
        self._store, self._every_s = store, every_s
        self._lock = threading.Lock()
        self._latest: dict[str, float] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress")

    def frame(self, source: Source, share: float | None, scored: int) -> None:
        """Note a frame, as `Scanner.progress` has it."""
        if share is not None:
            self.note(source.id, share)

    def note(self, clip_id: str, share: float) -> None:
        """Note which part of a clip is scored, 0 to 1."""
        with self._lock:
            self._latest[clip_id] = share

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        wait_s = self._every_s
        while not self._ending.wait(wait_s):
            with self._lock:
                latest, self._latest = self._latest, {}
            wait_s = self._every_s
            if latest:
                try:
                    self._store.note_shares(latest)
                except redis.RedisError:
                    wait_s = max(self._every_s, _AWAY_S)
