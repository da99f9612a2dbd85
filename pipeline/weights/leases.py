"""The scanner in use: each clip takes it once and keeps its weights; a new one serves later clips."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import structlog

from pipeline.contracts import Provenance
from pipeline.scan import Scanner
from pipeline.scoring.engine import EngineStats

log = structlog.get_logger(__name__)


@dataclass(eq=False)
class _Held:
    scanner: Scanner
    leases: int = 0


class Scanners:
    """The scanner in use, a canary's for some clips, and earlier ones that clips still hold. Thread-safe.

    A context manager. It closes the engines of the scanners in use on exit, that of an earlier one when the last clip
    that uses it ends.
    """

    def __init__(self, scanner: Scanner) -> None:
        """Start with `scanner`."""
        self._lock = threading.Lock()
        self._held = _Held(scanner)
        self._retired: list[_Held] = []
        self._canary: _Held | None = None
        self._takes: Callable[[str], bool] = lambda clip_id: False
        # Counters of closed engines, so that the totals never decrease.
        self._crops = self._batches = self._failed = 0

    @contextmanager
    def current(self) -> Iterator[Scanner]:
        """The scanner in use, which stays open for the block: take it once per segment."""
        with self._leased(None) as scanner:
            yield scanner

    @contextmanager
    def of(self, clip_id: str) -> Iterator[Scanner]:
        """The scanner for a clip, the canary's if it takes this one; it stays open for the block."""
        with self._leased(clip_id) as scanner:
            yield scanner

    @contextmanager
    def _leased(self, clip_id: str | None) -> Iterator[Scanner]:
        with self._lock:
            held = self._held
            if self._canary is not None and clip_id is not None and self._takes(clip_id):
                held = self._canary
            held.leases += 1
        try:
            yield held.scanner
        finally:
            with self._lock:
                held.leases -= 1
                last = held.leases == 0 and held in self._retired
            if last:
                self._end(held)

    @property
    def provenance(self) -> Provenance:
        """The provenance in verdicts of the scanner in use."""
        return self._held.scanner.provenance

    def swap(self, scanner: Scanner) -> None:
        """Use `scanner` for clips that begin from now on."""
        with self._lock:
            old, self._held = self._held, _Held(scanner)
            idle = self._retire(old)
        if idle:
            self._end(old)

    def begin_canary(self, scanner: Scanner, takes: Callable[[str], bool]) -> None:
        """Use `scanner` for those clips that begin from now on whose ids it takes, in place of an earlier canary."""
        with self._lock:
            old, self._canary, self._takes = self._canary, _Held(scanner), takes
            idle = old is not None and self._retire(old)
        if old is not None and idle:
            self._end(old)

    def end_canary(self) -> None:
        """Use the scanner in use for all clips that begin from now on."""
        with self._lock:
            old, self._canary = self._canary, None
            idle = old is not None and self._retire(old)
        if old is not None and idle:
            self._end(old)

    def _retire(self, held: _Held) -> bool:
        """Keep a scanner until no clip holds it; whether none does now. The lock is held."""
        self._retired.append(held)
        return held.leases == 0

    def _open(self) -> list[_Held]:
        return [self._held, *([self._canary] if self._canary else []), *self._retired]

    def stats(self) -> EngineStats:
        """The counters of all engines so far, and the queues of the open ones."""
        with self._lock:
            found = [held.scanner.engine.stats() for held in self._open()]
            ended = EngineStats(self._crops, self._batches, self._failed, waiting=0, oldest_age_s=0.0)
            return EngineStats.total([ended, *found])

    def close(self) -> None:
        """Close all engines; nothing may use them any longer."""
        with self._lock:
            engines = [held.scanner.engine for held in self._open()]
        for engine in engines:
            engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _end(self, held: _Held) -> None:
        """Close an engine that no clip holds and none can take."""
        engine = held.scanner.engine
        engine.close()
        with self._lock:
            self._retired.remove(held)
            stats = engine.stats()
            self._crops += stats.crops
            self._batches += stats.batches
            self._failed += stats.failed
        log.info("weights closed", weights=",".join(held.scanner.provenance.weights_sha256))
