"""Live streams between a real Kafka and a real Redis."""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest
import redis

from pipeline.contracts import LIVE_KEY, STREAMS_KEY, Outcome, Topic, Verdict, frames_key, stream_key
from pipeline.live.cutter import Cut, cut
from pipeline.live.state import StreamState
from pipeline.live.store import StreamStore
from pipeline.logs import configure_logging
from pipeline.results.store import VerdictStore
from pipeline.transport.consumer import TaskConsumer
from pipeline.transport.kafka import Publisher
from pipeline.transport.messages import ContentType, Segment
from pipeline.worker.loop import Worker
from pipeline.worker.message import Service
from pipeline.worker.streams import Live
from tests import media
from tests.pipeline.worker.serving import committed_to_the_end, published, serving, until

Serve = Callable[..., AbstractContextManager[Worker]]


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> list[Cut]:
    """Six seconds of two people, in segments of one second."""
    path = tmp_path_factory.mktemp("live") / "two.mp4"
    media.make_clip(path, seconds=6, size=(800, 400), faces=2, face_px=(100, 110), seed=5)
    return list(cut(str(path), segment_s=1.0))


@pytest.fixture(scope="module")
def streams(client: redis.Redis) -> StreamStore:
    return StreamStore(client, ttl_s=600)


@pytest.fixture
def serve(bootstrap: str, service: Callable[[TaskConsumer], Service], streams: StreamStore) -> Serve:
    """A worker that takes segments too."""

    def start(**how: float) -> AbstractContextManager[Worker]:
        # Long limits by default: the machine may be busy.
        return serving(bootstrap, service, live=Live(streams, **({"max_age_s": 300.0, "idle_s": 300.0} | how)))

    return start


@pytest.fixture(scope="module")
def send(publisher: Publisher, pieces: list[Cut]) -> Callable[..., str]:
    """Sends pieces as a stream; its id."""

    def sent(sequences: Sequence[int], *, stream_id: str | None = None, final: bool = True, broken: int = -1) -> str:
        stream_id = stream_id or f"test-{uuid.uuid4()}"
        for place, sequence in enumerate(sequences):
            piece = pieces[sequence % len(pieces)]
            segment = Segment(
                stream_id=stream_id,
                sequence=sequence,
                start_s=float(sequence),
                final=final and place == len(sequences) - 1,
                content_type=ContentType.MPEG_TS,
            )
            publisher.segment(segment, b"no video" if sequence == broken else piece.media).wait()
        return stream_id

    return sent


def applied(streams: StreamStore, stream_id: str, count: int) -> StreamState:
    """The state once so many segments were dealt with."""

    def dealt_with() -> StreamState | None:
        state = streams.load(stream_id)
        enough = state is not None and state.segments + state.shed + state.duplicated + state.failed >= count
        return state if enough else None

    found: StreamState = until(dealt_with)
    return found


def judged(store: VerdictStore, stream_id: str) -> Verdict:
    return Verdict.model_validate_json(until(lambda: store.record(stream_id)))


def essence(verdict: Verdict) -> dict[str, object]:
    return verdict.model_dump(exclude={"id", "source", "elapsed_s"})


@pytest.fixture(scope="module")
def undisturbed(
    bootstrap: str,
    service: Callable[[TaskConsumer], Service],
    streams: StreamStore,
    store: VerdictStore,
    send: Callable[..., str],
) -> Verdict:
    """The verdict on the stream where nothing goes wrong."""
    with serving(bootstrap, service, live=Live(streams, max_age_s=300.0)):
        return judged(store, send(range(6)))


def test_a_stream_has_a_running_verdict_and_a_final_record(
    serve: Serve,
    bootstrap: str,
    streams: StreamStore,
    store: VerdictStore,
    client: redis.Redis,
    send: Callable[..., str],
) -> None:
    with serve():
        stream = send(range(3), final=False)
        state = applied(streams, stream, 3)
        running = Verdict.model_validate_json(streams.verdict(stream) or b"")
        assert (running.id, running.outcome, running.frames_sampled) == (stream, Outcome.SCORED, 18)
        assert (running.frames, state.closed) == ([], False)
        assert store.record(stream) is None
        send([3, 4, 5], stream_id=stream)
        verdict = judged(store, stream)
        (message,) = until(lambda: published(bootstrap, Topic.VERDICTS, stream))
    assert message.value == store.record(stream)
    assert verdict.outcome is Outcome.SCORED
    assert verdict.source == f"stream:{stream}"
    assert (verdict.frames_sampled, len(verdict.people)) == (36, 2)
    assert len(verdict.frames) == sum(person.frames for person in verdict.people)
    assert verdict.frames[0].t_s < 1 < verdict.frames[-1].t_s
    assert [face.index for face in verdict.frames] == sorted(face.index for face in verdict.frames)
    assert client.hlen(frames_key(stream)) == len(verdict.frames)
    seen = [
        json.loads(fields[b"face"]) for _, fields in client.xrange(LIVE_KEY) if fields[b"stream_id"] == stream.encode()
    ]
    assert len(seen) == len(verdict.frames)
    assert stream not in streams.idle(-60.0)


def test_people_stay_the_same_when_another_worker_continues(
    serve: Serve, streams: StreamStore, store: VerdictStore, send: Callable[..., str], undisturbed: Verdict
) -> None:
    with serve() as first:
        stream = send(range(3), final=False)
        applied(streams, stream, 3)
        first.stop()
    with serve():
        send([3, 4, 5], stream_id=stream)
        assert essence(judged(store, stream)) == essence(undisturbed)


def test_a_worker_restores_the_stream_state_that_redis_lost(
    serve: Serve, streams: StreamStore, store: VerdictStore, client: redis.Redis, send: Callable[..., str]
) -> None:
    with serve():
        stream = send(range(2), final=False)
        applied(streams, stream, 2)
        client.delete(stream_key(stream))
        send([2, 3], stream_id=stream)
        verdict = judged(store, stream)
    assert (verdict.frames_sampled, len(verdict.people)) == (24, 2)


def test_late_missing_and_duplicate_segments_are_counted(
    serve: Serve, streams: StreamStore, store: VerdictStore, send: Callable[..., str]
) -> None:
    with serve():
        stream = send([0, 2, 1, 1, 5])
        verdict = judged(store, stream)
        after = send([6], stream_id=stream, final=False)
        until(lambda: streams.load(after))
    state = streams.load(stream)
    assert state is not None
    assert (state.segments, state.late, state.duplicated, state.missing) == (4, 1, 1, 2)
    assert verdict.frames_sampled == 24


def test_segments_that_are_too_old_are_shed_and_counted(
    serve: Serve, streams: StreamStore, store: VerdictStore, client: redis.Redis, send: Callable[..., str]
) -> None:
    stream = send(range(3))
    time.sleep(0.05)
    with serve(max_age_s=0.01):
        verdict = judged(store, stream)
    assert verdict.outcome is Outcome.SHED
    assert "too old" in (verdict.error or "")
    assert client.hget(stream_key(stream), "shed") == b"3"


def test_a_broken_segment_does_not_affect_the_others(
    serve: Serve,
    bootstrap: str,
    publisher: Publisher,
    streams: StreamStore,
    store: VerdictStore,
    send: Callable[..., str],
) -> None:
    with serve():
        stream = send(range(3), broken=1)
        verdict = judged(store, stream)
        key = f"test-{uuid.uuid4()}"
        publisher.again(Topic.SEGMENTS, key.encode(), b"media", [("schema", b"1")]).wait()
        (letter,) = until(lambda: published(bootstrap, Topic.DEAD, key))
    state = streams.load(stream)
    assert state is not None
    assert (state.segments, state.failed) == (3, 1)
    assert (verdict.outcome, verdict.frames_sampled) == (Outcome.SCORED, 12)
    assert (letter.header("stage"), letter.header("topic")) == ("parse", "unmask.segments")


def test_logs_that_cannot_be_written_do_not_stop_a_stream(
    serve: Serve, streams: StreamStore, store: VerdictStore, send: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure_logging()
    # Closing the file writes what it still holds.
    with suppress(OSError), Path("/dev/full").open("w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", full)
        with serve():
            stream = send(range(3), broken=1)
            verdict = judged(store, stream)
    state = streams.load(stream)
    assert state is not None
    assert (verdict.outcome, state.failed) == (Outcome.SCORED, 1)


def test_an_internal_error_costs_one_segment_and_blocks_nothing(
    serve: Serve,
    bootstrap: str,
    streams: StreamStore,
    store: VerdictStore,
    send: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = StreamState.admit

    def broken(state: StreamState, sequence: int) -> bool:
        if sequence == 1:
            raise RuntimeError("never thought of this")
        return original(state, sequence)

    monkeypatch.setattr(StreamState, "admit", broken)
    with serve():
        stream = send(range(3))
        verdict = judged(store, stream)
        (letter,) = until(lambda: published(bootstrap, Topic.DEAD, stream))
        until(lambda: committed_to_the_end(bootstrap, (Topic.SEGMENTS,)))
    state = streams.load(stream)
    assert state is not None
    assert (state.segments, state.missing) == (2, 1)
    assert (verdict.outcome, verdict.frames_sampled) == (Outcome.SCORED, 12)
    assert "never thought of this" in letter.header("error")


def test_an_idle_stream_is_closed_with_its_verdict(
    serve: Serve, bootstrap: str, store: VerdictStore, send: Callable[..., str]
) -> None:
    with serve(idle_s=0.5):
        stream = send(range(2), final=False)
        verdict = judged(store, stream)
        (message,) = until(lambda: published(bootstrap, Topic.VERDICTS, stream))
    assert verdict.outcome is Outcome.SCORED
    assert message.value == store.record(stream)


def rewrite(client: redis.Redis, stream: str, **changes: object) -> None:
    """Change fields of a stored state, as another version would have written it."""
    state = json.loads(client.hget(stream_key(stream), "state") or b"") | changes
    client.hset(stream_key(stream), "state", json.dumps(state))


@pytest.mark.parametrize(
    "changes",
    [{"version": 1, "partition": None}, *({"tracker": odd} for odd in ({"foo": 1}, {"tracks": [{}]}, {"tracks": "x"}))],
    ids=["version 1", "no tracker", "no track", "no list of tracks"],
)
def test_an_older_state_and_one_with_an_invalid_tracker_are_continued(
    changes: dict[str, object],
    serve: Serve,
    streams: StreamStore,
    store: VerdictStore,
    client: redis.Redis,
    send: Callable[..., str],
) -> None:
    with serve():
        stream = send(range(2), final=False)
        applied(streams, stream, 2)
    rewrite(client, stream, **changes)
    if "partition" in changes:
        client.hdel(stream_key(stream), "partition")
    with serve():
        send([2, 3], stream_id=stream)
        assert judged(store, stream).frames_sampled == 24


def test_a_state_of_a_newer_version_is_left_to_newer_workers(
    serve: Serve,
    bootstrap: str,
    streams: StreamStore,
    store: VerdictStore,
    client: redis.Redis,
    send: Callable[..., str],
) -> None:
    with serve():
        stream = send(range(2), final=False)
        applied(streams, stream, 2)
    state = client.hget(stream_key(stream), "state")
    rewrite(client, stream, version=99, hats=["red"])
    with serve(idle_s=1.0) as worker:
        consumer = worker._service.consumer
        send([2, 3], stream_id=stream)
        until(lambda: consumer.left == 2 and consumer.waiting == 0)
        # Other streams go on meanwhile.
        assert judged(store, send(range(2))).outcome is Outcome.SCORED
        assert not committed_to_the_end(bootstrap, (Topic.SEGMENTS,))
    client.hset(stream_key(stream), "state", state)
    with serve():
        assert judged(store, stream).frames_sampled == 24
        until(lambda: committed_to_the_end(bootstrap, (Topic.SEGMENTS,)))


@pytest.mark.parametrize("state", ["{", "[]", '{"version": "x"}', '{"version": 2, "stream_id": 3}'])
def test_a_stream_without_a_readable_state_begins_again(
    state: str, serve: Serve, streams: StreamStore, store: VerdictStore, client: redis.Redis, send: Callable[..., str]
) -> None:
    with serve():
        stream = send(range(2), final=False)
        applied(streams, stream, 2)
    client.hset(stream_key(stream), "state", state)
    with serve():
        send([2, 3], stream_id=stream)
        verdict = judged(store, stream)
    found = streams.load(stream)
    assert found is not None
    assert (verdict.frames_sampled, found.failed, found.missing) == (12, 1, 2)
    assert "invalid" in found.last_error


def test_an_idle_stream_with_an_invalid_state_does_not_keep_others_open(
    serve: Serve, store: VerdictStore, streams: StreamStore, client: redis.Redis, send: Callable[..., str]
) -> None:
    client.hset(stream_key("broken"), mapping={"state": "{", "offset": "1"})
    client.set(stream_key("odd"), "no hash")
    # More than one look used to list, and a name that is not valid text.
    client.zadd(STREAMS_KEY, {"broken": 0.0, "odd": 1.0, b"\xff": 1.0} | {f"left-{n}": 2.0 for n in range(150)})
    for n in range(150):
        client.set(stream_key(f"left-{n}"), "no hash")
    with serve(idle_s=0.5):
        assert judged(store, send(range(2), final=False)).outcome is Outcome.SCORED
        until(lambda: "broken" not in streams.idle(-60.0))
    client.delete(stream_key("odd"), *(stream_key(f"left-{n}") for n in range(150)))
    client.delete(STREAMS_KEY)


def test_a_stream_goes_on_in_another_partition(
    serve: Serve, streams: StreamStore, store: VerdictStore, client: redis.Redis, send: Callable[..., str]
) -> None:
    """After partitions were added, a key moves, and its offsets may be lower."""
    with serve():
        stream = send(range(2), final=False)
        state = applied(streams, stream, 2)
    # As if the first segments had come through a third partition, far ahead of this one.
    rewrite(client, stream, partition=2, offset=10**9)
    client.hset(stream_key(stream), mapping={"partition": 2, "offset": 10**9})
    with serve():
        send([1, 2, 3], stream_id=stream)
        verdict = judged(store, stream)
    found = streams.load(stream)
    assert found is not None
    assert (verdict.frames_sampled, found.duplicated, found.partition) == (24, 1, state.partition)


@pytest.fixture(autouse=True)
def _nothing_left(client: redis.Redis) -> None:
    """Streams that other tests left open would be ended here."""
    client.delete(STREAMS_KEY)


def test_people_who_are_upside_down_are_scored_upright(
    serve: Serve, streams: StreamStore, store: VerdictStore, publisher: Publisher, tmp_path: Path
) -> None:
    media.make_clip(tmp_path / "upright.mp4", seconds=4, size=(640, 360), face_px=(100, 110))
    media.turn_clip(tmp_path / "upright.mp4", tmp_path / "turned.mp4", 180)
    stream_id = f"test-{uuid.uuid4()}"
    pieces = list(cut(str(tmp_path / "turned.mp4"), segment_s=2.0))
    with serve():
        for sequence, piece in enumerate(pieces):
            segment = Segment(
                stream_id=stream_id,
                sequence=sequence,
                start_s=piece.start_s,
                final=sequence == len(pieces) - 1,
                content_type=ContentType.MPEG_TS,
            )
            publisher.segment(segment, piece.media).wait()
        verdict = judged(store, stream_id)
    assert verdict.outcome is Outcome.SCORED
    assert len(verdict.people) == 1
    assert {face.roll for face in verdict.frames} == {180}
    assert verdict.people[0].frames == verdict.frames_sampled
