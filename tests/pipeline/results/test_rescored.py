"""Rescored verdicts in a real Redis: the first one of a run is kept, and deleted with the run or the clip."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
import redis

from pipeline.contracts import Outcome, rescore_key, rescores_key
from pipeline.results.rescored import RescoredStore
from pipeline.results.store import VerdictStore, connect
from tests.pipeline.records import record


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        yield client


@pytest.fixture
def clip_id() -> str:
    return f"test-{uuid.uuid4()}"


def test_the_first_verdict_of_a_run_is_kept(client: redis.Redis, clip_id: str) -> None:
    store = RescoredStore(client, ttl_s=600)
    first, later = record(id=clip_id, probability=0.93), record(id=clip_id, probability=0.1)
    assert store.keep("a", first) == first.to_json().encode()
    assert store.keep("a", later) == store.record("a", clip_id) == first.to_json().encode()
    assert store.keep("b", later) == later.to_json().encode()
    assert client.hgetall(rescore_key("a", clip_id)) == {
        b"outcome": b"scored",
        b"label": b"fake",
        b"probability": b"0.93",
        b"verdict": first.to_json().encode(),
    }
    assert client.smembers(rescores_key(clip_id)) == {b"a", b"b"}
    assert all(0 < client.ttl(key) <= 600 for key in (rescore_key("a", clip_id), rescores_key(clip_id)))
    failed = record(id=clip_id, outcome=Outcome.NO_FACE)
    store.keep("c", failed)
    assert client.hmget(rescore_key("c", clip_id), "label", "probability") == [b"", b""]


def test_runs_and_clips_are_deleted_by_themselves(client: redis.Redis, clip_id: str) -> None:
    store, other = RescoredStore(client, ttl_s=600), f"{clip_id}-2"
    for run in ("a", "b"):
        for each in (clip_id, other):
            store.keep(run, record(id=each))
    store.drop("a", [clip_id, other, "unknown"])
    assert (store.record("a", clip_id), store.record("b", clip_id) is not None) == (None, True)
    assert client.smembers(rescores_key(clip_id)) == {b"b"}
    # All that is stored of a clip.
    VerdictStore(client, ttl_s=600).delete(clip_id)
    assert not client.exists(rescore_key("b", clip_id), rescores_key(clip_id))
    assert store.record("b", other) is not None
    store.delete(other)
    assert not client.exists(rescore_key("b", other), rescores_key(other))
