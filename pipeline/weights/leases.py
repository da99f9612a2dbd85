"""The scanner in use: each clip takes it once and keeps its weights; a new one serves later clips."""

from __future__ import annotations

import threading
from collections.abc import Iterator
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
    """The scanner in use, and earlier ones that clips still hold. Thread-safe; a context manager.

    It closes the engine of the scanner in use on exit, that of an earlier one when the last clip that uses it ends.
    """

    def __init__(self, scanner: Scanner) -> None:
        """Start with `scanner`."""
        self._lock = threading.Lock()
        self._held = _Held(scanner)
        self._retired: list[_Held] = []
        # Counters of closed engines, so that the totals never decrease.
        self._crops = self._batches = self._failed = 0

    @contextmanager
    def current(self) -> Iterator[Scanner]:
        """The scanner in use, which stays open for the block: take it once per clip or segment."""
        with self._lock:
            held = self._held
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
            self._retired.append(old)
            idle = old.leases == 0
        if idle:
            self._end(old)

    def stats(self) -> EngineStats:
        """The counters of all engines so far, and the queues of the open ones."""
        with self._lock:
            found = [held.scanner.engine.stats() for held in (self._held, *self._retired)]
            ended = EngineStats(self._crops, self._batches, self._failed, waiting=0, oldest_age_s=0.0)
            return EngineStats.total([ended, *found])

    def close(self) -> None:
        """Close all engines; nothing may use them any longer."""
        with self._lock:
            engines = [held.scanner.engine for held in (self._held, *self._retired)]
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
