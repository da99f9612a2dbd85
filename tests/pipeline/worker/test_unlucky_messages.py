"""Messages and stored values that nobody expects: each message ends, and the worker serves on."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import UnsupportedCodecError
from kafka.record.default_records import DefaultRecordBatch

from pipeline.contracts import VIDEO_TOPICS, Outcome, Topic, Verdict, clip_key, content_key
from pipeline.live.store import StreamStore
from pipeline.results.store import VerdictStore
from pipeline.transport.consumer import TaskConsumer
from pipeline.transport.history import read_topic
from pipeline.transport.kafka import Publisher
from pipeline.transport.messages import Message
from pipeline.worker.loop import Worker
from pipeline.worker.message import Service
from pipeline.worker.streams import Live
from tests.pipeline.records import record
from tests.pipeline.transport.raw import BadName, RawProducer, random_messages
from tests.pipeline.worker.serving import committed_to_the_end, judged, published, serving, task, until

TOPICS = (Topic.SEGMENTS, *VIDEO_TOPICS)


@pytest.fixture(scope="module", autouse=True)
def _nothing_left(bootstrap: str) -> Iterator[None]:
    """Delete the messages in the end: other tests read the topics from the beginning, and could not."""
    yield
    consumer, admin = KafkaConsumer(bootstrap_servers=bootstrap), KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.delete_records(consumer.end_offsets([TopicPartition(str(topic), n) for topic in TOPICS for n in (0, 1)]))
    admin.close()
    consumer.close()


@pytest.fixture(scope="module")
def worker(bootstrap: str, service: Callable[[TaskConsumer], Service], client: redis.Redis) -> Iterator[Worker]:
    live = Live(StreamStore(client, ttl_s=600), max_age_s=300.0, idle_s=300.0)
    with serving(bootstrap, service, live=live) as worker:
        yield worker


@pytest.fixture(scope="module")
def raw(bootstrap: str) -> Iterator[RawProducer]:
    with RawProducer(bootstrap, compression_type="gzip") as producer:
        yield producer


def published_letters(bootstrap: str) -> list[Message]:
    return list(read_topic(bootstrap, Topic.DEAD))


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("topic", TOPICS)
def test_nulls_end_as_dead_letters(topic: Topic, raw: RawProducer, bootstrap: str) -> None:
    before = {letter.place for letter in published_letters(bootstrap)}
    raw.send(topic, None, None)
    raw.send(topic, None, b"")
    raw.send(topic, b"", None, [("traceparent", None), ("a", b"b")])

    def added() -> list[Message]:
        return [letter for letter in published_letters(bootstrap) if letter.place not in before]

    found = until(lambda: len(letters := added()) == 3 and letters)
    assert all(letter.header("topic") == topic for letter in found)
    assert sorted(letter.header("nulls") for letter in found) == ["", "header traceparent", "value"]
    until(lambda: committed_to_the_end(bootstrap, TOPICS))


@pytest.mark.usefixtures("worker")
def test_a_task_with_null_headers_is_judged(
    raw: RawProducer, one_face: Path, bootstrap: str, store: VerdictStore
) -> None:
    asked = task(one_face)
    raw.send(Topic.VIDEOS, asked.video_id.encode(), asked.to_json(), [("traceparent", None), ("tracestate", None)])
    assert Verdict.model_validate_json(until(lambda: store.record(asked.video_id))).outcome is Outcome.SCORED
    until(lambda: published(bootstrap, Topic.VERDICTS, asked.video_id))


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_tasks_of_every_codec_are_judged(codec: str, one_face: Path, bootstrap: str, store: VerdictStore) -> None:
    asked = task(one_face)
    with KafkaProducer(bootstrap_servers=bootstrap, compression_type=codec) as producer:
        producer.send(str(Topic.VIDEOS), key=asked.video_id.encode(), value=asked.to_json()).get(60)
    assert Verdict.model_validate_json(until(lambda: store.record(asked.video_id))).outcome is Outcome.SCORED


def unreadable(bootstrap: str, reason: str) -> list[Message]:
    return [letter for letter in published_letters(bootstrap) if reason in letter.header("error")]


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("topic", TOPICS)
def test_a_header_whose_name_is_not_utf_8_ends_as_a_dead_letter(
    topic: Topic, raw: RawProducer, one_face: Path, bootstrap: str, publisher: Publisher, store: VerdictStore
) -> None:
    """kafka-python cannot read such a message, and would fail at it at each poll."""
    before = len(unreadable(bootstrap, "UnicodeDecodeError"))
    raw.send(topic, b"key", b"value", [(BadName("x"), b"text")])
    assert judged(task(one_face), publisher, store).outcome is Outcome.SCORED
    until(lambda: len(unreadable(bootstrap, "UnicodeDecodeError")) == before + 1)
    until(lambda: committed_to_the_end(bootstrap, TOPICS))


@pytest.mark.usefixtures("worker")
def test_a_bomb_is_not_inflated(
    raw: RawProducer, one_face: Path, bootstrap: str, publisher: Publisher, store: VerdictStore
) -> None:
    process = psutil.Process()
    key = f"test-{uuid.uuid4()}".encode()
    raw.send(Topic.VIDEOS, key, bytes(300 << 20))
    held = process.memory_info().rss
    (letter,) = until(lambda: unreadable(bootstrap, "inflates to more than"))
    assert process.memory_info().rss - held < 200 << 20
    assert (letter.value, letter.header("stage"), letter.header("topic")) == (b"", "parse", "unmask.videos")
    assert judged(task(one_face), publisher, store).outcome is Outcome.SCORED
    until(lambda: committed_to_the_end(bootstrap))


@pytest.mark.usefixtures("worker")
def test_a_large_batch_that_is_not_inflated_is_passed_over_at_once(
    one_face: Path, bootstrap: str, publisher: Publisher, store: VerdictStore
) -> None:
    """Message by message, each would be fetched and inflated again."""
    with KafkaProducer(
        bootstrap_servers=bootstrap, compression_type="gzip", batch_size=90 << 20, max_request_size=200 << 20,
        linger_ms=60_000,
    ) as producer:  # fmt: skip
        for _ in range(9000):
            producer.send(str(Topic.VIDEOS), key=b"batch", value=bytes(8000), partition=0)
        producer.flush(120)
    found = until(lambda: [letter for letter in unreadable(bootstrap, "all messages from offset") if letter])
    assert 1 <= len(found) <= 10
    assert judged(task(one_face), publisher, store).outcome is Outcome.SCORED
    until(lambda: committed_to_the_end(bootstrap))


@pytest.mark.usefixtures("worker")
def test_a_batch_of_an_unknown_codec_is_passed_over(
    raw: RawProducer,
    bootstrap: str,
    publisher: Publisher,
    one_face: Path,
    store: VerdictStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a producer's lz4 where its library is not installed; here gzip is the one that is missing."""

    def missing(batch: object, codec: int) -> None:
        raise UnsupportedCodecError("Libraries for gzip compression codec not found")

    with monkeypatch.context() as patch:
        patch.setattr(DefaultRecordBatch, "_assert_has_codec", missing)
        raw.send(Topic.VIDEOS, b"key", b"value" * 1000)
        (letter,) = until(lambda: unreadable(bootstrap, "compression codec not found"))
        # Not compressed.
        assert judged(task(one_face), publisher, store).outcome is Outcome.SCORED
    assert letter.header("topic") == "unmask.videos"
    until(lambda: committed_to_the_end(bootstrap))


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda client, key: client.set(key, "a string"), "WRONGTYPE"),
        (lambda client, key: client.hset(key, "attempt", "many"), "hash value is not an integer"),
        (lambda client, key: client.hset(key, "verdict", "{}"), "validation error"),
    ],
    ids=["wrong type", "no number", "no verdict"],
)
def test_what_redis_refuses_for_one_clip_ends_that_clip(
    make: Callable[[redis.Redis, str], object],
    reason: str,
    one_face: Path,
    bootstrap: str,
    publisher: Publisher,
    client: redis.Redis,
) -> None:
    asked = task(one_face)
    make(client, clip_key(asked.video_id))
    publisher.submit(asked).wait()
    (message,) = until(lambda: published(bootstrap, Topic.DEAD, asked.video_id))
    assert (message.header("stage"), message.value) == ("score", asked.to_json())
    assert reason in message.header("error")
    until(lambda: committed_to_the_end(bootstrap))


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("change", [{"outcome": "of_a_later_version"}, {"schema": 2, "people": "another type"}])
def test_a_record_that_a_newer_version_stored_is_published_as_it_is(
    change: dict[str, object],
    one_face: Path,
    bootstrap: str,
    publisher: Publisher,
    store: VerdictStore,
    client: redis.Redis,
) -> None:
    """Its worker ended between storing and publishing, while the group was updated."""
    asked = task(one_face)
    newer = json.dumps(json.loads(record(id=asked.video_id, outcome=Outcome.NO_FACE).to_json()) | change).encode()
    client.hset(clip_key(asked.video_id), mapping={"verdict": newer, "state": "done"})
    publisher.submit(asked).wait()
    (message,) = until(lambda: published(bootstrap, Topic.VERDICTS, asked.video_id))
    assert message.value == newer == store.record(asked.video_id)
    until(lambda: committed_to_the_end(bootstrap))
    assert published(bootstrap, Topic.DEAD, asked.video_id) == []


@pytest.mark.usefixtures("worker")
def test_a_broken_cache_of_contents_does_not_end_a_clip(
    root: Path, one_face: Path, publisher: Publisher, store: VerdictStore, client: redis.Redis
) -> None:
    """The hash of a content leads to a clip without a verdict, or to one of other bytes."""
    copy = root / "cached.mp4"
    copy.write_bytes(one_face.read_bytes() + b"\0")
    first = judged(task(copy), publisher, store)
    keys = [key for key in client.scan_iter(content_key("*")) if client.get(key) == first.id.encode()]
    for value in (b"unknown-clip", judged(task(one_face), publisher, store).id.encode()):
        for key in keys:
            client.set(key, value)
        verdict = judged(task(copy), publisher, store)
        assert verdict.provenance.source_sha256 == first.provenance.source_sha256


@pytest.mark.usefixtures("worker")
def test_two_hundred_random_messages_all_end(
    raw: RawProducer, one_face: Path, bootstrap: str, publisher: Publisher, store: VerdictStore
) -> None:
    """The worker ends them all, and then judges a good clip."""
    for message in random_messages(task(one_face), 200):
        raw.send(*message)
    good = judged(task(one_face), publisher, store)
    assert good.outcome is Outcome.SCORED
    until(lambda: committed_to_the_end(bootstrap, TOPICS))
