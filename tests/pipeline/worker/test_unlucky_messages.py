"""Messages and stored values that nobody expects: each message ends, and the worker serves on."""

from __future__ import annotations

import hashlib
import json
import random
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from pipeline.contracts import VIDEO_TOPICS, Outcome, Topic, Verdict, clip_key, content_key
from pipeline.dead import RequeueError, letters, requeue
from pipeline.live.store import StreamStore
from pipeline.results.store import VerdictStore
from pipeline.transport.consumer import TaskConsumer
from pipeline.transport.history import read_topic
from pipeline.transport.kafka import Publisher
from pipeline.transport.messages import Message
from pipeline.worker.loop import Worker
from pipeline.worker.message import Service
from pipeline.worker.streams import Live
from tests.pipeline.transport.raw import RawProducer
from tests.pipeline.worker.serving import committed_to_the_end, judged, published, serving, task, until

TOPICS = (Topic.SEGMENTS, *VIDEO_TOPICS)


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
def test_what_is_too_large_for_a_dead_letter_is_shortened(
    raw: RawProducer,
    bootstrap: str,
    publisher: Publisher,
    store: VerdictStore,
    client: redis.Redis,
) -> None:
    key, junk = f"test-{uuid.uuid4()}", b"x" * (80 << 20)
    raw.send(Topic.VIDEOS, key.encode(), junk, [("sender", b"me"), ("long", b"y" * 5000)])
    (message,) = until(lambda: published(bootstrap, Topic.DEAD, key))
    assert message.value == junk[:4096]
    assert (message.header("value_bytes"), message.header("sender")) == (str(len(junk)), "me")
    assert message.header("value_sha256") == hashlib.sha256(junk).hexdigest()
    assert message.header("headers_left_out") == "1"
    letter = next(found for found in letters(bootstrap, client) if found.key == key)
    with pytest.raises(RequeueError, match=f"4096 of its {len(junk)} bytes are left"):
        requeue(letter, publisher=publisher, store=store, client=client)
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
    """Fields of every type, size and number: the worker ends them all and then judges a good clip."""
    rng = random.Random(1)
    odd: list[object] = [
        None, True, -1, 0, 2**53, 10**400, 1e308, -0.0, "", "0", "\0", "\ud800", "é" * 300, "a:frames", "../x", " ",
        [], {}, [[]], {"a": None}, "fps=1e300", "frames=0", "frames=999999999999", "file:///etc/passwd", "x" * 5000,
    ]  # fmt: skip
    names = ["schema", "video_id", "uri", "source_class", "submitted_at", "sampling", "callback", "part"]
    for _ in range(200):
        topic = rng.choice(TOPICS)
        fields = json.loads(task(one_face).to_json())
        for name in rng.sample(names, rng.randint(1, 4)):
            fields[name] = rng.choice(odd)
        key = str(fields["video_id"]).encode("utf-8", "replace") if rng.random() < 0.7 else rng.randbytes(8)
        text = json.dumps(fields).encode()
        value = rng.choice([text, text, text, text[: rng.randrange(len(text))], rng.randbytes(rng.randrange(99)), None])
        headers: list[tuple[str, bytes | None]] = []
        for name in ("schema", "stream_id", "sequence", "start_s", "final", "content_type", "uri", "traceparent"):
            if rng.random() < 0.8:
                good = {"schema": b"1", "stream_id": key, "final": b"1", "content_type": b"video/mp4"}.get(name, b"0")
                headers.append((name, rng.choice([good, good, good, None, b"", b"\xff", b"1e308", b"nan", b"-1"])))
        raw.send(topic, rng.choice([key, key, key, None, b""]), value, headers)
    good = judged(task(one_face), publisher, store)
    assert good.outcome is Outcome.SCORED
    until(lambda: committed_to_the_end(bootstrap, TOPICS))
