"""Workers that stop or die: no task is lost, and no clip is blamed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.contracts import Outcome, State, Topic, Verdict
from pipeline.results.store import VerdictStore
from pipeline.transport.consumer import TaskConsumer
from pipeline.transport.kafka import Publisher
from pipeline.types import Floats, Image
from pipeline.worker.message import Service
from tests import media
from tests.pipeline.quick import QuickNetwork
from tests.pipeline.worker.serving import TIMEOUT_S, committed_to_the_end, judged, published, serving, task, until


def test_a_clip_that_kills_its_workers_is_given_up(
    one_face: Path,
    bootstrap: str,
    service: Callable[[TaskConsumer], Service],
    publisher: Publisher,
    store: VerdictStore,
) -> None:
    asked = task(one_face, sampling="frames=2")
    # Three workers began it, and none came back.
    for _ in range(3):
        store.begin(asked.video_id)
    heard: list[Verdict] = []
    with serving(bootstrap, lambda consumer: replace(service(consumer), judged=heard.append)):
        verdict = judged(asked, publisher, store)
        (message,) = until(lambda: published(bootstrap, Topic.DEAD, asked.video_id))
    assert verdict.outcome is Outcome.MODEL_ERROR
    assert "given up after 3 tries" in (verdict.error or "")
    assert message.header("attempts") == "3"
    assert heard == [verdict], "it counts for the weights that it killed workers with"


def test_a_stopped_worker_hands_its_task_back_to_the_next_one(
    root: Path,
    bootstrap: str,
    network: QuickNetwork,
    service: Callable[[TaskConsumer], Service],
    publisher: Publisher,
    store: VerdictStore,
) -> None:
    path = root / "long.mp4"
    media.make_clip(path, seconds=2, seed=9)
    asked = task(path, sampling="every=2")
    began, go_on = threading.Event(), threading.Event()
    original = network.log_odds

    def slow(pixels: Image) -> Floats:
        began.set()
        go_on.wait(TIMEOUT_S)
        return original(pixels)

    network.log_odds = slow
    try:
        with serving(bootstrap, service) as worker:
            publisher.submit(asked).wait()
            assert began.wait(TIMEOUT_S)
            worker.stop()
            go_on.set()
    finally:
        network.log_odds = original
    assert store.record(asked.video_id) is None
    assert store.state(asked.video_id) is State.QUEUED
    with serving(bootstrap, service):
        until(lambda: store.record(asked.video_id))
    until(lambda: committed_to_the_end(bootstrap))


def test_a_draining_worker_finishes_its_running_task(
    root: Path, bootstrap: str, service: Callable[[TaskConsumer], Service], publisher: Publisher, store: VerdictStore
) -> None:
    path = root / "drained.mp4"
    media.make_clip(path, seconds=2, seed=10)
    asked = task(path, sampling="every=2")
    with serving(bootstrap, service):
        publisher.submit(asked).wait()
        until(lambda: store.state(asked.video_id) is State.RUNNING or store.record(asked.video_id))
    assert store.record(asked.video_id)
    assert committed_to_the_end(bootstrap)


def test_a_record_too_large_to_publish_is_over_the_limit(
    root: Path,
    bootstrap: str,
    service: Callable[[TaskConsumer], Service],
    publisher: Publisher,
    store: VerdictStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.worker.video.MAX_RECORD_BYTES", 1500)
    path = root / "many_faces.mp4"
    media.make_clip(path, seconds=2, seed=11)
    with serving(bootstrap, lambda consumer: replace(service(consumer), max_attempts=1)):
        verdict = judged(task(path, sampling="every=2"), publisher, store)
    assert verdict.outcome is Outcome.OVER_LIMIT
    assert "sample fewer frames" in (verdict.error or "")
    assert verdict.frames == []
