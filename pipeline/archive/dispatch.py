"""Gives parts to workers until all are done; workers may be killed at any time. The same for each engine."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from models.errors import UnmaskError
from pipeline.archive.part import Failed, Job
from pipeline.archive.table import Marker
from pipeline.contracts import Provenance

log = structlog.get_logger(__name__)

# A file that ends its worker takes two; more deaths in a row without a record have another reason than a file.
_MOST_DEATHS: Final = 6


class EngineError(UnmaskError):
    """Workers cannot be started, or are killed again and again; the message says why."""

    exit_code = 1


class WorkerError(UnmaskError):
    """A worker cannot go on, for a reason that other workers would meet too."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.message)
        self.exit_code = failed.exit_code  # type: ignore[misc]  # of this instance


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker has loaded its scanner."""

    worker: int
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class Recorded:
    """A worker has judged so many more files of its part."""

    worker: int
    files: int


@dataclass(frozen=True, slots=True)
class Finished:
    """A worker is done with its part; `Failed` ends the archive."""

    worker: int
    result: Marker | Failed


@dataclass(frozen=True, slots=True)
class Died:
    """A worker does not exist any more."""

    worker: int
    why: str


Event = Ready | Recorded | Finished | Died


class Pool(Protocol):
    """Workers of an engine; each judges one part at a time."""

    def start(self) -> int:
        """Start a worker; returns its number, which is new."""

    def assign(self, worker: int, job: Job) -> None:
        """Give a part to a worker that has none. One that died meanwhile is an event."""

    def events(self) -> Sequence[Event]:
        """What has happened; waits for it, for a second at most."""


def dispatch(
    pool: Pool,
    parts: Iterable[int],
    *,
    workers: int,
    job_of: Callable[[int, int], Job],
    ready: Callable[[Provenance], None],
    recorded: Callable[[int], None],
    done: Callable[[Marker], None],
) -> None:
    """Judge all parts. At most `workers` are under way, each at one worker; that of a killed one goes to the next.

    Args:
        pool: where workers are.
        parts: numbers, in the order in which they are given out.
        workers: at most.
        job_of: given a part and the number of workers that were killed at it, what a worker gets.
        ready: called for each worker before it gets its first part; an error ends the archive.
        recorded: called with the number of files judged since the last call.
        done: called for each part.

    Raises:
        WorkerError: a worker cannot go on.
        EngineError: workers are killed again and again.
    """
    waiting = deque(parts)
    running: dict[int, Job] = {}
    starting = {pool.start() for _ in range(min(workers, len(waiting)))}
    idle: list[int] = []
    deaths: Counter[int] = Counter()
    # In a row: of a part without a record, and of workers that were starting.
    barren: Counter[int] = Counter()
    failed_starts = 0
    while waiting or running:
        while waiting and idle:
            worker, part = idle.pop(), waiting.popleft()
            running[worker] = job_of(part, deaths[part])
            pool.assign(worker, running[worker])
        for event in pool.events():
            if isinstance(event, Ready):
                failed_starts = 0
                ready(event.provenance)
                starting.discard(event.worker)
                idle.append(event.worker)
            elif isinstance(event, Recorded):
                if (job := running.get(event.worker)) is not None:
                    barren[job.part] = 0
                recorded(event.files)
            elif isinstance(event, Finished):
                if isinstance(event.result, Failed):
                    raise WorkerError(event.result)
                del running[event.worker]
                idle.append(event.worker)
                done(event.result)
            else:
                log.warning("a worker was killed; another one takes its place", why=event.why)
                if (job := running.pop(event.worker, None)) is not None:
                    deaths[job.part] += 1
                    barren[job.part] += 1
                    waiting.appendleft(job.part)
                    if barren[job.part] >= _MOST_DEATHS:
                        raise EngineError(
                            f"part {job.part}: {_MOST_DEATHS} workers in a row were killed at it without a file "
                            f"getting its record; the last one: {event.why}"
                        )
                else:
                    failed_starts += event.worker in starting
                    if failed_starts >= _MOST_DEATHS:
                        raise EngineError(f"workers are killed before they are ready; the last one: {event.why}")
                starting.discard(event.worker)
                idle = [worker for worker in idle if worker != event.worker]
                if len(starting) + len(idle) + len(running) < min(workers, len(waiting) + len(running)):
                    starting.add(pool.start())
