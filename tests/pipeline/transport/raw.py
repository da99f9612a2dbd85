"""A producer for messages that no well-behaved client sends."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self
from unittest.mock import patch

from kafka import KafkaProducer
from kafka.record.default_records import DefaultRecordBatchBuilder
from kafka.serializer import Serializer

from pipeline.contracts import Topic

_NULL = b"\0null"


class BadName(str):
    """The name of a header that is not UTF-8."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return b"\xff\xfe"


class RawProducer(Serializer):
    """Sends nulls too, which kafka-python refuses: they are put in where it has checked the message."""

    def __init__(self, bootstrap: str, **options: Any) -> None:
        self._producer = KafkaProducer(
            bootstrap_servers=bootstrap, acks="all", max_request_size=512 << 20, value_serializer=self, **options
        )
        append = DefaultRecordBatchBuilder.append

        def with_nulls(
            builder: Any, offset: Any, timestamp: Any, key: Any, value: Any, headers: Any, **how: Any
        ) -> Any:
            raw = [(name, None if text == _NULL else text) for name, text in headers]
            return append(builder, offset, timestamp, key, value, raw, **how)

        self._patch = patch.object(DefaultRecordBatchBuilder, "append", with_nulls)

    def send(
        self, topic: Topic, key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes | None]] = ()
    ) -> None:
        """Send, and wait for the acknowledgement."""
        sent = [(name, _NULL if raw is None else raw) for name, raw in headers]
        self._producer.send(str(topic), key=key, value=_NULL if value is None else value, headers=sent).get(60)

    def serialize(self, topic: str, headers: list[tuple[str, bytes]], data: bytes) -> bytes | None:
        """Called by kafka-python, after it has checked that key and value are not both null."""
        return None if data == _NULL else data

    def __enter__(self) -> Self:
        self._patch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._producer.close()
        self._patch.stop()
