"""The scanner in use: each clip asks for it once and keeps its weights; a new one serves the clips that come after."""

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
    """The scanner in use, and those before it that clips still hold. Thread-safe; a context manager.

    It closes their engines: of the one in use at the end, of an earlier one with the last clip that began with it.
    """

    def __init__(self, scanner: Scanner) -> None:
        """Start with `scanner`."""
        self._lock = threading.Lock()
        self._held = _Held(scanner)
        self._retired: list[_Held] = []
        # Of engines that are closed, so that counters never run back.
        self._crops = self._batches = self._failed = 0

    @contextmanager
    def current(self) -> Iterator[Scanner]:
        """The scanner in use, which stays open for the block: ask once for a clip, or for a segment."""
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
        """What verdicts of the scanner in use say of it."""
        return self._held.scanner.provenance

    def swap(self, scanner: Scanner) -> None:
        """Let `scanner` serve what begins from now on."""
        with self._lock:
            old, self._held = self._held, _Held(scanner)
            self._retired.append(old)
            idle = old.leases == 0
        if idle:
            self._end(old)

    def stats(self) -> EngineStats:
        """The counters of all engines that there were, and the queues of those that there are."""
        with self._lock:
            found = [held.scanner.engine.stats() for held in (self._held, *self._retired)]
            ended = EngineStats(self._crops, self._batches, self._failed, waiting=0, oldest_age_s=0.0)
            return EngineStats.total([ended, *found])

    def close(self) -> None:
        """Close all engines; nobody scores any more."""
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
        """Close an engine that nobody holds; nobody can ask for it any more."""
        engine = held.scanner.engine
        engine.close()
        with self._lock:
            self._retired.remove(held)
            stats = engine.stats()
            self._crops += stats.crops
            self._batches += stats.batches
            self._failed += stats.failed
        log.info("weights closed", weights=",".join(held.scanner.provenance.weights_sha256))
