"""One engine per device: crops of all clips in, log-odds of fake out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
import structlog

from models.errors import UnmaskError
from pipeline import tracing
from pipeline.scoring.backend import Backend
from pipeline.scoring.batcher import MicroBatcher
from pipeline.types import Floats, Image

log = structlog.get_logger(__name__)

# A live frame waits at most this long for its batch to fill; 5 ms are less than a tenth of one CPU inference.
MAX_DELAY_S = 0.005
# Crops that may wait: a few batches. More would only add latency and memory (299 px: 268 kB a crop).
QUEUE_BATCHES = 8
# A backend that takes this long for a batch after it was compiled is unusable.
_PATIENCE_S = 60.0


class ScoringError(UnmaskError, RuntimeError):
    """The model could not score a crop: only this crop fails, the rest of its batch is scored."""


@dataclass(eq=False)
class _Request:
    """Crops that were submitted together and are answered together."""

    future: Future[Floats]
    logits: Floats
    left: int
    # Of the clip's span, for the batches that score it.
    place: Any = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, position: int, logit: float) -> None:
        with self.lock:
            self.logits[position] = logit
            self.left -= 1
            done = self.left == 0 and not self.future.done()
        if done:
            self.future.set_result(self.logits)

    def fail(self, error: Exception) -> None:
        with self.lock:
            self.left -= 1
            first = not self.future.done()
            if first:
                self.future.set_exception(error)


@dataclass(frozen=True, eq=False, slots=True)
class _Item:
    pixels: Image
    request: _Request
    position: int


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counters of an engine since it started."""

    crops: int
    batches: int
    failed: int
    waiting: int
    oldest_age_s: float

    @classmethod
    def total(cls, parts: Sequence[EngineStats]) -> EngineStats:
        """Combine the counters of at least one engine: sums, and the age of the oldest crop."""
        return cls(
            crops=sum(part.crops for part in parts),
            batches=sum(part.batches for part in parts),
            failed=sum(part.failed for part in parts),
            waiting=sum(part.waiting for part in parts),
            oldest_age_s=max(part.oldest_age_s for part in parts),
        )


class Engine:
    """Scores crops in micro-batches over all clips. Thread-safe; close it, or use it as a context manager.

    Args:
        backend: computes the scores. The engine owns it and closes it.
        max_delay_s: how long the first crop of a batch waits for others, in seconds.
        queue_crops: how many crops may wait before `submit` blocks; by default a few batches.
        batch_size: called with the number of crops of each batch that was scored or failed.
        warm_up: first score one synthetic batch of each of the backend's shapes, on the thread that serves later: what
            is compiled or recorded at first use (CUDA graphs belong to their thread) is then there. `ready` waits.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        max_delay_s: float = MAX_DELAY_S,
        queue_crops: int | None = None,
        batch_size: Callable[[int], None] | None = None,
        warm_up: bool = False,
    ) -> None:
        self.backend = backend
        self.batch_size = batch_size
        self._tap: Callable[[Image, float], None] | None = None
        self._batcher = MicroBatcher[_Item](
            max_batch=backend.max_batch,
            max_delay_s=max_delay_s,
            capacity=queue_crops or QUEUE_BATCHES * backend.max_batch,
        )
        self._slots = threading.Semaphore(backend.concurrency)
        self._count_lock = threading.Lock()
        self._crops = self._batches = self._failed = 0
        self._warm: Future[None] = Future()
        if not warm_up:
            self._warm.set_result(None)
        self._thread = threading.Thread(target=self._run, name=f"engine-{backend.name}", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        """Name of the backend."""
        return self.backend.name

    def submit(self, pixels: Image) -> Future[Floats]:
        """Queue crops of one frame or clip; blocks while the queue is full.

        Args:
            pixels: uint8 [N, S, S, 3], RGB, S as the backend's input size.

        Returns:
            A future of float32 [N], log-odds of fake; it holds a `ScoringError` if one of the crops failed.

        Raises:
            ValueError: shape or dtype differ from the model's input.
            QueueClosedError: the engine was closed.
        """
        size = self.backend.input_size
        if pixels.ndim != 4 or pixels.shape[1:] != (size, size, 3) or pixels.dtype != np.uint8:
            raise ValueError(f"crops must be uint8 [N, {size}, {size}, 3], got {pixels.dtype} {list(pixels.shape)}")
        future: Future[Floats] = Future()
        if len(pixels) == 0:
            future.set_result(np.zeros(0, np.float32))
            return future
        request = _Request(future, np.zeros(len(pixels), np.float32), len(pixels), tracing.place())
        self._batcher.put([_Item(crop, request, i) for i, crop in enumerate(pixels)])
        return future

    def ready(self) -> None:
        """Wait for the end of the warm-up.

        Raises:
            ScoringError: the backend failed in it, or gave scores that are not finite.
        """
        self._warm.result()

    def begin(self, batch_size: Callable[[int], None] | None) -> None:
        """Count from now on, and call `batch_size`; crops that were scored before, as a trial, belong to no clip."""
        with self._count_lock:
            self._crops = self._batches = self._failed = 0
        self.batch_size = batch_size

    def tap(self, heard: Callable[[Image, float], None] | None) -> None:
        """Call `heard` with each scored crop, uint8 [S, S, 3], and its log-odds, on any thread; None stops it."""
        self._tap = heard

    def stats(self) -> EngineStats:
        """Counters and the queue's depth and age."""
        with self._count_lock:
            return EngineStats(
                self._crops, self._batches, self._failed, len(self._batcher), self._batcher.oldest_age_s()
            )

    def close(self) -> None:
        """Score the waiting crops, then stop. Idempotent."""
        self._batcher.close()
        self._thread.join()
        self.backend.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        if not self._warm.done():
            try:
                self._warm_up()
                self._warm.set_result(None)
            except Exception as error:  # noqa: BLE001 - any error is the warm-up's result
                self._warm.set_exception(error)
        while True:
            # A free slot first, then the batch: crops that arrive during the wait still join it.
            self._slots.acquire()
            items = self._batcher.take(self.backend.fit)
            if not items:
                self._slots.release()
                break
            self._start(items)
        for _ in range(self.backend.concurrency):
            self._slots.acquire()

    def _warm_up(self) -> None:
        size, rng = self.backend.input_size, np.random.default_rng(0)
        for count in self.backend.shapes:
            pixels = rng.integers(0, 256, (count, size, size, 3), np.uint8)
            pixels[0], pixels[-1] = 255, 0
            answer: Future[Floats | Exception] = Future()
            try:
                self.backend.start(pixels, answer.set_result)
                found = answer.result(_PATIENCE_S)
            except Exception as error:
                raise ScoringError(f"{self.backend.name} failed in the warm-up: {error!r}") from error
            if isinstance(found, Exception):
                raise ScoringError(f"{self.backend.name} failed in the warm-up: {found!r}") from found
            if found.shape != (count,) or not bool(np.isfinite(found).all()):
                raise ScoringError(f"{self.backend.name} gave {found.tolist()} for {count} crops in the warm-up")

    def _start(self, items: Sequence[_Item], alone: Sequence[_Item] = ()) -> None:
        """Score a batch, then the items of `alone` one by one, all in the slot that the caller has acquired."""

        span = tracing.NO_SPAN
        if tracing.is_on():
            facts: dict[str, str | int] = {"unmask.crops": len(items), "unmask.backend": self.backend.name}
            span = tracing.linked("score batch", (item.request.place for item in items), facts)

        def done(result: Floats | Exception) -> None:
            if isinstance(result, Exception):
                span.fail(type(result).__name__)
            span.end()
            retry = self._finish(items, result) or alone
            if retry:
                self._start(retry[:1], retry[1:])
            else:
                self._slots.release()

        try:
            self.backend.start(np.stack([item.pixels for item in items]), done)
        except Exception as error:  # noqa: BLE001 - any error of a batch is its result
            done(error)

    def _finish(self, items: Sequence[_Item], result: Floats | Exception) -> Sequence[_Item]:
        """Answer a batch; returns the items to try one by one."""
        if not isinstance(result, Exception) and result.shape != (len(items),):
            result = ValueError(f"scores of shape {result.shape} for {len(items)} crops")
        if isinstance(result, Exception) and len(items) > 1:
            log.warning("a batch failed, its crops are tried one by one", error=repr(result), crops=len(items))
            return items
        with self._count_lock:
            self._batches += 1
            self._crops += len(items)
        if self.batch_size is not None:
            self.batch_size(len(items))
        if isinstance(result, Exception):
            self._fail(items[0], ScoringError(f"{self.backend.name} failed on a crop: {result!r}"))
            return ()
        tap = self._tap
        for item, logit in zip(items, result, strict=True):
            if np.isfinite(logit):
                item.request.answer(item.position, float(logit))
                if tap is not None:
                    tap(item.pixels, float(logit))
            else:
                self._fail(item, ScoringError(f"{self.backend.name} gave {logit} for a crop"))
        return ()

    def _fail(self, item: _Item, error: ScoringError) -> None:
        with self._count_lock:
            self._failed += 1
        item.request.fail(error)
