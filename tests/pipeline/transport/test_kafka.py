"""Sent messages, as another program reads them from a real Kafka."""

from __future__ import annotations

import hashlib
import json
import socket
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition

from deploy.local.services import free_port
from pipeline.contracts import SourceClass, Topic
from pipeline.dead import Letter, RequeueError, requeue
from pipeline.transport.kafka import Publisher, TransportError, answers, ensure_topics
from pipeline.transport.messages import ContentType, ContractError, Message, Segment, VideoTask, message_fields
from tests.pipeline.records import record


@pytest.fixture(scope="module")
def bootstrap(kafka_bootstrap: str) -> str:
    ensure_topics(kafka_bootstrap, partitions=2, replicas=1)
    return kafka_bootstrap


@pytest.fixture
def publisher(bootstrap: str) -> Iterator[Publisher]:
    with Publisher(bootstrap) as publisher:
        yield publisher


def read(bootstrap: str, topic: Topic, key: str | None) -> list[Any]:
    """The messages of a topic under a key, in their order."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    try:
        partitions = [TopicPartition(str(topic), n) for n in consumer.partitions_for_topic(str(topic))]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends = consumer.end_offsets(partitions)
        found = []
        while any(consumer.position(partition) < ends[partition] for partition in partitions):
            for messages in consumer.poll(timeout_ms=1000).values():
                found += [m for m in messages if m.key == (None if key is None else key.encode())]
        return found
    finally:
        consumer.close()


def new_id() -> str:
    return f"test-{uuid.uuid4()}"


def test_topics_are_created_once(bootstrap: str) -> None:
    assert ensure_topics(bootstrap) == []
    consumer = KafkaConsumer(bootstrap_servers=bootstrap)
    assert {str(topic) for topic in Topic} <= consumer.topics()
    assert len(consumer.partitions_for_topic("unmask.videos")) == 2
    consumer.close()


@pytest.mark.parametrize("kind", list(SourceClass))
def test_a_task_is_on_its_class_s_topic(bootstrap: str, publisher: Publisher, kind: SourceClass) -> None:
    task = VideoTask(video_id=new_id(), uri="file:///a.mp4", source_class=kind, submitted_at=1795500000.25)
    publisher.submit(task, [("traceparent", b"00-a-b-01")]).wait()
    (message,) = read(bootstrap, kind.topic, task.video_id)
    assert json.loads(message.value) == {
        "schema": 1,
        "video_id": task.video_id,
        "uri": "file:///a.mp4",
        "source_class": str(kind),
        "submitted_at": 1795500000.25,
    }
    assert list(message.headers) == [("traceparent", b"00-a-b-01")]
    assert VideoTask.parse(message.value, message.key) == task


def test_segments_keep_their_order(bootstrap: str, publisher: Publisher) -> None:
    stream = new_id()
    sent = [
        Segment(stream_id=stream, sequence=i, start_s=2.0 * i, final=i == 4, content_type=ContentType.MPEG_TS)
        for i in range(5)
    ]
    for under_way in [publisher.segment(segment, bytes([segment.sequence]) * 1000) for segment in sent]:
        under_way.wait()
    messages = read(bootstrap, Topic.SEGMENTS, stream)
    assert [Segment.parse(m.headers, m.key, m.value) for m in messages] == sent
    assert [m.value[0] for m in messages] == list(range(5))


def test_a_segment_that_violates_the_contract_is_not_sent(bootstrap: str, publisher: Publisher) -> None:
    segment = Segment(stream_id=new_id(), sequence=0, start_s=0, final=True, content_type=ContentType.MP4)
    with pytest.raises(ContractError, match="at most 900000"):
        publisher.segment(segment, bytes(900_001))
    assert read(bootstrap, Topic.SEGMENTS, segment.stream_id) == []


def test_a_verdict_is_published_byte_for_byte(bootstrap: str, publisher: Publisher) -> None:
    verdict = record(id=new_id())
    stored = verdict.to_json().encode()
    publisher.verdict(stored, verdict.id).wait()
    (message,) = read(bootstrap, Topic.VERDICTS, verdict.id)
    assert message.value == stored


def test_a_dead_letter_is_unchanged_with_its_reason(bootstrap: str, publisher: Publisher) -> None:
    key = new_id()
    came = [("error", b"forged"), ("sender", b"\xff")]
    why = {"error": "value is not JSON", "stage": "parse", "attempts": 0}
    publisher.dead(Topic.VIDEOS, key.encode(), b"\x00not json", came, **why)
    (message,) = read(bootstrap, Topic.DEAD, key)
    assert message.value == b"\x00not json"
    assert list(message.headers) == [
        ("sender", b"\xff"),
        ("error", b"value is not JSON"),
        ("stage", b"parse"),
        ("attempts", b"0"),
        ("topic", b"unmask.videos"),
    ]


def test_what_is_too_large_for_a_dead_letter_is_shortened(bootstrap: str, publisher: Publisher) -> None:
    key, junk = new_id(), b"x" * (80 << 20)
    came = [("sender", b"me"), ("long", b"y" * 5000)]
    publisher.dead(Topic.VIDEOS, key.encode(), junk, came, error="no", stage="parse", attempts=0)
    (message,) = read(bootstrap, Topic.DEAD, key)
    assert message.value == junk[:4096]
    found = {name: text.decode() for name, text in message.headers}
    assert (found["value_bytes"], found["sender"], found["headers_left_out"]) == (str(len(junk)), "me", "1")
    assert found["value_sha256"] == hashlib.sha256(junk).hexdigest()
    letter = Letter(Message(**message_fields(message)), requeued=False)
    with pytest.raises(RequeueError, match=f"4096 of its {len(junk)} bytes are left"):
        requeue(letter, publisher=publisher, store=None, client=None)  # type: ignore[arg-type]


def test_a_record_beyond_a_megabyte_gets_through(bootstrap: str, publisher: Publisher) -> None:
    verdict_id = new_id()
    publisher.verdict(b'"' + b"x" * 5_000_000 + b'"', verdict_id).wait()
    (message,) = read(bootstrap, Topic.VERDICTS, verdict_id)
    assert len(message.value) == 5_000_002


def test_a_broker_that_only_accepts_connections_does_not_answer(bootstrap: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hanging = f"127.0.0.1:{silent.getsockname()[1]}"
        assert not answers(hanging)
        assert answers(f"{hanging},{bootstrap}")
    assert not answers(hanging)
    assert not answers("nowhere")


def test_an_unreachable_broker_is_an_error() -> None:
    away = f"127.0.0.1:{free_port()}"
    with pytest.raises(TransportError, match=away):
        Publisher(away, patience_s=0.5)
    with pytest.raises(TransportError, match=away):
        ensure_topics(away, patience_s=0.5)
