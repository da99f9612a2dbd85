"""Verdicts in a real Redis: the first one is kept, also with concurrent and repeated calls."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from deploy.local.services import RedisServer, ServiceError, free_port
from pipeline.contracts import Outcome, ScoredFace, State, Verdict, clip_key, frames_key, parts_key
from pipeline.results.store import VerdictStore, connect
from tests.pipeline.records import record

TTL_S = 600


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        yield client


@pytest.fixture
def store(client: redis.Redis) -> VerdictStore:
    return VerdictStore(client, ttl_s=TTL_S, clock=lambda: 1795500000.25)


@pytest.fixture
def clip_id() -> str:
    return f"test-{uuid.uuid4()}"


def scored(clip_id: str, *, frames: int = 2, probability: float = 0.93) -> Verdict:
    faces = [
        ScoredFace(t_s=0.5 * i, index=15 * i, track=0, box=(1, 2, 3, 4), probability=0.9, quality=0.8)
        for i in range(frames)
    ]
    return record(id=clip_id, probability=probability, frames=faces)


def test_a_clip_s_hash_follows_the_contract(store: VerdictStore, client: redis.Redis, clip_id: str) -> None:
    assert store.queue(clip_id)
    assert client.hgetall(clip_key(clip_id)) == {b"state": b"queued", b"updated_at": b"1795500000.25"}
    assert not store.queue(clip_id)
    assert store.begin(clip_id).attempt == 1
    assert store.state(clip_id) is State.RUNNING
    verdict = scored(clip_id)
    stored = store.finish(verdict)
    assert stored == verdict.to_json().encode()
    assert client.hgetall(clip_key(clip_id)) == {
        b"state": b"done",
        b"attempt": b"1",
        b"updated_at": b"1795500000.25",
        b"outcome": b"scored",
        b"label": verdict.label.encode() if verdict.label else b"",
        b"probability": b"0.93",
        b"verdict": stored,
    }
    frames = client.hgetall(frames_key(clip_id))
    assert set(frames) == {b"0:0", b"500:0"}
    assert json.loads(frames[b"500:0"]) == json.loads(stored)["frames"][1]
    assert {0 < client.ttl(key) <= TTL_S for key in (clip_key(clip_id), frames_key(clip_id))} == {True}


def test_the_share_that_is_done_is_noted_while_a_clip_runs(
    store: VerdictStore, client: redis.Redis, clip_id: str
) -> None:
    unknown = f"{clip_id}-unknown"
    store.note_shares({clip_id: 0.1, unknown: 0.1})
    assert not client.exists(clip_key(clip_id), clip_key(unknown))
    store.begin(clip_id)
    store.note_shares({clip_id: 0.12345})
    assert store.shares([clip_id, unknown]) == [0.123, None]
    store.begin(clip_id)
    assert store.shares([clip_id]) == [None]
    store.note_shares({clip_id: 0.5})
    store.finish(scored(clip_id))
    store.note_shares({clip_id: 0.6})
    assert store.shares([clip_id]) == [None]


def test_no_score_is_an_empty_string(store: VerdictStore, client: redis.Redis, clip_id: str) -> None:
    failed = record(
        id=clip_id, outcome=Outcome.NO_FACE, probability=None, label=None, error="no face in 20 frames", frames=[]
    )
    store.finish(failed)
    assert client.hmget(clip_key(clip_id), "outcome", "label", "probability") == [b"no_face", b"", b""]
    assert not client.exists(frames_key(clip_id))


def test_the_first_verdict_is_kept(store: VerdictStore, client: redis.Redis, clip_id: str) -> None:
    first = store.finish(scored(clip_id, probability=0.9))
    assert store.finish(scored(clip_id, probability=0.1, frames=5)) == first
    assert not store.restore(scored(clip_id, probability=0.2).to_json().encode())
    assert store.record(clip_id) == first
    assert client.hlen(frames_key(clip_id)) == 2
    begun = store.begin(clip_id)
    assert (begun.attempt, begun.record) == (0, first)
    assert not store.queue(clip_id)


def test_one_of_many_concurrent_verdicts_wins(store: VerdictStore, clip_id: str) -> None:
    verdicts = [scored(clip_id, probability=i / 100) for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        stored = set(pool.map(store.finish, verdicts))
    assert stored == {store.record(clip_id)}


def test_a_clip_with_many_faces_is_stored_whole(store: VerdictStore, client: redis.Redis, clip_id: str) -> None:
    store.finish(scored(clip_id, frames=12_345))
    assert client.hlen(frames_key(clip_id)) == 12_345


def test_tries_are_counted(store: VerdictStore, clip_id: str) -> None:
    assert [store.begin(clip_id).attempt for _ in range(3)] == [1, 2, 3]


def test_a_try_that_was_handed_back_does_not_count(store: VerdictStore, clip_id: str) -> None:
    store.begin(clip_id)
    store.begin(clip_id)
    store.release(clip_id)
    assert store.state(clip_id) is State.QUEUED
    assert store.begin(clip_id).attempt == 2
    stored = store.finish(scored(clip_id))
    store.release(clip_id)
    assert (store.state(clip_id), store.record(clip_id)) == (State.DONE, stored)


def test_a_release_does_not_create_an_unknown_clip(store: VerdictStore, clip_id: str) -> None:
    store.release(clip_id)
    assert store.state(clip_id) is None


def failed(clip_id: str) -> Verdict:
    return record(id=clip_id, outcome=Outcome.MODEL_ERROR, probability=None, label=None, error="out of memory")


def test_only_a_model_error_can_be_deleted(store: VerdictStore, clip_id: str) -> None:
    store.begin(clip_id)
    store.finish(failed(clip_id))
    assert store.forget_error(clip_id)
    assert store.state(clip_id) is None
    assert store.begin(clip_id).attempt == 1
    stored = store.finish(scored(clip_id))
    assert not store.forget_error(clip_id)
    assert store.record(clip_id) == stored


def test_a_later_verdict_replaces_a_published_model_error(store: VerdictStore, clip_id: str) -> None:
    error, later = failed(clip_id).to_json().encode(), scored(clip_id).to_json().encode()
    assert store.restore(error)
    assert store.restore(later)
    assert not store.restore(error)
    assert store.record(clip_id) == later


def test_the_same_content_is_found_by_its_fingerprint(store: VerdictStore, clip_id: str) -> None:
    fingerprint = uuid.uuid4().hex
    another = f"{clip_id}-2"
    assert store.duplicate(fingerprint) is None
    store.remember(fingerprint, clip_id)  # which has no verdict, or was deleted
    stored = store.finish(scored(clip_id))
    assert store.duplicate(fingerprint) is None
    store.remember(fingerprint, clip_id)
    store.finish(scored(another))
    store.remember(fingerprint, another)
    assert store.duplicate(fingerprint) == stored
    store.delete(another)
    assert store.duplicate(fingerprint) == stored
    store.delete(clip_id)
    store.finish(scored(clip_id))
    assert store.duplicate(fingerprint) is None


def test_many_clips_are_queried_at_once(store: VerdictStore, clip_id: str) -> None:
    other = f"{clip_id}-2"
    store.queue(other)
    store.finish(scored(clip_id))
    assert store.states([clip_id, other, "unknown"]) == [(State.DONE, Outcome.SCORED), (State.QUEUED, None), None]
    assert store.states([]) == []


def test_a_record_is_restored_as_it_was_published(store: VerdictStore, client: redis.Redis, clip_id: str) -> None:
    published = store.finish(scored(clip_id))
    client.delete(clip_key(clip_id), frames_key(clip_id))
    assert store.record(clip_id) is None
    assert store.restore(published)
    assert not store.restore(published)
    assert store.record(clip_id) == published
    assert client.hlen(frames_key(clip_id)) == 2
    assert store.state(clip_id) is State.DONE


def test_an_acknowledged_write_survives_a_crash(tmp_path: Path, clip_id: str) -> None:
    with RedisServer(tmp_path) as server, connect(server.url) as client:
        stored = VerdictStore(client, ttl_s=TTL_S).finish(scored(clip_id))
        server.kill()
        with pytest.raises(redis.RedisError):
            VerdictStore(client, ttl_s=TTL_S).record(clip_id)
        server.start()
        assert VerdictStore(client, ttl_s=TTL_S).finish(scored(clip_id, probability=0.1)) == stored


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "one") as first, pytest.raises(ServiceError, match=str(first.port)):
        RedisServer(tmp_path / "two", first.port).start()


def test_an_unreachable_server_is_an_error() -> None:
    with connect(f"redis://127.0.0.1:{free_port()}") as client, pytest.raises(redis.ConnectionError):
        VerdictStore(client, ttl_s=1).record("any")


def test_a_lifetime_of_zero_is_refused(client: redis.Redis) -> None:
    with pytest.raises(ValueError, match="ttl_s"):
        VerdictStore(client, ttl_s=0)


def test_a_deleted_clip_is_unknown(store: VerdictStore, client: redis.Redis, clip_id: str) -> None:
    store.begin(clip_id)
    store.finish(scored(clip_id))
    client.hset(parts_key(clip_id), "0", "a part")
    store.delete(clip_id)
    assert not client.exists(clip_key(clip_id), frames_key(clip_id), parts_key(clip_id))
    assert store.begin(clip_id).attempt == 1
    store.delete(clip_id)
    store.delete(clip_id)
