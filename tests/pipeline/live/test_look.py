"""What people see of streams in a real Redis, whatever is in it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
import redis

from pipeline.contracts import STREAMS_KEY, ScoredFace, stream_faces_key, stream_key
from pipeline.live.look import MAX_LATEST, StreamCounts, look_at, open_streams
from pipeline.live.state import StreamState
from pipeline.results.store import connect
from tests.pipeline.records import record


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        client.delete(STREAMS_KEY)
        yield client
        client.delete(STREAMS_KEY)


@pytest.fixture
def stream_id() -> str:
    return f"test-{uuid.uuid4()}"


def test_a_stream_has_its_counts_its_verdict_and_its_latest_faces(client: redis.Redis, stream_id: str) -> None:
    state = StreamState(stream_id=stream_id, started_at=5.0, updated_at=9.0, segments=7, late=1, missing=2, failed=3)
    fields = {"state": state.model_dump_json(), "verdict": record(id=stream_id).to_json(), "shed": 4}
    client.hset(stream_key(stream_id), mapping={**fields, "closed": 0, "updated_at": "9.0"})
    face = ScoredFace(t_s=1, index=2, track=0, box=(1, 2, 3, 4), probability=0.5, quality=0.5)
    client.rpush(stream_faces_key(stream_id), *[face.model_dump_json()] * (MAX_LATEST + 5))
    (look,) = look_at(client, [stream_id])
    assert look is not None
    assert (look.shed, look.is_closed, look.updated_at) == (4, False, 9.0)
    assert look.counts == StreamCounts(segments=7, late=1, missing=2, failed=3, started_at=5.0)
    assert look.verdict is not None
    assert look.verdict.id == stream_id
    assert look.faces == (face,) * MAX_LATEST


def test_what_is_no_stream_does_not_hide_the_others(client: redis.Redis, stream_id: str) -> None:
    ids = [f"{stream_id}:{number}" for number in range(5)]
    client.set(stream_key(ids[0]), "text")
    client.hset(stream_key(ids[1]), "shed", "1")
    client.hset(stream_key(ids[2]), mapping={"updated_at": "then"})
    client.hset(stream_key(ids[3]), mapping={"state": "{", "verdict": "{}", "updated_at": "1.0"})
    *others, found, unknown = look_at(client, ids)
    assert [*others, unknown] == [None] * 4
    assert found is not None
    assert (found.verdict, found.counts, found.shed, found.faces) == (None, StreamCounts(), 0, ())


def test_open_streams_are_listed_by_their_last_segment(client: redis.Redis) -> None:
    client.zadd(STREAMS_KEY, {"old": 1.0, "new": 3.0, "middle": 2.0, b"\xff\n": 4.0})
    assert open_streams(client, 3) == ["new", "middle"]
    assert open_streams(client, 10) == ["new", "middle", "old"]
