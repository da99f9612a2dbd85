"""What a worker needs to serve messages, and what is common to all messages: retries, dead letters, handing back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import redis
import stamina
import structlog

from pipeline.parts.store import PartStore
from pipeline.results.store import VerdictStore
from pipeline.scan import ScanInterruptedError
from pipeline.telemetry import Metrics
from pipeline.transport.consumer import Delivery, TaskConsumer
from pipeline.transport.kafka import Publisher, Sent, TooLargeError, TransportError
from pipeline.weights.leases import Scanners
from pipeline.worker.access import UriAllow

log = structlog.get_logger(__name__)

T = TypeVar("T")

# Headers that are passed on to results.
_TRACE_HEADERS = frozenset({"traceparent", "tracestate"})
_WAIT_MAX_S = 2.0


class HandedBackError(ScanInterruptedError):
    """A task was left to another worker, or to this one after a restart."""


@dataclass(frozen=True)
class Service:
    """What a worker needs to serve messages; shared by all of its threads.

    Attributes:
        scanners: gives each clip and each segment its scanner; a task's own sampling replaces the scanner's.
        allow: what may be read.
        parts: of long videos; None where they are not split.
        split_s: videos longer than this are judged in parts; 0: never.
        max_attempts: tries of a clip before it ends as `model_error`.
        retry_wait_s: before the second try; doubles from try to try.
    """

    scanners: Scanners
    store: VerdictStore
    publisher: Publisher
    consumer: TaskConsumer
    metrics: Metrics
    allow: UriAllow
    parts: PartStore | None = None
    split_s: float = 0.0
    max_attempts: int = 5
    retry_wait_s: float = 0.5


class ServedMessage:
    """A delivered message that is being served; belongs to one thread."""

    def __init__(self, service: Service, delivery: Delivery, stopping: threading.Event) -> None:
        self.service, self.delivery, self.stopping = service, delivery, stopping
        self.started_s = time.monotonic()

    def gone(self) -> bool:
        """Whether the task no longer belongs to this worker."""
        return self.stopping.is_set() or self.delivery.moved

    def retry_until_lost(self, action: Callable[[], T]) -> T:
        """Result of the action; it is retried while Redis or Kafka is away.

        Raises:
            HandedBackError: they still are, and the task no longer belongs to this worker.
        """

        def transient(error: Exception) -> bool:
            return (
                isinstance(error, redis.RedisError | TransportError)
                and not isinstance(error, TooLargeError)
                and not self.gone()
            )

        try:
            for attempt in stamina.retry_context(
                on=transient, attempts=None, timeout=None, wait_initial=0.1, wait_max=_WAIT_MAX_S
            ):
                with attempt:
                    return action()
        except TooLargeError:
            raise
        except (redis.RedisError, TransportError) as error:
            raise HandedBackError(f"{type(error).__name__}: {error}") from error
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
        delivery = self.delivery
        self.send(
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

    def send(self, send: Callable[[], Sent]) -> None:
        """Send something, and wait for the acknowledgement."""
        self.retry_until_lost(lambda: send().wait())

    def trace_headers(self) -> list[tuple[str, bytes | None]]:
        """The message's headers that are passed on: those of its trace."""
        return [(name, text) for name, text in self.delivery.headers if name in _TRACE_HEADERS]

    def wait(self, seconds: float) -> None:
        """Pause between two tries.

        Raises:
            HandedBackError: the task no longer belongs to this worker.
        """
        if self.stopping.wait(seconds) or self.gone():
            raise HandedBackError("between two tries")
