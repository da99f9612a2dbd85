"""Serves live streams: segments of one stream in order, several streams at once."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import redis
import structlog

from models.errors import UnmaskError
from pipeline import tracing
from pipeline.contracts import ScoredFace, Verdict
from pipeline.faces.tracker import FaceTracker
from pipeline.live.segments import SegmentResult, score_segment
from pipeline.live.state import STATE_VERSION, StreamState
from pipeline.live.store import NEW, InvalidStateError, NewerStateError, StreamStore
from pipeline.scan import Scanner
from pipeline.sources import SourceError
from pipeline.transport.consumer import Delivery
from pipeline.transport.kafka import TransportError
from pipeline.transport.messages import ContractError, Segment
from pipeline.verdict.aggregate import scored_faces
from pipeline.worker.message import HandedBackError, ServedMessage, Service, serve

log = structlog.get_logger(__name__)

# How often streams without segments are searched for.
_IDLE_EVERY_S = 5.0
# Tries of a segment whose stream another worker still owns; it notices the loss of its partition within a frame.
_TRIES = 20
_CONFLICT_S = 0.2


class StreamConflictError(UnmaskError):
    """A segment could not be applied: the stream's state is not the one that this worker knows."""


@dataclass
class _Known:
    """A stream whose state this worker knows, so that it does not ask Redis each time."""

    state: StreamState
    tracker: FaceTracker
    delivery: Delivery


@dataclass(frozen=True)
class Live:
    """How a worker serves live streams.

    Attributes:
        store: the streams' hashes.
        at_once: segments that are looked at, of different streams.
        max_age_s: segments that are older when their turn comes are shed: a receipt, and no look.
        idle_s: a stream without segments for this long is closed with its verdict.
        clock: Unix seconds.
    """

    store: StreamStore
    at_once: int = 2
    max_age_s: float = 5.0
    idle_s: float = 60.0
    clock: Callable[[], float] = time.time


class LiveStreams:
    """Takes segments from the poller's thread and serves them on other threads."""

    def __init__(self, service: Service, live: Live, pool: ThreadPoolExecutor, stopping: threading.Event) -> None:
        """Start without streams.

        Args:
            service: of the worker.
            live: settings of live streams.
            pool: serves segments.
            stopping: when set, running segments are handed back.
        """
        self.service, self.store, self._pool, self.stopping = service, live.store, pool, stopping
        self.max_age_s, self._idle_s, self.clock = live.max_age_s, live.idle_s, live.clock
        self.known: dict[str, _Known] = {}
        self._lock = threading.Lock()
        # By key; a key exists while a thread serves its segments.
        self._queues: dict[bytes | None, deque[Delivery]] = {}
        self._looked_for_idle_s = time.monotonic()

    def submit(self, delivery: Delivery) -> None:
        """Serve a segment after those of its stream that came before."""
        with self._lock:
            queue = self._queues.get(delivery.key)
            if queue is not None:
                queue.append(delivery)
                return
            self._queues[delivery.key] = deque([delivery])
        self._pool.submit(self._serve_all, delivery.key)

    def close_idle(self) -> None:
        """From time to time, close streams that get no more segments, of any worker."""
        if time.monotonic() - self._looked_for_idle_s >= min(_IDLE_EVERY_S, self._idle_s):
            self._looked_for_idle_s = time.monotonic()
            self._pool.submit(self._close_idle)

    def _serve_all(self, key: bytes | None) -> None:
        while True:
            with self._lock:
                queue = self._queues[key]
                if not queue:
                    del self._queues[key]
                    return
                delivery = queue.popleft()
            self._serve(delivery)

    def _serve(self, delivery: Delivery) -> None:
        with structlog.contextvars.bound_contextvars(
            topic=str(delivery.topic), partition=delivery.partition, offset=delivery.offset
        ):
            serve(_LiveSegment(self, delivery))

    def _close_idle(self) -> None:
        for stream_id, known in list(self.known.items()):
            # Streams of others, and those that were idle and ended by another worker.
            if known.delivery.moved or self.clock() - known.state.updated_at > 2 * self._idle_s:
                self.known.pop(stream_id, None)
        try:
            idle = self.store.idle(self._idle_s)
        except redis.RedisError as error:
            log.warning("idle streams are left open", error=str(error))
            return
        for stream_id in idle:
            with structlog.contextvars.bound_contextvars(clip_id=stream_id):
                try:
                    self._close(stream_id)
                except (redis.RedisError, TransportError, NewerStateError) as error:
                    log.warning("an idle stream is left open", error=str(error))
                except InvalidStateError as error:
                    log.error("an idle stream without a readable state is dropped", error=str(error))
                    self._drop(stream_id)
                except Exception:
                    log.exception("an idle stream is left open")

    def _drop(self, stream_id: str) -> None:
        try:
            self.store.drop(stream_id)
            self.store.forget(stream_id)
        except redis.RedisError as error:
            log.warning("an idle stream is left open", error=str(error))

    def _close(self, stream_id: str) -> None:
        state = self.store.load(stream_id)
        if state is None:
            self.store.forget(stream_id)
            return
        if not state.closed:
            ended = state.model_copy(update={"closed": True})
            with self.service.scanners.current() as scanner:
                running = verdict_of(ended, scanner)
            if not self.store.apply(state.position, ended, running.to_json(), []):
                return
            log.info("stream is idle", segments=state.segments)
            state = ended
        record = self.service.store.finish(self.final(state))
        self.service.publisher.verdict(record, stream_id).wait()
        self.ended(stream_id)

    def final(self, state: StreamState) -> Verdict:
        """The verdict in the end, with the faces of the whole stream."""
        faces = self.store.faces(state.stream_id)
        with self.service.scanners.current() as scanner:
            return verdict_of(state, scanner, faces)

    def ended(self, stream_id: str) -> None:
        """Forget a stream whose verdict is stored and published."""
        self.store.forget(stream_id)
        self.known.pop(stream_id, None)
        self.service.metrics.streams_ended.inc()


def verdict_of(state: StreamState, scanner: Scanner, faces: Sequence[ScoredFace] = ()) -> Verdict:
    """The verdict on a stream; the running one lists no faces."""
    return state.verdict(scanner.provenance, scanner.calibration, scanner.thresholds, faces)


class _LiveSegment(ServedMessage):
    """A segment that is being applied to its stream's state; belongs to one thread."""

    def __init__(self, streams: LiveStreams, delivery: Delivery) -> None:
        super().__init__(streams.service, delivery, streams.stopping)
        self._streams = streams

    def run(self) -> None:
        """Raises HandedBackError if the worker stops, or the partition moves, before the state is safe."""
        delivery = self.delivery
        if self.gone():
            raise HandedBackError("before it was started")
        try:
            segment = Segment.parse(delivery.headers, delivery.key, delivery.value)
        except ContractError as error:
            log.warning("no segment", error=str(error))
            self.dead_letter(str(error), stage="parse", attempts=0)
        else:
            tracing.note({"unmask.clip.id": segment.stream_id, "unmask.sequence": segment.sequence})
            with structlog.contextvars.bound_contextvars(clip_id=segment.stream_id):
                try:
                    self._apply(segment)
                except NewerStateError as error:
                    log.warning("left to a newer worker", error=str(error))
                    self.service.metrics.segments.labels("newer").inc()
                    raise HandedBackError(str(error)) from error
                except HandedBackError:
                    self._forget(segment)
                    raise
                except Exception as error:
                    # A bug must not block the partition: the segment is missing from its stream.
                    log.exception("a segment could not be served")
                    self._forget(segment)
                    self.dead_letter(f"{type(error).__name__}: {error}", stage="score", attempts=1)
        self.service.consumer.done(delivery)

    def _forget(self, segment: Segment) -> None:
        """Drop the known state: its tracker may be half-way through the segment. The next segment asks Redis."""
        self._streams.known.pop(segment.stream_id, None)

    def _apply(self, segment: Segment) -> None:
        streams = self._streams
        for _ in range(_TRIES):
            known = self._known(segment)
            if known.state.closed:
                if not known.state.has_applied(self.delivery.partition, self.delivery.offset):
                    self.service.metrics.segments.labels("after_end").inc()
                self._end(known.state)
                return
            if known.state.has_applied(self.delivery.partition, self.delivery.offset):
                return  # a replay: it was applied before
            # Weights may be swapped at a segment's border, not within.
            with self.service.scanners.current() as scanner:
                advanced = self._advance(segment, known, scanner)
            if advanced is not None:
                known.state, known.delivery = advanced, self.delivery
                streams.known[segment.stream_id] = known
                if advanced.closed:
                    self._end(advanced)
                return
            # Its former owner was slower than the rebalance, and applied a segment: try again from that state.
            self._forget(segment)
            self.wait(_CONFLICT_S)
        raise StreamConflictError(f"another worker writes the stream's state, {_TRIES} times in a row")

    def _advance(self, segment: Segment, known: _Known, scanner: Scanner) -> StreamState | None:
        """Apply the segment to the stream; None where the hash is not in the state that we know."""
        streams = self._streams
        before = known.state.position
        state = known.state.model_copy(deep=True)
        if state.partition not in (None, self.delivery.partition):
            # Partitions were added. What is delivered twice is recognised by its sequence.
            self.service.metrics.segments.labels("moved").inc()
            log.warning("the stream moved to another partition", before=state.partition, now=self.delivery.partition)
        state.partition, state.offset = self.delivery.partition, self.delivery.offset
        state.version, state.updated_at = STATE_VERSION, streams.clock()
        result = self._score(segment, state, known.tracker, scanner)
        state.closed = segment.final
        faces = []
        if result is not None:
            known.tracker = result.tracker
            faces = scored_faces(result.scores, np.ones(len(result.scores), bool), result.turn or 0)
        verdict = verdict_of(state, scanner)
        text = verdict.to_json()
        if not self.retry_until_lost(lambda: streams.store.apply(before, state, text, faces)):
            if before == NEW or self.retry_until_lost(lambda: streams.store.load(segment.stream_id)) is not None:
                return None
            # Redis was emptied: our copy of the state is the only one.
            log.warning("the stream's state was gone from Redis", segments=state.segments)
            if not self.retry_until_lost(lambda: streams.store.apply(NEW, state, text, faces)):
                return None
        if result is not None:
            age_s = max(0.0, streams.clock() - self.delivery.timestamp_s)
            self.service.metrics.segment_seconds.observe(age_s, tracing.exemplar())
            tracing.note({"unmask.outcome": str(verdict.outcome)})
            log.debug(
                "running verdict",
                sequence=segment.sequence,
                age_s=round(age_s, 4),
                outcome=str(verdict.outcome),
                probability=verdict.probability,
            )
        return state

    def _known(self, segment: Segment) -> _Known:
        streams = self._streams
        known = streams.known.get(segment.stream_id)
        if known is not None and not known.delivery.moved:
            return known
        now = streams.clock()
        fresh = StreamState(stream_id=segment.stream_id, started_at=now, updated_at=now)
        try:
            state = self.retry_until_lost(lambda: streams.store.load(segment.stream_id)) or fresh
        except InvalidStateError as error:
            log.error("the stream begins again", error=str(error))
            self.retry_until_lost(lambda: streams.store.drop(segment.stream_id))
            state = fresh.model_copy(update={"failed": 1, "last_error": str(error)})
        with self.service.scanners.current() as scanner:
            detector = scanner.detector
        tracker = FaceTracker(detector)
        if state.tracker is not None:
            try:
                tracker = FaceTracker.restore(detector, state.tracker)
            except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
                log.error("people are followed from the start", error=f"{type(error).__name__}: {error}")
                state.failed += 1
                state.last_error = "the state of the tracker is invalid"
        return _Known(state, tracker, self.delivery)

    def _score(
        self, segment: Segment, state: StreamState, tracker: FaceTracker, scanner: Scanner
    ) -> SegmentResult | None:
        """Apply the segment to the state; returns what was scored, or None where it was not scored."""
        count = self.service.metrics.segments.labels
        late = state.late
        if not state.admit(segment.sequence):
            count("duplicated").inc()
            return None
        if state.late > late:
            count("late").inc()
        age_s = self._streams.clock() - self.delivery.timestamp_s
        if age_s > self._streams.max_age_s:
            state.shed += 1
            state.end_s = max(state.end_s, segment.start_s)
            count("shed").inc()
            log.info("shed", sequence=segment.sequence, age_s=round(age_s, 3))
            return None
        turn = _turn_of(state)
        try:
            result = score_segment(
                scanner,
                tracker,
                segment,
                self.delivery.value or b"",
                first_index=state.frames_decoded,
                clock_s=state.clock_s,
                stop=self.gone,
                guard=self.service.allow,
                turn=turn,
            )
        except SourceError as error:
            state.failed += 1
            state.last_error = str(error)
            count("failed").inc()
            return None
        state.segments += 1
        state.add(result.scores, scanner.calibration)
        state.frames_decoded += result.frames_decoded
        state.frames_sampled += result.frames_sampled
        state.faces_seen += result.faces_seen
        state.add_not_judged(result.not_judged)
        state.end_s, state.clock_s = max(state.end_s, result.end_s), result.clock_s
        state.decoder = result.decoder if result.decoder != "none" else state.decoder
        if turn is None:
            state.turn = result.turn
        state.tracker = result.tracker.snapshot()
        for sha256 in scanner.provenance.weights_sha256:
            if sha256 not in state.weights_sha256:
                state.weights_sha256.append(sha256)
        if result.error is not None:
            state.failed += 1
            state.last_error = result.error
            log.warning("segment failed", sequence=segment.sequence, error=result.error)
        count("failed" if result.error else "applied").inc()
        return result

    def _end(self, state: StreamState) -> None:
        """Store and publish the verdict of a stream that has ended, if that is not done yet."""
        verdict = self.retry_until_lost(lambda: self._streams.final(state))
        # A verdict that another worker stored first is of the same state.
        record = self.retry_until_lost(lambda: self.service.store.finish(verdict))
        self.publish(record, state.stream_id)
        self._streams.ended(state.stream_id)
        log.info("verdict", outcome=str(verdict.outcome), probability=verdict.probability, segments=state.segments)


def _turn_of(state: StreamState) -> int | None:
    """The turn of its people, None where it is to be found out: at growing distances, since it costs time."""
    if state.turn is None and state.segments & (state.segments + 1):
        return 0
    return state.turn
