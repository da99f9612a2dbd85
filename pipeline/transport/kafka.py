"""Kafka's side: topics, and what is sent to them. Consuming belongs to the worker (docs/contracts.md)."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import NewTopic
from kafka.errors import KafkaError, TopicAlreadyExistsError

from pipeline.contracts import Topic
from pipeline.transport.messages import Segment, VideoTask

# Room for headers and for records: a record lists every scored face, some 200 bytes each.
_MAX_REQUEST_BYTES = 16 << 20
# From the first try to the last one of a message whose broker is away.
_DELIVERY_S = 120.0

Headers = Iterable[tuple[str, bytes | None]]


class TransportError(Exception):
    """Kafka is away, or refused; the message says which topic and why. Nothing counts as sent."""


def ensure_topics(bootstrap: str, *, partitions: int = 8, replicas: int = -1, patience_s: float = 30.0) -> list[Topic]:
    """Create the topics that are missing.

    Args:
        bootstrap: servers, `host:port` with commas between.
        partitions: of a topic that is created, which bounds how many workers share it.
        replicas: -1 takes the broker's default.
        patience_s: how long to wait for a broker that does not answer.

    Returns:
        Those that were created.

    Raises:
        TransportError: the broker is away, or refuses.
    """
    created = []
    try:
        admin = KafkaAdminClient(bootstrap_servers=bootstrap, bootstrap_timeout_ms=int(patience_s * 1000))
        try:
            for topic in Topic:
                try:
                    new = NewTopic(str(topic), partitions, replicas, topic_configs=_config(topic))
                    # A worker that joins before its topics are known gets nothing until it asks again.
                    admin.create_topics([new], wait_for_metadata=True)
                    created.append(topic)
                except TopicAlreadyExistsError:
                    pass
        finally:
            admin.close()
    except KafkaError as error:
        raise TransportError(f"topics at {bootstrap}: {_told(error)}") from error
    return created


def _config(topic: Topic) -> dict[str, str]:
    limit = {"max.message.bytes": str(_MAX_REQUEST_BYTES)}
    return {**limit, "cleanup.policy": "compact"} if topic is Topic.VERDICTS else limit


class Publisher:
    """Sends tasks, segments, verdicts and dead letters: acknowledged by all replicas, each once and in order.

    Thread-safe. What is sent is on its way until `flush` returns.
    """

    def __init__(self, bootstrap: str, *, patience_s: float = 30.0) -> None:
        """Connect, waiting up to `patience_s` for a broker that does not answer.

        Raises:
            TransportError: no broker answers.
        """
        try:
            self._producer = KafkaProducer(
                bootstrap_servers=bootstrap,
                acks="all",
                enable_idempotence=True,
                max_request_size=_MAX_REQUEST_BYTES,
                delivery_timeout_ms=int(_DELIVERY_S * 1000),
                allow_auto_create_topics=False,
                bootstrap_timeout_ms=int(patience_s * 1000),
            )
        except KafkaError as error:
            raise TransportError(f"no Kafka at {bootstrap}: {_told(error)}") from error
        self._lock = threading.Lock()
        self._unsettled: list[tuple[Topic, Any]] = []

    def submit(self, task: VideoTask, headers: Headers = ()) -> None:
        """Send a video to its class's topic."""
        self._send(task.source_class.topic, task.video_id.encode(), task.to_json(), headers)

    def segment(self, segment: Segment, media: bytes, headers: Headers = ()) -> None:
        """Send a piece of a live stream; `media` is empty where the segment has a `uri`.

        Raises:
            ContractError: too many bytes, or bytes and a `uri`.
        """
        own = segment.to_headers()
        key = segment.stream_id.encode()
        Segment.parse(own, key, media)
        self._send(Topic.SEGMENTS, key, media, [*own, *headers])

    def verdict(self, record: bytes, verdict_id: str) -> None:
        """Send a record, the very bytes that are stored."""
        self._send(Topic.VERDICTS, verdict_id.encode(), record, ())

    def dead(
        self, key: bytes | None, value: bytes | None, headers: Headers, *, error: str, stage: str, attempts: int
    ) -> None:
        """Send a message that cannot be served to the dead letters, as it came, with the reason in its headers."""
        reason = {"error": error, "stage": stage, "attempts": str(attempts)}
        kept = [(name, text) for name, text in headers if name not in reason]
        self._send(Topic.DEAD, key, value, [*kept, *((name, text.encode()) for name, text in reason.items())])

    def flush(self) -> None:
        """Wait until everything that was sent is acknowledged.

        Raises:
            TransportError: something was not; the message names the first.
        """
        with self._lock:
            unsettled, self._unsettled = self._unsettled, []
        try:
            self._producer.flush(_DELIVERY_S)
            for topic, future in unsettled:
                try:
                    future.get(0)
                except KafkaError as error:
                    raise TransportError(f"{topic}: {_told(error)}") from error
        except KafkaError as error:
            raise TransportError(_told(error)) from error

    def close(self) -> None:
        """Wait for what is on its way, then disconnect."""
        self._producer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, topic: Topic, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        try:
            with self._lock:
                future = self._producer.send(str(topic), key=key, value=value, headers=list(headers))
                self._unsettled.append((topic, future))
        except KafkaError as error:
            raise TransportError(f"{topic}: {_told(error)}") from error


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
