"""A worker between a real Kafka and a real Redis: every task ends in one verdict."""

from __future__ import annotations

import hashlib
import json
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import redis
from kafka import KafkaProducer

from pipeline.contracts import JudgedPart, Outcome, SourceClass, State, Topic, Verdict, clip_key, frames_key
from pipeline.dead import RequeueError, letters, requeue
from pipeline.results.store import VerdictStore
from pipeline.transport.consumer import TaskConsumer
from pipeline.transport.kafka import Publisher
from pipeline.types import Floats, Image
from pipeline.worker.loop import Worker
from pipeline.worker.message import Service
from tests import media
from tests.pipeline.quick import QuickNetwork
from tests.pipeline.worker.serving import committed_to_the_end, judged, published, serving, task, until


@pytest.fixture(scope="module")
def worker(bootstrap: str, service: Callable[[TaskConsumer], Service]) -> Iterator[Worker]:
    """One for all tests that need no other."""
    with serving(bootstrap, service) as worker:
        yield worker


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("kind", list(SourceClass))
def test_a_verdict_is_stored_and_published_with_the_same_bytes(
    kind: SourceClass,
    one_face: Path,
    bootstrap: str,
    publisher: Publisher,
    store: VerdictStore,
    client: redis.Redis,
) -> None:
    asked = task(one_face, source_class=kind)
    verdict = judged(asked, publisher, store)
    assert (verdict.id, verdict.source, verdict.outcome) == (asked.video_id, str(one_face), Outcome.SCORED)
    assert verdict.frames_scored == 6
    assert store.state(asked.video_id) is State.DONE
    assert client.hget(clip_key(asked.video_id), "attempt") == b"1"
    assert client.hlen(frames_key(asked.video_id)) == 6
    (message,) = until(lambda: published(bootstrap, Topic.VERDICTS, asked.video_id))
    assert message.value == store.record(asked.video_id)
    until(lambda: committed_to_the_end(bootstrap))


@pytest.mark.usefixtures("worker")
def test_sampling_and_trace_of_a_task_are_kept(
    three_faces: Path, bootstrap: str, publisher: Publisher, store: VerdictStore
) -> None:
    asked = task(three_faces, sampling="frames=3")
    publisher.submit(asked, [("traceparent", b"00-a-b-01"), ("other", b"x")]).wait()
    verdict = Verdict.model_validate_json(until(lambda: store.record(asked.video_id)))
    assert (verdict.frames_sampled, verdict.provenance.sampling) == (3, "frames=3")
    (message,) = until(lambda: published(bootstrap, Topic.VERDICTS, asked.video_id))
    assert message.headers == (("traceparent", b"00-a-b-01"),)


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("truncated", Outcome.UNDECODABLE),
        ("random", Outcome.UNDECODABLE),
        ("empty", Outcome.UNDECODABLE),
        ("audio only", Outcome.UNDECODABLE),
        ("missing", Outcome.UNAVAILABLE),
        ("outside", Outcome.UNAVAILABLE),
        ("no_face", Outcome.NO_FACE),
    ],
)
def test_an_unscored_video_has_a_reason(
    name: str,
    outcome: Outcome,
    broken: dict[str, Path],
    no_face: Path,
    publisher: Publisher,
    store: VerdictStore,
) -> None:
    paths = {**broken, "outside": Path("/etc/passwd"), "no_face": no_face}
    verdict = judged(task(paths[name]), publisher, store)
    assert verdict.outcome is outcome
    assert verdict.error
    assert verdict.probability is None


@pytest.mark.usefixtures("worker")
def test_an_invalid_task_becomes_a_dead_letter_and_blocks_nothing(
    one_face: Path, bootstrap: str, publisher: Publisher, store: VerdictStore
) -> None:
    good = task(one_face)
    fields = json.loads(good.to_json())
    key = f"test-{uuid.uuid4()}"
    bad = {
        "not JSON": b"\x00\xff",
        "schema version 2": json.dumps({**fields, "schema": 2, "video_id": key}).encode(),
        "expected the video_id": good.to_json(),
        "expected on unmask.archive": json.dumps({**fields, "video_id": key, "source_class": "archive"}).encode(),
        "uri": json.dumps({**fields, "video_id": key, "uri": "relative.mp4"}).encode(),
    }
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all")
    for value in bad.values():
        producer.send(str(Topic.VIDEOS), key=key.encode(), value=value)
    producer.close()
    assert judged(good, publisher, store).outcome is Outcome.SCORED
    found = until(lambda: len(dead := published(bootstrap, Topic.DEAD, key)) == len(bad) and dead)
    for (reason, value), message in zip(
        bad.items(), sorted(found, key=lambda m: list(bad.values()).index(m.value)), strict=True
    ):
        assert message.value == value
        assert reason in message.header("error")
        assert (message.header("stage"), message.header("attempts")) == ("parse", "0")
        assert message.header("topic") == "unmask.videos"
    assert store.state(key) is None
    until(lambda: committed_to_the_end(bootstrap))


@pytest.mark.usefixtures("worker")
def test_a_part_has_a_verdict_of_its_own(root: Path, publisher: Publisher, store: VerdictStore) -> None:
    path = root / "parts.mp4"
    media.make_clip(path, seconds=3, seed=11)
    whole = judged(task(path), publisher, store)
    part = judged(task(path, start_s=1.0, end_s=2.0), publisher, store)
    rest = judged(task(path, start_s=2.0), publisher, store)
    assert [verdict.part for verdict in (whole, part, rest)] == [
        None,
        JudgedPart(start_s=1.0, end_s=2.0),
        JudgedPart(start_s=2.0, end_s=None),
    ]
    assert {int(frame.t_s) for frame in part.frames} == {1}
    assert {int(frame.t_s) for frame in rest.frames} == {2}
    again = judged(task(path, start_s=1.0, end_s=2.0), publisher, store)
    assert (again.part, again.frames) == (part.part, part.frames)


@pytest.mark.usefixtures("worker")
def test_the_same_content_is_scored_once(
    root: Path, network: QuickNetwork, publisher: Publisher, store: VerdictStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = root / "twice.mp4"
    media.make_clip(path, seconds=1, seed=7)
    first = judged(task(path), publisher, store)
    copy = root / "copy.mp4"
    copy.write_bytes(path.read_bytes())

    def never(pixels: Image) -> Floats:
        raise AssertionError("scored again")

    monkeypatch.setattr(network, "log_odds", never)
    asked = task(copy)
    second = judged(asked, publisher, store)
    assert (second.id, second.source) == (asked.video_id, str(copy))
    same = {"id", "source", "elapsed_s"}
    assert second.model_dump(exclude=same) == first.model_dump(exclude=same)


@pytest.mark.usefixtures("worker")
def test_a_content_is_known_by_its_own_verdict_only(
    root: Path,
    network: QuickNetwork,
    publisher: Publisher,
    store: VerdictStore,
    client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One id, sent at the same time for two contents: the second content must not inherit the first one's verdict."""
    paths = [root / "first.mp4", root / "second.mp4"]
    for seed, path in enumerate(paths, 31):
        media.make_clip(path, seconds=1, seed=seed)
    both = threading.Event()
    score = network.log_odds

    def later(pixels: Image) -> Floats:
        assert both.wait(60)
        return score(pixels)

    monkeypatch.setattr(network, "log_odds", later)
    asked = task(paths[0])
    publisher.submit(asked).wait()
    publisher.submit(task(paths[1], video_id=asked.video_id)).wait()
    until(lambda: client.hget(clip_key(asked.video_id), "attempt") == b"2")
    both.set()
    for path in paths:
        verdict = judged(task(path), publisher, store)
        assert verdict.provenance.source_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.usefixtures("worker")
def test_a_repeated_task_gets_the_same_bytes(
    one_face: Path, bootstrap: str, publisher: Publisher, store: VerdictStore
) -> None:
    asked = task(one_face)
    judged(asked, publisher, store)
    publisher.submit(asked).wait()
    first, second = until(lambda: len(found := published(bootstrap, Topic.VERDICTS, asked.video_id)) == 2 and found)
    assert first.value == second.value == store.record(asked.video_id)


@pytest.mark.usefixtures("worker")
def test_a_failing_model_is_retried_then_reported_and_can_be_requeued(
    root: Path,
    bootstrap: str,
    network: QuickNetwork,
    publisher: Publisher,
    store: VerdictStore,
    client: redis.Redis,
) -> None:
    path = root / "fails.mp4"
    media.make_clip(path, seconds=1, seed=8)
    original = network.log_odds
    network.log_odds = lambda pixels: np.full(len(pixels), np.nan, np.float32)
    try:
        asked = task(path)
        verdict = judged(asked, publisher, store)
        assert verdict.outcome is Outcome.MODEL_ERROR
        assert "nan" in (verdict.error or "")
        assert client.hget(clip_key(asked.video_id), "attempt") == b"3"
        (message,) = until(lambda: published(bootstrap, Topic.DEAD, asked.video_id))
        assert (message.header("stage"), message.header("attempts")) == ("score", "3")
    finally:
        network.log_odds = original

    letter = next(found for found in letters(bootstrap, client) if found.key == asked.video_id)
    assert not letter.requeued
    requeue(letter, publisher=publisher, store=store, client=client)
    record = until(lambda: store.record(asked.video_id))
    assert Verdict.model_validate_json(record).outcome is Outcome.SCORED
    assert next(found for found in letters(bootstrap, client) if found.key == asked.video_id).requeued


@pytest.mark.usefixtures("worker")
def test_an_internal_error_is_reported_and_blocks_nothing(
    root: Path, bootstrap: str, publisher: Publisher, store: VerdictStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> str:
        raise RuntimeError("never thought of this")

    monkeypatch.setattr(VerdictStore, "begin", broken)
    asked = task(root / "any.mp4")
    verdict = judged(asked, publisher, store)
    assert (verdict.outcome, verdict.error) == (Outcome.MODEL_ERROR, "RuntimeError: never thought of this")
    until(lambda: published(bootstrap, Topic.DEAD, asked.video_id))
    until(lambda: committed_to_the_end(bootstrap))


@pytest.mark.usefixtures("worker")
def test_an_invalid_task_cannot_be_requeued(
    bootstrap: str, publisher: Publisher, store: VerdictStore, client: redis.Redis
) -> None:
    key = f"test-{uuid.uuid4()}"
    publisher.dead(Topic.VIDEOS, key.encode(), b"{}", (), error="no schema version", stage="parse", attempts=0)
    letter = next(found for found in letters(bootstrap, client) if found.key == key)
    with pytest.raises(RequeueError, match="still no task"):
        requeue(letter, publisher=publisher, store=store, client=client)
