"""Kafka topics and the producer. The worker consumes (docs/contracts.md)."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import structlog
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import NewTopic
from kafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError, TopicAlreadyExistsError

from models.errors import UnmaskError
from pipeline.contracts import Topic
from pipeline.tracing import NO_SPAN, inject
from pipeline.transport.letters import Headers, LetterBytes, short_letter, whole_letter
from pipeline.transport.messages import Segment, VideoTask
from pipeline.transport.security import client_options
from pipeline.transport.traced import begin_send, end_sent

log = structlog.get_logger(__name__)

# A record lists every scored face, some 200 bytes each: ten hours of five people at two frames a second are 72 MB.
MAX_RECORD_BYTES: Final = 64 << 20
# Room for key, headers and the framing of a batch.
_MAX_REQUEST_BYTES = MAX_RECORD_BYTES + (1 << 20)
# How long a send waits for a broker that never answered, and for the retries of a message.
_BLOCK_S = 10.0
_DELIVERY_S = 120.0
# A broker that has just started, on a busy machine, took over 10 s to elect the leaders of a new topic.
_TOPIC_READY_S = 60.0
# A probe wants its answer within seconds.
_CHECK_S = 1.0
_SPAN_S = 1.0
_ANSWER_S = 2.0


class TransportError(UnmaskError):
    """Kafka is unreachable, or refused; the message says which topic and why. Nothing counts as sent."""

    exit_code = 1


class TooLargeError(TransportError):
    """A message is larger than Kafka accepts; another try would not help."""


def answers(bootstrap: str) -> bool:
    """Whether one of the servers answers a request within two seconds; one that hangs accepts connections only.

    Args:
        bootstrap: servers, `host:port` with commas between.
    """
    # The client logs each failure; most brokers that are away do not accept connections either. Of several servers it
    # may wait for the one that hangs until its time is over.
    return any(_accepts(server) and _answers(server) for server in bootstrap.split(","))


def _answers(server: str) -> bool:
    try:
        KafkaAdminClient(**client_options(server), bootstrap_timeout_ms=int(_ANSWER_S * 1000)).close()
    except KafkaError:
        return False
    return True


def _accepts(server: str) -> bool:
    host, _, port = server.strip().rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CHECK_S).close()
    except (OSError, ValueError):
        return False
    return True


def ensure_topics(bootstrap: str, *, partitions: int = 8, replicas: int = -1, patience_s: float = 30.0) -> list[Topic]:
    """Create the topics that are missing.

    Args:
        bootstrap: servers, `host:port` with commas between.
        partitions: of a topic that is created, which bounds how many workers share it.
        replicas: -1 takes the broker's default.
        patience_s: how long to wait for a broker that does not answer.

    Returns:
        The created topics.

    Raises:
        TransportError: the broker is unreachable, or refuses.
    """
    created = []
    try:
        admin = KafkaAdminClient(**client_options(bootstrap), bootstrap_timeout_ms=int(patience_s * 1000))
        try:
            for topic in Topic:
                try:
                    new = NewTopic(str(topic), partitions, replicas, topic_configs=_config(topic))
                    admin.create_topics([new])
                    # A worker that joins before its topics are known gets nothing until it asks again.
                    admin.wait_for_topics([str(topic)], timeout_ms=int(_TOPIC_READY_S * 1000))
                    created.append(topic)
                except TopicAlreadyExistsError:
                    pass
        finally:
            admin.close()
    except KafkaError as error:
        raise TransportError(f"topics at {bootstrap}: {_describe_error(error)}") from error
    return created


def _config(topic: Topic) -> dict[str, str]:
    limit = {"max.message.bytes": str(_MAX_REQUEST_BYTES)}
    return {**limit, "cleanup.policy": "compact"} if topic is Topic.VERDICTS else limit


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that is being sent."""

    topic: Topic
    _future: Any
    _traced: threading.Event | None = None

    def wait(self, patience_s: float = _DELIVERY_S + _BLOCK_S) -> None:
        """Wait until all replicas have it.

        Raises:
            TransportError: no acknowledgement in time. Kafka may have the message anyway, or get it later.
        """
        try:
            self._future.get(patience_s)
        except KafkaError as error:
            raise _failure(self.topic, error) from error
        if self._traced is not None:
            # Kafka's thread ends the span, and then the caller may end the one around it.
            self._traced.wait(_SPAN_S)


class Publisher:
    """Sends tasks, segments, verdicts and dead letters: acknowledged by all replicas, each once and in order.

    Thread-safe. What is sent is safe when its `Sent.wait` returns.
    """

    def __init__(self, bootstrap: str, *, patience_s: float = 30.0) -> None:
        """Connect, waiting up to `patience_s` for a broker that does not answer.

        Raises:
            TransportError: no broker answers.
        """
        try:
            self._producer = KafkaProducer(
                **client_options(bootstrap),
                acks="all",
                enable_idempotence=True,
                max_request_size=_MAX_REQUEST_BYTES,
                max_block_ms=int(_BLOCK_S * 1000),
                delivery_timeout_ms=int(_DELIVERY_S * 1000),
                allow_auto_create_topics=False,
                bootstrap_timeout_ms=int(patience_s * 1000),
            )
        except KafkaError as error:
            raise TransportError(f"no Kafka at {bootstrap}: {_describe_error(error)}") from error

    def submit(self, task: VideoTask, headers: Headers = ()) -> Sent:
        """Send a video to its class's topic."""
        return self._send(task.source_class.topic, task.video_id.encode(), task.to_json(), headers)

    def part(self, task: VideoTask, after: int, headers: Headers = ()) -> Sent:
        """Send a part of a long video to its own partition, so that another worker gets it.

        Args:
            task: with its `part`.
            after: partition of the whole video's task; the parts go to the next ones in turn.
            headers: of the whole video's task.
        """
        if task.part is None:
            raise ValueError("expected a task with a part")
        topic = task.source_class.topic
        try:
            partitions = sorted(self._producer.partitions_for(str(topic)))
        except KafkaError as error:
            raise TransportError(f"{topic}: {_describe_error(error)}") from error
        partition = partitions[(after + task.part.index) % len(partitions)]
        return self._send(topic, task.video_id.encode(), task.to_json(), headers, partition)

    def segment(self, segment: Segment, media: bytes, headers: Headers = ()) -> Sent:
        """Send a piece of a live stream; `media` is empty where the segment has a `uri`.

        Raises:
            ContractError: too many bytes, or bytes and a `uri`.
        """
        own = segment.to_headers()
        key = segment.stream_id.encode()
        Segment.parse(own, key, media)
        return self._send(Topic.SEGMENTS, key, media, [*own, *headers])

    def verdict(self, record: bytes, verdict_id: str, headers: Headers = ()) -> Sent:
        """Send a record, the same bytes that are stored."""
        return self._send(Topic.VERDICTS, verdict_id.encode(), record, headers)

    def forget(self, verdict_id: str) -> Sent:
        """Send a tombstone: Kafka removes the records of this clip when it compacts their topic."""
        return self._send(Topic.VERDICTS, verdict_id.encode(), None, ())

    def dead(
        self,
        topic: Topic,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        *,
        error: str,
        stage: str,
        attempts: int,
    ) -> None:
        """Send a message that cannot be processed to the dead letters, and wait for the acknowledgement.

        It is sent unchanged, with the reason in its headers; what is larger than the topic takes is shortened, and what
        Kafka's client refuses becomes a letter without the message's key and headers.

        Args:
            topic: where it came from.
            key: of the message.
            value: of the message.
            headers: of the message.
            error: the reason.
            stage: where it failed: "parse", "score" or "publish".
            attempts: number of tries.

        Raises:
            TransportError: no acknowledgement; another try may help.
        """
        reason = {"error": error, "stage": stage, "attempts": str(attempts), "topic": str(topic)}
        headers = list(headers)
        forms: tuple[Callable[[], LetterBytes], ...] = (
            lambda: whole_letter(key, value, headers, reason),
            lambda: short_letter(key, value, headers, reason),
            lambda: short_letter(None, value, (), reason),
        )
        for number, form in enumerate(forms, 1):
            letter = form()
            try:
                # The message's own headers: sent again, it continues the trace that it came with.
                self._send(Topic.DEAD, letter.key, letter.value, letter.headers, traced=False).wait()
            except (TooLargeError, AssertionError, TypeError, ValueError) as refused:
                log.warning("dead letter refused", form=number, error=_describe_error(refused))
                if number == len(forms):
                    raise
            else:
                return

    def again(self, topic: Topic, key: bytes | None, value: bytes | None, headers: Headers) -> Sent:
        """Send a message again, unchanged."""
        return self._send(topic, key, value, headers)

    def close(self) -> None:
        """Wait for pending messages, then disconnect."""
        self._producer.close(timeout=_BLOCK_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(
        self,
        topic: Topic,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        partition: int | None = None,
        *,
        traced: bool = True,
    ) -> Sent:
        """Raises TransportError if no broker answers in time, or the message is too large."""
        headers = list(headers)
        span = begin_send(topic, value, headers) if traced else NO_SPAN
        try:
            if span.is_traced:
                with span.active():
                    headers = inject(headers)
            sendable = [(name, raw or b"") for name, raw in headers]  # kafka-python refuses null headers
            future = self._producer.send(str(topic), key=key, value=value, headers=sendable, partition=partition)
        except BaseException as error:
            span.fail(type(error).__name__)
            span.end()
            if isinstance(error, KafkaError):
                raise _failure(topic, error) from error
            raise
        return Sent(topic, future, end_sent(span, future) if span.is_traced else None)


def _failure(topic: Topic, error: KafkaError) -> TransportError:
    too_large = isinstance(error, MessageSizeTooLargeError | RecordListTooLargeError)
    return (TooLargeError if too_large else TransportError)(f"{topic}: {_describe_error(error)}")


def _describe_error(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
