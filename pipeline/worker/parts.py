"""Long videos: a worker that meets one makes tasks of its parts, and whoever finishes the last part ends the clip."""

from __future__ import annotations

import math

import redis
import structlog

from pipeline.contracts import Outcome, Provenance, Verdict
from pipeline.parts.join import PartResult, judge_parts, plan_parts
from pipeline.parts.store import PartStore
from pipeline.scan import ScanInterruptedError, Scanner
from pipeline.sources import Source, is_uri
from pipeline.transport.messages import Part, VideoTask
from pipeline.verdict.aggregate import Failure
from pipeline.video.window import Window
from pipeline.worker.message import HandedBackError, ServedMessage

log = structlog.get_logger(__name__)


def can_be_split(task: VideoTask) -> bool:
    """Whether parts of it are worth their while: what is fetched would be fetched for each of them."""
    return task.part is None and (not is_uri(task.uri) or task.uri.startswith("file://"))


def split(message: ServedMessage, task: VideoTask, store: PartStore, duration_s: float, split_s: float) -> int:
    """Send the parts of a long video, each to a partition of its own; returns how many."""
    windows = plan_parts(duration_s, split_s)
    # Before they are: a part that finds nothing of it takes what the others found for lost.
    message.patiently(lambda: store.sent(task.video_id))
    for index, window in enumerate(windows):
        end_s = None if math.isinf(window.end_s) else window.end_s
        part = Part(index=index, count=len(windows), start_s=window.start_s, end_s=end_s)
        send_part(message, task.model_copy(update={"part": part}))
    log.info("split", parts=len(windows), duration_s=round(duration_s, 1))
    return len(windows)


def send_part(message: ServedMessage, task: VideoTask) -> None:
    """Send a part, and wait until it is safe."""
    delivery = message.delivery
    message.send(lambda: message.service.publisher.part(task, delivery.partition, message.trace_headers()))


class PartOfVideo:
    """A part on its way: its result is stored once, and with the last one there is a verdict."""

    def __init__(self, message: ServedMessage, task: VideoTask, part: Part, scanner: Scanner, store: PartStore) -> None:
        self._message, self._task, self._part, self._scanner, self._store = message, task, part, scanner, store

    def verdict(self) -> Verdict | Failure | None:
        """Look at the part.

        Returns:
            The whole clip's verdict, where this was the last part that was missing; a failure that ends the clip; or
            None, where others are missing.

        Raises:
            HandedBackError: the worker stops, or the partition moves.
        """
        message, task, part, store = self._message, self._task, self._part, self._store
        if not message.patiently(lambda: store.is_sent(task.video_id)):
            self._begin_anew()
        attempt = message.patiently(lambda: store.begin(task.video_id, part.index))
        try:
            found = self._result(attempt)
        except HandedBackError:
            self._release()
            raise
        if found is None:
            tries = message.service.max_attempts
            why = f"part {part.index}: given up after {tries} tries that failed or ended their worker"
            return Failure(Outcome.MODEL_ERROR, f"{why} (UNMASK_MAX_ATTEMPTS)")
        results = message.patiently(lambda: store.put(task.video_id, part.index, part.count, found))
        return self._joined(results) if results else None

    def _result(self, attempt: int) -> bytes | None:
        """The result of this part, perhaps of an earlier try; None where there were too many."""
        message, task, part = self._message, self._task, self._part
        service = message.service
        while attempt <= service.max_attempts:
            if attempt == 0:  # it is there: who stored it did not live to look for the others
                stored = message.patiently(lambda: self._store.result(task.video_id, part.index))
                if stored is not None:
                    return stored
                # Taken back meanwhile.
                attempt = message.patiently(lambda: self._store.begin(task.video_id, part.index))
                continue
            window = Window(part.start_s, math.inf if part.end_s is None else part.end_s)
            result = self._look(window)
            if result.failure is None or not result.failure.transient or attempt == service.max_attempts:
                log.info("part", index=part.index, count=part.count, seconds=round(result.elapsed_s, 1))
                return result.to_bytes()
            log.warning("try failed", attempt=attempt, part=part.index, error=result.failure.error)
            service.metrics.retries.inc()
            message.wait(service.retry_wait_s * 2 ** (attempt - 1))
            attempt = message.patiently(lambda: self._store.begin(task.video_id, part.index))
        return None

    def _begin_anew(self) -> None:
        """Redis has lost the clip's hash: of parts that were done before, nothing comes any more."""
        message, task = self._message, self._task
        log.warning("what other parts found is lost; the clip begins anew", part=self._part.index)
        message.send(lambda: message.service.publisher.submit(task.whole(), message.trace_headers()))
        message.patiently(lambda: self._store.sent(task.video_id))

    def _joined(self, results: list[bytes]) -> Verdict | None:
        scanner = self._scanner
        parts = [PartResult.from_bytes(data) for data in results]
        ours = _judges(scanner.provenance)
        if others := [index for index, found in enumerate(parts) if _judges(found.provenance) != ours]:
            # A clip is judged by one detector: either weights were swapped half-way, or workers differ for good.
            log.warning("parts of other weights are judged anew", parts=others)
            if self._message.patiently(lambda: self._store.again(self._task.video_id)) == 1:
                self._send_again(parts, others)
                return None
            # Sent out again, they might come back with other weights for ever.
            parts = [self._look(found.window) if index in others else found for index, found in enumerate(parts)]
        return judge_parts(parts, scanner.calibration, scanner.thresholds)

    def _look(self, window: Window) -> PartResult:
        task = self._task
        try:
            return self._scanner.scan_part(Source(task.uri, task.video_id), window, stop=self._message.gone)
        except HandedBackError:
            raise
        except ScanInterruptedError:
            raise HandedBackError("in the middle of a part") from None

    def _send_again(self, parts: list[PartResult], others: list[int]) -> None:
        message, task = self._message, self._task
        for index in others:
            window = parts[index].window
            end_s = None if math.isinf(window.end_s) else window.end_s
            part = Part(index=index, count=len(parts), start_s=window.start_s, end_s=end_s)
            # In this order: a crash between the two leaves a part under way, whoever takes it.
            send_part(message, task.model_copy(update={"part": part}))
            message.patiently(lambda index=index: self._store.retract(task.video_id, index))  # type: ignore[misc]

    def _release(self) -> None:
        try:
            self._store.release(self._task.video_id, self._part.index)
        except redis.RedisError as error:
            # Then the try counts, though nothing was wrong with it.
            log.warning("try not taken back", error=str(error))


def _judges(provenance: Provenance) -> tuple[list[str], str]:
    """What scored: weights, and how they look at a face."""
    return provenance.weights_sha256, provenance.input_spec
