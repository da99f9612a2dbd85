"""A producer for messages that no well-behaved client sends."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self
from unittest.mock import patch

from kafka import KafkaProducer
from kafka.record.default_records import DefaultRecordBatchBuilder
from kafka.serializer import Serializer

from pipeline.contracts import VIDEO_TOPICS, Topic
from pipeline.transport.messages import VideoTask

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


def random_messages(
    good: VideoTask, count: int, seed: int = 1
) -> Iterator[tuple[Topic, bytes | None, bytes | None, list[tuple[str, bytes | None]]]]:
    """Topic, key, value and headers of messages whose fields have every type, size and number."""
    rng = random.Random(seed)
    odd: list[object] = [
        None, True, -1, 0, 2**53, 10**400, 1e308, -0.0, "", "0", "\0", "\ud800", "é" * 300, "a:frames", "../x", " ",
        [], {}, [[]], {"a": None}, "fps=1e300", "frames=0", "frames=999999999999", "file:///etc/passwd", "x" * 5000,
    ]  # fmt: skip
    names = ["schema", "video_id", "uri", "source_class", "submitted_at", "sampling", "callback", "part"]
    for _ in range(count):
        topic = rng.choice((Topic.SEGMENTS, *VIDEO_TOPICS))
        fields = json.loads(good.to_json())
        for name in rng.sample(names, rng.randint(1, 4)):
            fields[name] = rng.choice(odd)
        key = str(fields["video_id"]).encode("utf-8", "replace") if rng.random() < 0.7 else rng.randbytes(8)
        text = json.dumps(fields).encode()
        value = rng.choice([text, text, text, text[: rng.randrange(len(text))], rng.randbytes(rng.randrange(99)), None])
        headers: list[tuple[str, bytes | None]] = []
        for name in ("schema", "stream_id", "sequence", "start_s", "final", "content_type", "uri", "traceparent"):
            if rng.random() < 0.8:
                usual = {"schema": b"1", "stream_id": key, "final": b"1", "content_type": b"video/mp4"}.get(name, b"0")
                headers.append((name, rng.choice([usual, usual, usual, None, b"", b"\xff", b"1e308", b"nan", b"-1"])))
        yield topic, rng.choice([key, key, key, None, b""]), value, headers
