"""Spans of messages, by OpenTelemetry's conventions for Kafka (messaging, semantic conventions 1.44.0)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from pipeline import tracing
from pipeline.contracts import Topic
from pipeline.transport.messages import Message

_SYSTEM: Final = {"messaging.system": "kafka"}


def begin_send(topic: Topic, value: bytes | None, headers: tracing.Headers) -> tracing.Span:
    """Begin the span of a message that is sent, in the active trace, else in the headers'; `end_sent` ends it."""
    if not tracing.is_on():
        return tracing.NO_SPAN
    attributes: dict[str, str | int] = {
        **_SYSTEM,
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": str(topic),
        "messaging.message.body.size": len(value or b""),
    }
    if value is None:
        attributes["messaging.kafka.message.tombstone"] = True
    return tracing.begin(f"send {topic}", attributes, kind="producer", carried=headers)


def end_sent(span: tracing.Span, future: Any) -> threading.Event:
    """End the span when Kafka has acknowledged the message, or refused it; then the event is set."""
    ended = threading.Event()

    def acknowledged(metadata: Any) -> None:
        span.set(_place(metadata.partition, metadata.offset))
        span.end()
        ended.set()

    def refused(error: BaseException) -> None:
        span.fail(type(error).__name__)
        span.end()
        ended.set()

    future.add_callback(acknowledged)
    future.add_errback(refused)
    return ended


@contextmanager
def processing(topic: Topic, message: Message, group: str) -> Iterator[None]:
    """The block as the span of a message that is served; it continues the trace in the message's headers."""
    if not tracing.is_on():
        yield
        return
    attributes: dict[str, str | int] = {
        **_SYSTEM,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": str(topic),
        "messaging.consumer.group.name": group,
        "messaging.message.body.size": len(message.value or b""),
        **_place(message.partition, message.offset),
    }
    with tracing.span(f"process {topic}", attributes, kind="consumer", carried=message.headers):
        yield


def _place(partition: int, offset: int) -> dict[str, str | int]:
    """Kafka's messages have no id: their place is one, the same for producer and consumer."""
    return {
        "messaging.destination.partition.id": str(partition),
        "messaging.kafka.offset": offset,
        "messaging.message.id": f"{partition}:{offset}",
    }
