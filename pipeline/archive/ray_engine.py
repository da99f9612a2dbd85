"""The engine `ray`: actors on the machines of a Ray cluster. ray is imported here alone.

An actor is replaced by the driver, not restarted by Ray, and a part is given out again by the driver, not by Ray
(`max_restarts` and `max_task_retries` are 0): Ray would repeat a part on the same actor, which may wait for a machine
that does not come back, and would not count at which file it was killed.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final

from models.errors import UnmaskError
from pipeline.archive.dispatch import Died, Event, Finished, Ready, Recorded
from pipeline.archive.part import Failed, Job, PartRunner, WorkerSpec, failure, started_runner
from pipeline.archive.table import Marker
from pipeline.contracts import Provenance
from pipeline.logs import configure_logging
from pipeline.visible import masked

_WAIT_S: Final = 1.0
_STOP_S: Final = 60.0
# `run`, next to the short calls `recorded` and `stop`.
_CALLS_AT_ONCE: Final = 3


class RayError(UnmaskError):
    """The Ray cluster cannot be reached or started."""

    exit_code = 1


class PartActor:
    """A scanner in an actor's process."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._stopping = threading.Event()
        self._stack = ExitStack()
        self._runner: PartRunner | None = None

    def load(self) -> Provenance | Failed:
        """Load the scanner. Not in `__init__`, whose errors look like those of a lost machine."""
        configure_logging(level="warning", as_json=False)
        try:
            self._runner = self._stack.enter_context(started_runner(self._spec, self._stopping))
        except Exception as error:  # noqa: BLE001 - the driver reports it
            return failure(error)
        return self._runner.provenance

    def run(self, job: Job) -> Marker | Failed | None:
        """See `PartRunner.result`."""
        return None if self._runner is None else self._runner.result(job)

    def recorded(self) -> int:
        """Files judged so far, of all parts."""
        return 0 if self._runner is None else self._runner.recorded

    def stop(self) -> None:
        """End what is under way at its next frame."""
        self._stopping.set()


class RayPool:
    """Actors; see `ray_pool`."""

    def __init__(self, ray: Any, spec: WorkerSpec, resources: dict[str, float]) -> None:
        self._ray = ray
        self._spec = spec
        self._class = ray.remote(PartActor).options(
            max_restarts=0, max_task_retries=0, max_concurrency=_CALLS_AT_ONCE, **resources
        )
        self._actors: dict[int, Any] = {}
        # What was asked of which actor, by the reference of its answer.
        self._asked: dict[Any, tuple[int, str]] = {}
        self._recorded: dict[int, int] = {}
        self._started = 0

    def start(self) -> int:
        """Start an actor; returns its number."""
        self._started += 1
        actor = self._actors[self._started] = self._class.remote(self._spec)
        self._asked[actor.load.remote()] = self._started, "load"
        return self._started

    def assign(self, worker: int, job: Job) -> None:
        """Give a part to an actor."""
        self._asked[self._actors[worker].run.remote(job)] = worker, "run"

    def events(self) -> Sequence[Event]:
        """What has happened, see `Pool.events`."""
        ray = self._ray
        counting = {worker for worker, what in self._asked.values() if what == "recorded"}
        for worker in [worker for worker, what in self._asked.values() if what == "run" and worker not in counting]:
            self._asked[self._actors[worker].recorded.remote()] = worker, "recorded"
        answers = [reference for reference, (_, what) in self._asked.items() if what != "recorded"]
        ray.wait(answers, num_returns=1, timeout=_WAIT_S)
        answered, _ = ray.wait([*self._asked], num_returns=len(self._asked), timeout=0)
        # Counts first: that of a part belongs to it, not to the next one.
        answered.sort(key=lambda reference: self._asked[reference][1] != "recorded")
        return [event for reference in answered for event in self._of(reference)]

    def _of(self, reference: Any) -> Iterator[Event]:
        if reference not in self._asked:
            return  # of an actor that has died, as an earlier answer said
        worker, _ = self._asked.pop(reference)
        try:
            answer = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            yield Finished(worker, Failed(f"internal error of an actor: {error}", 1))
            return
        except self._ray.exceptions.RayError as error:
            yield from self._died(worker, error)
            return
        if isinstance(answer, int):
            yield from self._counted(worker, answer)
        elif isinstance(answer, Provenance):
            yield Ready(worker, answer)
        elif answer is not None:
            yield Finished(worker, answer)

    def _counted(self, worker: int, total: int) -> Iterator[Event]:
        more = total - self._recorded.get(worker, 0)
        if more > 0:
            self._recorded[worker] = total
            yield Recorded(worker, more)

    def _died(self, worker: int, error: Exception) -> Iterator[Event]:
        actor = self._actors.pop(worker)
        # It may be out of reach alone: it must not go on.
        with suppress(Exception):
            self._ray.kill(actor)
        self._asked = {reference: (of, what) for reference, (of, what) in self._asked.items() if of != worker}
        first, _, _ = str(error).strip().partition("\n")
        yield Died(worker, f"{type(error).__name__}: {first}")

    def stop(self) -> None:
        """End all actors, at their next frame; those that do not are killed."""
        for actor in self._actors.values():
            with suppress(Exception):
                actor.stop.remote()
        runs = [reference for reference, (_, what) in self._asked.items() if what == "run"]
        if runs:
            self._ray.wait(runs, num_returns=len(runs), timeout=_STOP_S)
        for actor in self._actors.values():
            with suppress(Exception):
                self._ray.kill(actor)


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """The module ray, connected to a cluster; disconnected at the end of the block.

    Args:
        address: of a cluster, or `auto`; None: start one on this machine, which ends with the block.

    Raises:
        RayError: the cluster cannot be reached or started.
        ModuleNotFoundError: ray is not installed.
    """
    # ray reports its use over the network by default.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    # None is no address for ray: it would take one from RAY_ADDRESS.
    options: dict[str, Any] = {"address": address or "local", "log_to_driver": True, "logging_level": "warning"}
    # numpy's BLAS would start a thread for each core in each actor, and nothing here uses them: see `pipeline.cli`.
    options["runtime_env"] = {"env_vars": {"OPENBLAS_NUM_THREADS": "1"}}
    if address is None:
        options["include_dashboard"] = False
    try:
        ray.init(**options)
    except Exception as error:  # ray raises many types
        where = f"the Ray cluster at {masked(address)} cannot be reached" if address else "Ray cannot be started"
        raise RayError(f"{where}: {type(error).__name__}: {error}") from error
    try:
        if main:
            # ray.init replaces it by one that exits.
            signal.signal(signal.SIGTERM, before)
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def ray_pool(ray: Any, spec: WorkerSpec, *, cpus: float, gpus: float) -> Iterator[RayPool]:
    """The actors of a cluster, ended with the block.

    Args:
        ray: see `connected`.
        spec: of each actor.
        cpus: that each actor takes of its machine.
        gpus: the same.
    """
    pool = RayPool(ray, spec, {"num_cpus": cpus, "num_gpus": gpus})
    try:
        yield pool
    finally:
        pool.stop()
