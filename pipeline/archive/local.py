"""The engine `local`: worker processes of this machine."""

from __future__ import annotations

import multiprocessing
import queue
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Final

from pipeline.archive.dispatch import Died, Event, Finished, Ready, Recorded
from pipeline.archive.part import Failed, Job, WorkerSpec, failure, started_runner
from pipeline.archive.table import Marker
from pipeline.contracts import Provenance
from pipeline.logs import configure_logging

_WAIT_S: Final = 1.0
# A worker that is asked to stop ends at its next frame, and one that decodes nothing after its fetch's block.
_STOP_S: Final = 60.0


class LocalPool:
    """Worker processes; see `local_pool`."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        # A fork would have copies of threads' locks.
        self._context = multiprocessing.get_context("spawn")
        self._workers: dict[int, tuple[BaseProcess, Connection]] = {}
        self._started = 0

    def start(self) -> int:
        """Start a worker; returns its number."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, self._spec), daemon=True, name="unmask-archive")
        process.start()
        # The worker has the only other copy: each side notices the other's end.
        theirs.close()
        self._started += 1
        self._workers[self._started] = process, ours
        return self._started

    def assign(self, worker: int, job: Job) -> None:
        """Give a part to a worker."""
        with suppress(OSError):  # it was killed, which `events` reports
            self._workers[worker][1].send(job)

    def events(self) -> Sequence[Event]:
        """What has happened, see `Pool.events`."""
        ends: dict[Any, int] = {pipe: worker for worker, (_, pipe) in self._workers.items()}
        ends |= {process.sentinel: worker for worker, (process, _) in self._workers.items()}
        found = {ends[each] for each in wait([*ends], timeout=_WAIT_S)}
        return [event for worker in sorted(found) for event in self._of(worker)]

    def _of(self, worker: int) -> Iterator[Event]:
        process, pipe = self._workers[worker]
        try:
            while pipe.poll():
                said = pipe.recv()
                if isinstance(said, Provenance):
                    yield Ready(worker, said)
                elif isinstance(said, Marker | Failed):
                    yield Finished(worker, said)
                else:
                    yield Recorded(worker, said)
        except (EOFError, OSError):
            process.join(_STOP_S)
        if not process.is_alive():
            del self._workers[worker]
            pipe.close()
            yield Died(worker, _why(process.exitcode))

    def stop(self) -> None:
        """End all workers, at their next frame; those that do not are killed."""
        for _, pipe in self._workers.values():
            pipe.close()
        try:
            for process, _ in self._workers.values():
                process.join(_STOP_S)
        finally:
            for process, _ in self._workers.values():
                if process.is_alive():
                    process.kill()
                    process.join()


@contextmanager
def local_pool(spec: WorkerSpec) -> Iterator[LocalPool]:
    """The workers of this machine, ended with the block."""
    pool = LocalPool(spec)
    try:
        yield pool
    finally:
        pool.stop()


def _work(pipe: Connection, spec: WorkerSpec) -> None:
    """The main function of a worker process: parts in, markers out, until the pipe closes or SIGTERM comes."""
    # Ctrl-C reaches all processes of a terminal; the driver decides when workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stopping = threading.Event()
    jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()

    def stop(*_: object) -> None:
        stopping.set()
        jobs.put(None)

    def listen() -> None:
        # Also ends where the driver was killed: its end of the pipe is closed with it.
        with suppress(EOFError, OSError):
            while True:
                jobs.put(pipe.recv())
        stop()

    def recorded() -> None:
        with suppress(OSError):  # the driver has gone, and `listen` ends this
            pipe.send(1)

    signal.signal(signal.SIGTERM, stop)
    configure_logging(level="warning", as_json=False)
    threading.Thread(target=listen, name="listen", daemon=True).start()
    with suppress(OSError):  # the driver has gone
        try:
            with started_runner(spec, stopping) as runner:
                pipe.send(runner.provenance)
                while not stopping.is_set() and (job := jobs.get()) is not None:
                    result = runner.result(job, recorded)
                    if result is None:
                        break
                    pipe.send(result)
        except Exception as error:  # noqa: BLE001 - the driver reports it
            pipe.send(failure(error))


def _why(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in signal.valid_signals() else str(-code)
        return f"ended by {name}" + (", perhaps for lack of memory" if -code == signal.SIGKILL else "")
    return f"ended with exit code {code}"
