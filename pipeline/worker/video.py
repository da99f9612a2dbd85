"""Serves a video task: from the message to the stored and published verdict."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import Final

import redis
import structlog
from pydantic import ValidationError

from pipeline import tracing
from pipeline.contracts import Outcome, Provenance, Verdict, is_of_newer_version
from pipeline.parts.store import PartStore
from pipeline.scan import LongClipError, Scanner
from pipeline.sources import ScanInterruptedError, Source
from pipeline.transport.kafka import MAX_RECORD_BYTES
from pipeline.transport.messages import ContractError, Part, VideoTask
from pipeline.types import Scores
from pipeline.verdict.aggregate import ClipFacts, Failure, judge
from pipeline.video.sampling import parse_sampling
from pipeline.worker.message import HandedBackError, ServedMessage
from pipeline.worker.parts import PartOfVideo, can_be_split, split

log = structlog.get_logger(__name__)

# Outcomes that depend on bytes, weights and sampling alone: the same content gets them again.
REUSABLE: Final = frozenset({Outcome.SCORED, Outcome.NO_FACE, Outcome.LOW_QUALITY})


@dataclass(frozen=True, slots=True)
class _Stored:
    """The stored record of a clip, byte for byte, and what it says; None in one that a newer version wrote."""

    record: bytes
    verdict: Verdict | None

    @classmethod
    def parse(cls, record: bytes) -> _Stored:
        """Read a stored record.

        Raises:
            ValidationError: it is not one of any version.
        """
        try:
            return cls(record, Verdict.model_validate_json(record))
        except ValidationError:
            if not is_of_newer_version(record):
                raise
            return cls(record, None)


class VideoMessage(ServedMessage):
    """A video task that is being served."""

    _scanner: Scanner

    def run(self) -> None:
        """Raises HandedBackError if the worker stops, or the partition moves, before the verdict is safe."""
        delivery, metrics = self.delivery, self.service.metrics
        if self.gone():
            raise HandedBackError("before it was started")
        try:
            task = VideoTask.parse(delivery.value, delivery.key)
            if task.source_class.topic is not delivery.topic:
                raise ContractError(f"source_class {task.source_class}: expected on {task.source_class.topic}")
        except ContractError as error:
            log.warning("no task", error=str(error))
            self.dead_letter(str(error), stage="parse", attempts=0)
        else:
            tracing.note(_facts_of(task))
            metrics.clip_age_seconds.observe(max(0.0, time.time() - task.submitted_at), tracing.exemplar())
            with (
                # Its weights stay the same to its end.
                self.service.scanners.of(task.video_id) as self._scanner,
                structlog.contextvars.bound_contextvars(clip_id=task.video_id),
            ):
                try:
                    if task.part is not None and self.service.parts is not None:
                        self._judge_part(task, task.part, self.service.parts)
                    else:
                        self._judge(task)
                except HandedBackError:
                    raise
                except Exception as error:
                    # A bug must not block the partition; the clip's verdict reports it.
                    log.exception("a task could not be served")
                    why = f"{type(error).__name__}: {error}"
                    try:
                        self._end(task, _unscored(self._scanner, task, Failure(Outcome.MODEL_ERROR, why)), None)
                    except HandedBackError:
                        raise
                    except Exception as second:
                        log.exception("its verdict could not be stored")
                        more = f"; no verdict could be stored: {type(second).__name__}: {second}"
                        self.dead_letter(why + more, stage="score", attempts=1)
        self.service.consumer.done(delivery)

    def _judge(self, task: VideoTask) -> None:
        store = self.service.store
        begun = self.retry_until_lost(lambda: store.begin(task.video_id))
        attempt = begun.attempt
        if begun.record is not None:
            stored = _Stored.parse(begun.record)
        else:
            try:
                attempt, stored = self._verdict(task, attempt)
            except HandedBackError:
                self._release(task)
                raise
            except LongClipError as clip:
                # Its verdict comes with the last of its parts.
                assert self.service.parts is not None
                split(self, task, self.service.parts, clip, self.service.split_s)
                self.service.metrics.split.inc()
                return
        self._settle(task, stored, attempt)

    def _judge_part(self, task: VideoTask, part: Part, store: PartStore) -> None:
        record = self.retry_until_lost(lambda: self.service.store.record(task.video_id))
        if record is not None:
            # The worker that stored it may have died before it published it.
            self.publish(record, task.video_id)
            self.retry_until_lost(lambda: store.drop(task.video_id))
            return
        scanner = self._sampled(task)
        verdict = PartOfVideo(self, task, part, scanner, store).verdict()
        if verdict is None:
            return
        if isinstance(verdict, Failure):
            verdict = _unscored(scanner, task, verdict)
        sha256 = verdict.provenance.source_sha256
        known = None if sha256 is None else fingerprint(sha256, verdict.provenance)
        self._end(task, verdict, known)
        self.retry_until_lost(lambda: store.drop(task.video_id))

    def _sampled(self, task: VideoTask) -> Scanner:
        return self._scanner if task.sampling is None else self._scanner.with_sampling(parse_sampling(task.sampling))

    def _end(self, task: VideoTask, verdict: Verdict, known: str | None) -> None:
        """Store and publish a verdict. Its dead letter comes first: later parts of the clip only see the verdict."""
        early = task.part is not None and verdict.outcome is Outcome.MODEL_ERROR
        if early:
            self.dead_letter(verdict.error or "", stage="score", attempts=1)
        self._settle(task, self._finish(verdict, known, scanned=True), 1, dead_letter=not early)

    def _settle(self, task: VideoTask, stored: _Stored, attempt: int, *, dead_letter: bool = True) -> None:
        """Publish what is stored."""
        verdict = stored.verdict
        self.publish(stored.record, task.video_id)
        if verdict is None:
            # Its worker ended between storing and publishing. What it says is for those who know its schema.
            log.info("the record of a newer version is published")
            return
        if dead_letter and verdict.outcome is Outcome.MODEL_ERROR:
            self.dead_letter(verdict.error or "", stage="score", attempts=attempt)
        metrics = self.service.metrics
        metrics.clips.labels(verdict.outcome, task.source_class).inc()
        if verdict.outcome in REUSABLE and verdict.judged_s is not None:
            metrics.video_seconds.labels(task.source_class).inc(verdict.judged_s)
        metrics.clip_seconds.observe(time.monotonic() - self.started_s, tracing.exemplar())
        facts: dict[str, str | int] = {"unmask.outcome": str(verdict.outcome), "unmask.attempt": attempt}
        if verdict.label is not None:
            facts["unmask.label"] = str(verdict.label)
        tracing.note(facts, error="model_error" if verdict.outcome is Outcome.MODEL_ERROR else None)
        log.info("verdict", outcome=str(verdict.outcome), probability=verdict.probability, attempt=attempt)

    def _verdict(self, task: VideoTask, attempt: int) -> tuple[int, _Stored]:
        """How many tries it took, and what is stored."""
        service = self.service
        scanner = self._sampled(task)
        while attempt <= service.max_attempts:
            scan = _Scan(self, scanner, task)
            verdict, transient = scan.run()
            if not transient or attempt == service.max_attempts:
                return attempt, self._finish(verdict, scan.fingerprint, scanned=not scan.is_duplicate)
            log.warning("try failed", attempt=attempt, outcome=str(verdict.outcome), error=verdict.error)
            service.metrics.retries.inc()
            self.wait(service.retry_wait_s * 2 ** (attempt - 1))
            begun = self.retry_until_lost(lambda: service.store.begin(task.video_id))
            if begun.record is not None:
                return attempt, _Stored.parse(begun.record)
            attempt = begun.attempt
        tries = attempt - 1
        why = f"given up after {tries} tries that failed or ended their worker (UNMASK_MAX_ATTEMPTS)"
        return tries, self._finish(_unscored(scanner, task, Failure(Outcome.MODEL_ERROR, why)), None, scanned=True)

    def _finish(self, verdict: Verdict, fingerprint: str | None, *, scanned: bool = False) -> _Stored:
        store = self.service.store
        record = verdict.to_json().encode()
        if len(record) > MAX_RECORD_BYTES:
            why = f"a record of {len(record)} bytes; at most {MAX_RECORD_BYTES} can be published: sample fewer frames"
            verdict = verdict.model_copy(
                update={
                    "outcome": Outcome.OVER_LIMIT,
                    "error": why,
                    "probability": None,
                    "label": None,
                    "frames": [],
                    "people": [],
                }
            )
            record = verdict.to_json().encode()
        stored = self.retry_until_lost(lambda: store.finish(verdict, record))
        if stored != record:
            # An earlier verdict of this id, perhaps of other bytes: it says nothing of this content.
            return _Stored.parse(stored)
        if scanned:
            self.service.judged(verdict)
        if fingerprint is not None and verdict.outcome in REUSABLE:
            try:
                self.retry_until_lost(lambda: store.remember(fingerprint, verdict.id))
            except redis.RedisError as error:
                log.warning("the content is not remembered", error=str(error))
        return _Stored(stored, verdict)

    def _release(self, task: VideoTask) -> None:
        try:
            self.service.store.release(task.video_id)
        except redis.RedisError as error:
            # Then the try counts, although it did not fail.
            log.warning("try not taken back", error=str(error))


class _Scan:
    """One try of one task."""

    def __init__(self, owner: VideoMessage, scanner: Scanner, task: VideoTask) -> None:
        self._owner, self._scanner, self._task = owner, scanner, task
        self._duplicate: Verdict | None = None
        self.fingerprint: str | None = None

    @property
    def is_duplicate(self) -> bool:
        """Whether the verdict is one on the same content."""
        return self._duplicate is not None

    def run(self) -> tuple[Verdict, bool]:
        """The verdict, and whether another try may give another outcome."""
        service, task = self._owner.service, self._task
        started_s = time.monotonic()
        try:
            report = self._scanner.scan(
                Source(task.uri, task.video_id, guard=service.allow),
                done=self._was_judged,
                stop=self._owner.gone,
                longest_s=service.split_s if service.parts and service.split_s and can_be_split(task) else None,
                part=task.window,
            )
        except HandedBackError:
            raise
        except ScanInterruptedError:
            raise HandedBackError("in the middle of the clip") from None
        if report is not None:
            return report.verdict, report.transient
        assert self._duplicate is not None
        service.metrics.duplicates.inc()
        own = {"id": task.video_id, "source": task.uri, "elapsed_s": round(time.monotonic() - started_s, 3)}
        return self._duplicate.model_copy(update=own), False

    def _was_judged(self, sha256: str | None) -> bool:
        """Whether a stored verdict is of these bytes, judged alike. What Redis has of them is checked, not trusted."""
        if sha256 is None:
            return False
        self.fingerprint = key = fingerprint(sha256, self._provenance())
        try:
            record = self._owner.retry_until_lost(lambda: self._owner.service.store.duplicate(key))
            verdict = None if record is None else Verdict.model_validate_json(record)
        except (redis.RedisError, ValidationError) as error:
            log.warning("the verdict on the same content cannot be read", error=f"{type(error).__name__}: {error}")
            return False
        if verdict is None:
            return False
        found = verdict.provenance
        if verdict.outcome not in REUSABLE or fingerprint(found.source_sha256 or "", found) != key:
            log.warning("the verdict on the same content is of another one", other=verdict.id)
            return False
        self._duplicate = verdict
        return True

    def _provenance(self) -> Provenance:
        """What the verdict's will say of weights, face detector and sampling."""
        found, window = self._scanner.provenance, self._task.window
        return found if window is None else found.model_copy(update={"sampling": window.sampling_text(found.sampling)})


def fingerprint(source_sha256: str, provenance: Provenance) -> str:
    """What a verdict depends on, as 64 hex digits: the bytes, the weights, the face detector and the sampling."""
    parts = [source_sha256, *provenance.weights_sha256, provenance.input_spec, provenance.detector, provenance.sampling]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _facts_of(task: VideoTask) -> dict[str, str | int]:
    facts: dict[str, str | int] = {"unmask.clip.id": task.video_id, "unmask.source_class": str(task.source_class)}
    return facts if task.part is None else {**facts, "unmask.part": task.part.index, "unmask.parts": task.part.count}


def _unscored(scanner: Scanner, task: VideoTask, failure: Failure) -> Verdict:
    facts = ClipFacts(
        id=task.video_id,
        source=task.uri,
        duration_s=None,
        frames_sampled=0,
        faces_seen=0,
        failure=failure,
        provenance=scanner.provenance,
        elapsed_s=0.0,
    )
    return judge(facts, Scores.join(task.video_id, []), None, None)
