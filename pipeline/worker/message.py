"""What a worker needs to serve messages, and what is common to all messages: retries, dead letters, handing back."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import redis
import stamina
import structlog

from pipeline import tracing
from pipeline.contracts import Verdict
from pipeline.parts.store import PartStore
from pipeline.results.store import VerdictStore
from pipeline.sources import ScanInterruptedError
from pipeline.telemetry import Metrics
from pipeline.transport.consumer import GROUP, Delivery, TaskConsumer
from pipeline.transport.kafka import Publisher, Sent, TooLargeError, TransportError
from pipeline.transport.traced import processing
from pipeline.weights.leases import Scanners
from pipeline.worker.access import UriAllow

log = structlog.get_logger(__name__)

T = TypeVar("T")

_WAIT_MAX_S = 2.0
# Of the tries: with the longest wait, a warning each minute.
_WARN_EVERY = 30
# First words of Redis's errors that concern the whole server, where redis-py has no class for them.
_SERVER_STATES = frozenset({"BUSY", "UNKILLABLE", "MISCONF", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN"})


def is_transient(error: Exception) -> bool:
    """Whether another try may succeed: Redis or Kafka is away, loads, or refuses all clients for now.

    What Redis says of one key (its type, a value that is not a number) or of our command is the same at each try.
    """
    if isinstance(error, TransportError):
        return not isinstance(error, TooLargeError)
    if type(error) is redis.ResponseError:
        return str(error).partition(" ")[0] in _SERVER_STATES
    return isinstance(error, redis.RedisError) and not isinstance(error, redis.DataError)


def _describe_error(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


class HandedBackError(ScanInterruptedError):
    """A task was left to another worker, or to this one after a restart."""


class Slots:
    """Which messages are being served, and since when. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Without messages; `clock` gives seconds."""
        self._clock, self._lock = clock, threading.Lock()
        self._since: dict[tuple[str, str], float] = {}

    @contextmanager
    def held(self, delivery: Delivery) -> Iterator[None]:
        """Note that a message is served, until the end of the block."""
        key = str(delivery.topic), delivery.place
        with self._lock:
            self._since[key] = self._clock()
        try:
            yield
        finally:
            with self._lock:
                self._since.pop(key, None)

    def oldest(self) -> tuple[str, float] | None:
        """Topic and place of the message that has been served longest, and for how many seconds."""
        with self._lock:
            if not self._since:
                return None
            (topic, place), since = min(self._since.items(), key=lambda item: item[1])
        return f"{topic} {place}", self._clock() - since

    def stuck(self, limit_s: float) -> str | None:
        """Which message has been served for longer than the limit, as an error; None if no message has."""
        oldest = self.oldest()
        if oldest is None or oldest[1] <= limit_s:
            return None
        place, held_s = oldest
        return f"{place} has been served for {held_s:.0f} s, longer than a clip's limits allow (UNMASK_STUCK_S)"


@dataclass(frozen=True)
class Service:
    """What a worker needs to serve messages; shared by all of its threads.

    Attributes:
        scanners: gives each clip and each segment its scanner; a task's own sampling replaces the scanner's.
        allow: what may be read.
        parts: of long videos; None where they are not split.
        split_s: videos longer than this are judged in parts; 0: never.
        judged: called with each new verdict on a video that was scanned here.
        progress: called with the id of a clip in parts and the share of its parts that are done.
        max_attempts: tries of a clip before it ends as `model_error`.
        retry_wait_s: before the second try; doubles from try to try.
        slots: the messages that are being served.
    """

    scanners: Scanners
    store: VerdictStore
    publisher: Publisher
    consumer: TaskConsumer
    metrics: Metrics
    allow: UriAllow
    parts: PartStore | None = None
    split_s: float = 0.0
    progress: Callable[[str, float], None] = lambda clip_id, share: None
    judged: Callable[[Verdict], None] = lambda verdict: None
    max_attempts: int = 5
    retry_wait_s: float = 0.5
    slots: Slots = field(default_factory=Slots)


class ServedMessage(ABC):
    """A delivered message that is being served; belongs to one thread."""

    def __init__(self, service: Service, delivery: Delivery, stopping: threading.Event) -> None:
        self.service, self.delivery, self.stopping = service, delivery, stopping
        self.started_s = time.monotonic()

    @abstractmethod
    def run(self) -> None:
        """Serve the message to its end, and mark it as done.

        Raises:
            HandedBackError: it is left to another worker, or to this one after a restart.
        """

    def gone(self) -> bool:
        """Whether the task no longer belongs to this worker."""
        return self.stopping.is_set() or self.delivery.moved

    def retry_until_lost(self, action: Callable[[], T]) -> T:
        """Result of the action; it is retried while Redis or Kafka is away, with a warning from time to time.

        Raises:
            HandedBackError: they still are, and the task no longer belongs to this worker.
            redis.RedisError: Redis refuses, and another try would not help: see `is_transient`.
            TooLargeError: likewise of Kafka.
        """
        tries = 0

        def again(error: Exception) -> bool:
            nonlocal tries
            if not is_transient(error) or self.gone():
                return False
            if tries % _WARN_EVERY == 0:
                log.warning("Redis or Kafka is away", tries=tries + 1, error=_describe_error(error))
            tries += 1
            return True

        try:
            for attempt in stamina.retry_context(
                on=again, attempts=None, timeout=None, wait_initial=0.1, wait_max=_WAIT_MAX_S
            ):
                with attempt:
                    return action()
        except (redis.RedisError, TransportError) as error:
            if not is_transient(error):
                raise
            raise HandedBackError(_describe_error(error)) from error
        raise AssertionError("stamina ends with a result or an error")

    def publish(self, record: bytes, clip_id: str) -> None:
        """Publish a stored record on the topic of verdicts, and wait for the acknowledgement."""
        headers = self.trace_headers()
        try:
            self.send(lambda: self.service.publisher.verdict(record, clip_id, headers))
        except TooLargeError as error:
            # The topic's limit is lower than ours. The verdict is in Redis.
            log.error("verdict not published", error=str(error))
            self.dead_letter(str(error), stage="publish", attempts=1)

    def dead_letter(self, error: str, *, stage: str, attempts: int) -> None:
        """Send the message to the dead letters, and wait for the acknowledgement."""
        tracing.note({"unmask.dead_letter": stage}, error=f"dead_letter.{stage}")
        delivery = self.delivery
        self.retry_until_lost(
            lambda: self.service.publisher.dead(
                delivery.topic,
                delivery.key,
                delivery.value,
                delivery.headers,
                error=error,
                stage=stage,
                attempts=attempts,
            )
        )
        self.service.metrics.dead.labels(stage).inc()

    def refuse(self, error: str) -> None:
        """End a message that breaks the contract."""
        log.warning("not by contract", error=error)
        self.dead_letter(error, stage="parse", attempts=0)
        self.service.consumer.done(self.delivery)

    def give_up(self, error: Exception) -> None:
        """End a message that nothing else could end: a dead letter with the error.

        Raises:
            HandedBackError: the message no longer belongs to this worker.
        """
        self.dead_letter(_describe_error(error), stage="score", attempts=1)
        self.service.consumer.done(self.delivery)

    def send(self, send: Callable[[], Sent]) -> None:
        """Send something, and wait for the acknowledgement."""
        self.retry_until_lost(lambda: send().wait())

    def trace_headers(self) -> list[tuple[str, bytes | None]]:
        """The message's headers that are passed on: those of its trace. A worker that traces replaces them."""
        return [(name, text) for name, text in self.delivery.headers if name in tracing.TRACE_HEADERS]

    def wait(self, seconds: float) -> None:
        """Pause between two tries.

        Raises:
            HandedBackError: the task no longer belongs to this worker.
        """
        if self.stopping.wait(seconds) or self.gone():
            raise HandedBackError("between two tries")


def serve(message: ServedMessage) -> None:
    """Serve a message: whatever happens, it is done, dead-lettered, or left to another worker."""
    with processing(message.delivery.topic, message.delivery, GROUP):
        _serve(message)


def _serve(message: ServedMessage) -> None:
    try:
        try:
            with message.service.slots.held(message.delivery):
                if message.delivery.unreadable:
                    message.refuse(f"cannot be read: {message.delivery.unreadable}")
                else:
                    message.run()
        except HandedBackError:
            raise
        except Exception as error:
            # A bug, or Redis refuses what concerns this message. It must not hold its place and offset.
            log.exception("a message could not be served")
            message.give_up(error)
    except HandedBackError as reason:
        message.service.metrics.handed_back.inc()
        log.info("handed back", reason=str(reason))
        tracing.note({"unmask.handed_back": True})
        if not message.gone():
            message.service.consumer.leave(message.delivery)
    except Exception:
        # Kafka refuses even the shortest dead letter. The offset stays uncommitted: the message is delivered again.
        log.exception("a message could not be dead-lettered")
        message.service.consumer.leave(message.delivery)
