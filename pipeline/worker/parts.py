"""Long videos: the first worker makes tasks of the parts, and the worker that finishes the last part ends the clip."""

from __future__ import annotations

import redis
import structlog

from pipeline.contracts import Outcome, Provenance, Verdict
from pipeline.parts.join import judge_parts, plan_parts
from pipeline.parts.result import PartError, PartResult, window_of_newer
from pipeline.parts.store import PartStore
from pipeline.scan import LongClipError, Scanner
from pipeline.sources import ScanInterruptedError, Source
from pipeline.transport.messages import Part, VideoTask
from pipeline.verdict.aggregate import Failure
from pipeline.video.window import Window
from pipeline.worker.message import HandedBackError, ServedMessage

log = structlog.get_logger(__name__)


def can_be_split(task: VideoTask) -> bool:
    """Whether it may be judged in parts: a fetched video would be fetched again for each part."""
    return task.part is None and not Source(task.uri).is_remote


def split(message: ServedMessage, task: VideoTask, store: PartStore, clip: LongClipError, split_s: float) -> int:
    """Send the parts of a long video, each to a partition of its own; returns how many."""
    duration_s = clip.duration_s
    windows = plan_parts(duration_s, split_s, clip.overlap_s)
    # First the note in Redis: a part that does not find it assumes that the results of other parts are lost.
    message.retry_until_lost(lambda: store.sent(task.video_id))
    for index, window in enumerate(windows):
        part = Part(index=index, count=len(windows), start_s=window.start_s, end_s=window.given_end_s)
        send_part(message, task.model_copy(update={"part": part}))
    log.info("split", parts=len(windows), duration_s=round(duration_s, 1))
    return len(windows)


def send_part(message: ServedMessage, task: VideoTask) -> None:
    """Send a part, and wait for the acknowledgement."""
    delivery = message.delivery
    message.send(lambda: message.service.publisher.part(task, delivery.partition, message.trace_headers()))


class PartOfVideo:
    """A part that is being served: its result is stored once, and the last part gives the verdict."""

    def __init__(self, message: ServedMessage, task: VideoTask, part: Part, scanner: Scanner, store: PartStore) -> None:
        self._message, self._task, self._part, self._scanner, self._store = message, task, part, scanner, store

    def verdict(self) -> Verdict | Failure | None:
        """Score the part.

        Returns:
            The whole clip's verdict, if this was the last missing part; a failure that ends the clip; or None while
            other parts are missing.

        Raises:
            HandedBackError: the worker stops, or the partition moves.
        """
        message, task, part, store = self._message, self._task, self._part, self._store
        if not message.retry_until_lost(lambda: store.is_sent(task.video_id)):
            self._restart_clip()
        attempt = message.retry_until_lost(lambda: store.begin(task.video_id, part.index))
        try:
            found = self._result(attempt)
        except HandedBackError:
            self._release()
            raise
        if found is None:
            tries = message.service.max_attempts
            why = f"part {part.index}: given up after {tries} tries that failed or ended their worker"
            return Failure(Outcome.MODEL_ERROR, f"{why} (UNMASK_MAX_ATTEMPTS)")
        results = message.retry_until_lost(lambda: store.put(task.video_id, part.index, part.count, found))
        if results:
            return self._joined(results)
        done = message.retry_until_lost(lambda: store.done(task.video_id, part.count))
        message.service.progress(task.video_id, done / part.count)
        return None

    def _result(self, attempt: int) -> bytes | None:
        """Result of this part, perhaps of an earlier try; None after too many tries."""
        message, task, part = self._message, self._task, self._part
        service = message.service
        while attempt <= service.max_attempts:
            if attempt == 0:  # stored, but its worker died before it checked for the other parts
                stored = message.retry_until_lost(lambda: self._store.result(task.video_id, part.index))
                if stored is not None:
                    return stored
                # It has been retracted.
                attempt = message.retry_until_lost(lambda: self._store.begin(task.video_id, part.index))
                continue
            window = Window.of(part.start_s, part.end_s)
            result = self._look(window)
            if result.failure is None or not result.failure.transient or attempt == service.max_attempts:
                log.info("part", index=part.index, count=part.count, seconds=round(result.elapsed_s, 1))
                return result.to_bytes()
            log.warning("try failed", attempt=attempt, part=part.index, error=result.failure.error)
            service.metrics.retries.inc()
            message.wait(service.retry_wait_s * 2 ** (attempt - 1))
            attempt = message.retry_until_lost(lambda: self._store.begin(task.video_id, part.index))
        return None

    def _restart_clip(self) -> None:
        """Redis has lost the clip's hash, and with it the results of finished parts."""
        message, task = self._message, self._task
        log.warning("results of other parts are lost; the clip starts again", part=self._part.index)
        message.send(lambda: message.service.publisher.submit(task.whole(), message.trace_headers()))
        message.retry_until_lost(lambda: self._store.sent(task.video_id))

    def _joined(self, results: list[bytes]) -> Verdict | None:
        scanner = self._scanner
        parts = [self._read(data) for data in results]
        ours = _scored_by(scanner.provenance)
        if others := [index for index, found in enumerate(parts) if not _is_ours(found, ours)]:
            # One detector judges a clip: weights were swapped half-way, or workers are pinned to different ones. And
            # a newer version, of which some workers are while a group is updated, may write what this one cannot read.
            log.warning("parts of other weights or of a newer version are judged again", parts=others)
            windows = [found if isinstance(found, Window) else found.window for found in parts]
            if self._message.retry_until_lost(lambda: self._store.again(self._task.video_id)) == 1:
                self._send_again(windows, others)
                return None
            # A second time: if they were sent again, they could come back with other weights without end.
            parts = [self._look(windows[index]) if index in others else found for index, found in enumerate(parts)]
        read = [found for found in parts if isinstance(found, PartResult)]
        return judge_parts(read, scanner.calibration, scanner.thresholds, scanner.min_coverage)

    def _read(self, data: bytes) -> PartResult | Window:
        """A part's result; of one that a newer version wrote, which part it is."""
        try:
            return PartResult.from_bytes(data)
        except PartError:
            if (window := window_of_newer(data)) is None:
                raise
            return window

    def _look(self, window: Window) -> PartResult:
        task = self._task
        try:
            source = Source(task.uri, task.video_id, guard=self._message.service.allow)
            return self._scanner.scan_part(source, window, stop=self._message.gone)
        except HandedBackError:
            raise
        except ScanInterruptedError:
            raise HandedBackError("in the middle of a part") from None

    def _send_again(self, windows: list[Window], others: list[int]) -> None:
        message, task = self._message, self._task
        for index in others:
            window = windows[index]
            part = Part(index=index, count=len(windows), start_s=window.start_s, end_s=window.given_end_s)
            # In this order: after a crash between the two, the part is still queued.
            send_part(message, task.model_copy(update={"part": part}))
            message.retry_until_lost(lambda index=index: self._store.retract(task.video_id, index))  # type: ignore[misc]

    def _release(self) -> None:
        try:
            self._store.release(self._task.video_id, self._part.index)
        except redis.RedisError as error:
            # Then the try counts, although it did not fail.
            log.warning("try not taken back", error=str(error))


def _is_ours(found: PartResult | Window, ours: tuple[list[str], str]) -> bool:
    return isinstance(found, PartResult) and _scored_by(found.provenance) == ours


def _scored_by(provenance: Provenance) -> tuple[list[str], str]:
    """What scored: the weights and their input."""
    return provenance.weights_sha256, provenance.input_spec
