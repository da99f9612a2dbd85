"""A long video is judged in parts by several workers, and gets one verdict."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import redis

from pipeline.contracts import Outcome, Topic, Verdict, parts_key
from pipeline.dead import letters, requeue
from pipeline.parts.result import PartResult
from pipeline.parts.store import PartStore
from pipeline.results.store import VerdictStore
from pipeline.scan import Scanner
from pipeline.sources import Source
from pipeline.transport.consumer import TaskConsumer
from pipeline.transport.history import read_topic
from pipeline.transport.kafka import Publisher
from pipeline.transport.messages import Part, VideoTask
from pipeline.video.sampling import parse_sampling
from pipeline.video.window import Window
from pipeline.worker.message import HandedBackError, ServedMessage, Service
from tests import media
from tests.pipeline.quick import QuickNetwork
from tests.pipeline.records import record
from tests.pipeline.worker.serving import committed_to_the_end, judged, published, serving, task, until
from tests.spans import collected, outline, show

SAMPLING = "fps=4"


@pytest.fixture(scope="module")
def long_clip(root: Path) -> Path:
    """Eight seconds, two people."""
    path = root / "long_clip.mp4"
    media.make_clip(path, seconds=8, size=(800, 400), faces=2, face_px=(100, 110), seed=12)
    return path


@pytest.fixture(scope="module")
def parts(client: redis.Redis) -> PartStore:
    return PartStore(client, 600)


@pytest.fixture(scope="module")
def splitting(service: Callable[[TaskConsumer], Service], parts: PartStore) -> Callable[[TaskConsumer], Service]:
    """Splits what is longer than three seconds."""
    return lambda consumer: replace(service(consumer), parts=parts, split_s=3.0)


def parts_sent(bootstrap: str, clip_id: str) -> list[VideoTask]:
    tasks = [VideoTask.parse(m.value, m.key) for m in read_topic(bootstrap, Topic.VIDEOS) if m.key == clip_id.encode()]
    return [found for found in tasks if found.part is not None]


def test_the_verdict_equals_that_of_the_whole_video(
    bootstrap: str,
    splitting: Callable[[TaskConsumer], Service],
    service: Callable[[TaskConsumer], Service],
    publisher: Publisher,
    store: VerdictStore,
    client: redis.Redis,
    long_clip: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(VerdictStore, "duplicate", lambda store, fingerprint: None)
    asked = task(long_clip, sampling=SAMPLING)
    shares: list[float] = []

    def noting(consumer: TaskConsumer) -> Service:
        return replace(splitting(consumer), progress=lambda clip_id, share: shares.append(share))

    with serving(bootstrap, noting), serving(bootstrap, noting):
        verdict = judged(asked, publisher, store)
        (message,) = until(lambda: published(bootstrap, Topic.VERDICTS, asked.video_id))
        until(lambda: committed_to_the_end(bootstrap))
        until(lambda: not client.exists(parts_key(asked.video_id)))
    with serving(bootstrap, service):
        whole = judged(task(long_clip, sampling=SAMPLING), publisher, store)
    assert message.value == store.record(asked.video_id)
    sent = parts_sent(bootstrap, asked.video_id)
    assert sorted(found.part.index for found in sent if found.part) == [0, 1, 2]
    assert [found.sampling for found in sent] == [SAMPLING] * 3
    assert {round(share * 3) for share in shares} <= {1, 2}
    assert shares
    assert (verdict.outcome, verdict.frames_sampled, verdict.duration_s) == (Outcome.SCORED, 32, whole.duration_s)
    assert len(verdict.people) == len(whole.people) == 2
    assert verdict.probability == pytest.approx(whole.probability, abs=0.01)
    assert verdict.provenance == whole.provenance
    assert [face.index for face in verdict.frames] == [face.index for face in whole.frames]


def test_all_parts_are_in_the_videos_trace(
    bootstrap: str,
    splitting: Callable[[TaskConsumer], Service],
    publisher: Publisher,
    store: VerdictStore,
    long_clip: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("opentelemetry.sdk.trace")
    monkeypatch.setattr(VerdictStore, "duplicate", lambda store, fingerprint: None)
    asked = task(long_clip, sampling=SAMPLING)
    with collected() as spans, serving(bootstrap, splitting):
        judged(asked, publisher, store)
        until(lambda: published(bootstrap, Topic.VERDICTS, asked.video_id))
        found = spans.trace_of(asked.video_id, "send unmask.verdicts")
    show(found)
    send, process = "send unmask.videos", "process unmask.videos"
    part = f"{send} > {process} > {send} > {process}"
    stages = ("fetch", "decode", "faces", "score")
    assert outline(found) == sorted(
        [
            send,
            f"{send} > {process}",
            # The clip was opened to find out how long it is.
            *(f"{send} > {process} > {name}" for name in stages[:2]),
            *[f"{send} > {process} > {send}"] * 3,
            *[part] * 3,
            *[f"{part} > {name}" for name in stages] * 3,
            f"{part} > send unmask.verdicts",
        ]
    )
    shares = sorted(span.attributes["unmask.part"] for span in found if "unmask.part" in span.attributes)
    assert shares == [0, 1, 2]


def test_a_video_that_cannot_be_searched_is_judged_whole(
    bootstrap: str,
    splitting: Callable[[TaskConsumer], Service],
    publisher: Publisher,
    store: VerdictStore,
    root: Path,
    long_clip: Path,
) -> None:
    stream = root / "long_clip.ts"
    with av.open(str(long_clip)) as source, av.open(str(stream), "w", format="mpegts") as target:
        video = source.streams.video[0]
        copy = target.add_stream_from_template(video)
        for packet in source.demux(video):
            if packet.dts is not None:
                packet.stream = copy
                target.mux(packet)
    asked = task(stream, sampling=SAMPLING)
    with serving(bootstrap, splitting):
        verdict = judged(asked, publisher, store)
    assert parts_sent(bootstrap, asked.video_id) == []
    assert (verdict.outcome, verdict.frames_sampled) == (Outcome.SCORED, 32)


def test_duplicate_and_late_parts_change_nothing(
    bootstrap: str,
    splitting: Callable[[TaskConsumer], Service],
    publisher: Publisher,
    store: VerdictStore,
    parts: PartStore,
    client: redis.Redis,
    long_clip: Path,
) -> None:
    asked = task(long_clip, sampling="fps=3")
    first = Part(index=0, count=2, start_s=0.0, end_s=5.0)
    last = Part(index=1, count=2, start_s=4.0, end_s=None)
    parts.sent(asked.video_id)
    with serving(bootstrap, splitting):
        for part in (first, first):
            publisher.part(asked.model_copy(update={"part": part}), 0).wait()
            until(lambda: client.hexists(parts_key(asked.video_id), "0"))
        until(lambda: committed_to_the_end(bootstrap))
        assert client.hget(parts_key(asked.video_id), "attempt:0") == b"1"
        assert store.record(asked.video_id) is None
        publisher.part(asked.model_copy(update={"part": last}), 0).wait()
        stored = until(lambda: store.record(asked.video_id))
        for part in (last, first):
            publisher.part(asked.model_copy(update={"part": part}), 1).wait()
        until(lambda: committed_to_the_end(bootstrap))
    assert store.record(asked.video_id) == stored
    assert Verdict.model_validate_json(stored).frames_sampled == 24


def of_other_weights(result: PartResult) -> bytes:
    return replace(result, provenance=result.provenance.model_copy(update={"weights_sha256": ["e" * 64]})).to_bytes()


def of_a_newer_version(result: PartResult) -> bytes:
    """While a group is updated, a worker of the version before may finish the last part."""
    return json.dumps({**json.loads(result.to_bytes()), "part": 2, "columns": {"more": "AAAA"}, "added": True}).encode()


@pytest.mark.parametrize("stored", [of_other_weights, of_a_newer_version])
@pytest.mark.parametrize("before", [0, 1])
def test_parts_that_cannot_be_joined_are_judged_again_but_not_without_end(
    bootstrap: str,
    splitting: Callable[[TaskConsumer], Service],
    publisher: Publisher,
    store: VerdictStore,
    parts: PartStore,
    client: redis.Redis,
    scanner: Scanner,
    long_clip: Path,
    before: int,
    stored: Callable[[PartResult], bytes],
) -> None:
    sampling = f"fps={8 + before + 2 * (stored is of_a_newer_version)}"
    asked = task(long_clip, sampling=sampling)
    first = Part(index=0, count=2, start_s=0.0, end_s=5.0)
    last = Part(index=1, count=2, start_s=4.0, end_s=None)
    sampled = scanner.with_sampling(parse_sampling(sampling))
    result = sampled.scan_part(Source(str(long_clip), asked.video_id), Window(0.0, 5.0))
    parts.sent(asked.video_id)
    for _ in range(before):
        parts.again(asked.video_id)
    parts.put(asked.video_id, 0, 2, stored(result))
    with serving(bootstrap, splitting):
        publisher.part(asked.model_copy(update={"part": last}), 0).wait()
        record = until(lambda: store.record(asked.video_id))
        until(lambda: committed_to_the_end(bootstrap))
        until(lambda: not client.exists(parts_key(asked.video_id)))
    verdict = Verdict.model_validate_json(record)
    assert (verdict.outcome, verdict.frames_sampled) == (Outcome.SCORED, 8 * int(sampling.removeprefix("fps=")))
    assert verdict.provenance.weights_sha256 == scanner.provenance.weights_sha256
    # Sent out the first time, done by the one who found it the next time.
    assert [found.part for found in parts_sent(bootstrap, asked.video_id)].count(first) == 1 - before


def test_a_stored_verdict_that_was_not_published_is_published(
    bootstrap: str,
    splitting: Callable[[TaskConsumer], Service],
    publisher: Publisher,
    store: VerdictStore,
    long_clip: Path,
) -> None:
    asked = task(long_clip, part=Part(index=1, count=2, start_s=4.0))
    stored = store.finish(record(id=asked.video_id))
    with serving(bootstrap, splitting):
        publisher.part(asked, 0).wait()
        (message,) = until(lambda: published(bootstrap, Topic.VERDICTS, asked.video_id))
    assert message.value == stored


def test_a_part_that_fails_ends_the_clip(
    bootstrap: str,
    splitting: Callable[[TaskConsumer], Service],
    publisher: Publisher,
    store: VerdictStore,
    client: redis.Redis,
    network: QuickNetwork,
    long_clip: Path,
) -> None:
    asked = task(long_clip, sampling="fps=5")
    original = network.log_odds
    network.log_odds = lambda pixels: np.full(len(pixels), np.nan, np.float32)
    try:
        with serving(bootstrap, splitting):
            verdict = judged(asked, publisher, store)
            until(lambda: published(bootstrap, Topic.VERDICTS, asked.video_id))
            until(lambda: committed_to_the_end(bootstrap))
    finally:
        network.log_odds = original
    assert verdict.outcome is Outcome.MODEL_ERROR
    assert "nan" in (verdict.error or "")

    letter = next(found for found in letters(bootstrap, client) if found.key == asked.video_id)
    assert VideoTask.parse(letter.message.value, letter.message.key).part is not None
    requeue(letter, publisher=publisher, store=store, client=client)
    with serving(bootstrap, splitting):
        record = until(lambda: store.record(asked.video_id))
        until(lambda: committed_to_the_end(bootstrap))
    verdict = Verdict.model_validate_json(record)
    assert (verdict.outcome, verdict.frames_sampled) == (Outcome.SCORED, 40)


def test_the_dead_letter_of_a_part_is_sent_before_its_verdict_is_stored(
    bootstrap: str,
    splitting: Callable[[TaskConsumer], Service],
    publisher: Publisher,
    store: VerdictStore,
    parts: PartStore,
    long_clip: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = task(long_clip, part=Part(index=1, count=2, start_s=4.0))
    parts.sent(asked.video_id)
    for _ in range(3):
        parts.begin(asked.video_id, 1)

    def dies(message: ServedMessage, record: bytes, clip_id: str) -> None:
        raise HandedBackError("as a crash would")

    with monkeypatch.context() as patched:
        patched.setattr(ServedMessage, "publish", dies)
        with serving(bootstrap, splitting, drain_s=1.0):
            publisher.part(asked, 0).wait()
            stored = until(lambda: store.record(asked.video_id))
            (letter,) = until(lambda: published(bootstrap, Topic.DEAD, asked.video_id))
    assert Verdict.model_validate_json(stored).outcome is Outcome.MODEL_ERROR
    assert letter.header("stage") == "score"
    with serving(bootstrap, splitting):
        until(lambda: published(bootstrap, Topic.VERDICTS, asked.video_id))
        until(lambda: committed_to_the_end(bootstrap))
    assert len(published(bootstrap, Topic.DEAD, asked.video_id)) == 1


def test_a_clip_whose_parts_redis_lost_starts_again(
    bootstrap: str,
    splitting: Callable[[TaskConsumer], Service],
    publisher: Publisher,
    store: VerdictStore,
    client: redis.Redis,
    long_clip: Path,
) -> None:
    # Of its three parts this one is left in Kafka, and nothing in Redis.
    asked = task(long_clip, sampling="fps=7", part=Part(index=2, count=3, start_s=4.0))
    with serving(bootstrap, splitting):
        publisher.part(asked, 0).wait()
        record = until(lambda: store.record(asked.video_id))
        until(lambda: committed_to_the_end(bootstrap))
        until(lambda: not client.exists(parts_key(asked.video_id)))
    verdict = Verdict.model_validate_json(record)
    assert (verdict.outcome, verdict.frames_sampled) == (Outcome.SCORED, 56)


def test_a_part_that_kills_its_workers_is_given_up(
    bootstrap: str,
    splitting: Callable[[TaskConsumer], Service],
    publisher: Publisher,
    store: VerdictStore,
    parts: PartStore,
    long_clip: Path,
) -> None:
    asked = task(long_clip, sampling="fps=6")
    for _ in range(3):
        parts.begin(asked.video_id, 1)
    with serving(bootstrap, splitting):
        verdict = judged(asked, publisher, store)
    assert verdict.outcome is Outcome.MODEL_ERROR
    assert "part 1: given up after 3 tries" in (verdict.error or "")


def test_a_part_of_a_forbidden_uri_is_unavailable(
    bootstrap: str, splitting: Callable[[TaskConsumer], Service], publisher: Publisher, store: VerdictStore
) -> None:
    asked = task("/etc/passwd", part=Part(index=0, count=2, start_s=0.0, end_s=5.0))
    with serving(bootstrap, splitting):
        publisher.part(asked, 0).wait()
        stored = until(lambda: store.record(asked.video_id))
    assert Verdict.model_validate_json(stored).outcome is Outcome.UNAVAILABLE


@pytest.mark.parametrize(
    "part",
    [
        {"index": 2, "count": 2, "start_s": 0, "end_s": 1},
        {"index": 0, "count": 2, "start_s": 1, "end_s": 1},
        {"index": 0, "count": 0, "start_s": 0, "end_s": None},
    ],
)
def test_a_task_with_an_invalid_part_is_invalid(part: dict[str, object], long_clip: Path) -> None:
    fields = json.loads(task(long_clip).to_json()) | {"part": part}
    with pytest.raises(ValueError, match="part"):
        VideoTask.parse(json.dumps(fields).encode(), fields["video_id"].encode())
