"""Ids of clips; an interrupted submit loses nothing and sends little twice."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any, cast

import fsspec
import pytest
import redis

from pipeline.contracts import Outcome, SourceClass, State
from pipeline.results.store import VerdictStore, connect
from pipeline.sources import Source
from pipeline.submit import BATCH, Item, item_of, submit, watch
from pipeline.transport.kafka import Publisher, TransportError
from pipeline.transport.messages import VideoTask
from pipeline.video.window import Window
from tests.pipeline.records import record


def item_at(name: str) -> Item:
    return item_of(Source(name))


def test_a_file_keeps_its_id_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"one")
    first = item_at(str(path))
    assert first == item_at(f"file://{path}") == item_at(str(path))
    monkeypatch.chdir(tmp_path)
    assert item_at("a.mp4") == first
    assert first.uri == str(path)
    path.write_bytes(b"another")
    assert item_at(str(path)).id != first.id
    copy = tmp_path / "b.mp4"
    copy.write_bytes(b"another")
    assert item_at(str(copy)).id != item_at(str(path)).id


def test_each_part_of_a_file_has_its_own_id(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"one")
    parts = [None, Window(1.0), Window(1.0, 2.0), Window(0.0, 2.0)]
    items = [item_of(Source(str(path)), part) for part in parts]
    assert [item.part for item in items] == parts
    assert len({item.id for item in items}) == len(parts)


def test_a_missing_file_gets_an_id_too(tmp_path: Path) -> None:
    missing = item_at(str(tmp_path / "missing.mp4"))
    assert missing == item_at(str(tmp_path / "missing.mp4"))
    assert item_at("s3-nowhere://bucket/a.mp4").uri == "s3-nowhere://bucket/a.mp4"


def test_a_remote_file_is_identified_by_its_version() -> None:
    files = fsspec.filesystem("memory")
    files.pipe("/inbox/a.mp4", b"one")
    first = item_at("memory://inbox/a.mp4")
    assert first.uri == "memory://inbox/a.mp4"
    files.pipe("/inbox/a.mp4", b"two and more")
    assert item_at("memory://inbox/a.mp4").id != first.id


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(str(tmp_path)) + b"/\xff.mp4")
    with pytest.raises(ValueError, match="not UTF-8"):
        item_at(name)


class Line:
    """A fake of Kafka: keeps sent tasks, and fails on demand."""

    def __init__(self) -> None:
        self.sent: list[VideoTask] = []
        self.away_from = 10**9

    def submit(self, task: VideoTask) -> Line:
        if len(self.sent) >= self.away_from:
            raise TransportError("away")
        self.sent.append(task)
        return self

    def wait(self) -> None:
        """Acknowledged at once."""


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def store(redis_url: str) -> VerdictStore:
    client: redis.Redis = connect(redis_url)
    return VerdictStore(client, ttl_s=600)


def items(tmp_path: Path, count: int) -> list[Item]:
    return [item_at(str(tmp_path / f"{number}.mp4")) for number in range(count)]


def send(line: Line, store: VerdictStore, these: list[Item], **how: Any) -> tuple[int, int]:
    done = submit(these, publisher=cast(Publisher, line), store=store, source_class=SourceClass.ARCHIVE, **how)
    return done.sent, done.known


def test_known_clips_are_not_sent_again(line: Line, store: VerdictStore, tmp_path: Path) -> None:
    these = items(tmp_path, 3)
    assert send(line, store, these) == (3, 0)
    assert send(line, store, [*these, *items(tmp_path, 4)[3:]]) == (1, 3)
    assert len({task.video_id for task in line.sent}) == len(line.sent) == 4
    assert [found and found[0] for found in store.states([item.id for item in these])] == [State.QUEUED] * 3


def test_an_interrupted_call_can_continue(line: Line, store: VerdictStore, tmp_path: Path) -> None:
    these = items(tmp_path, BATCH + 20)
    line.away_from = BATCH + 10
    counts: list[int] = []
    with pytest.raises(TransportError):
        send(line, store, these, sent=counts.append)
    assert counts == [BATCH]
    line.away_from = 10**9
    assert send(line, store, these) == (20, BATCH)
    # Ten were in flight when it failed: sent twice, never lost.
    sent = Counter(task.video_id for task in line.sent)
    assert set(sent) == {item.id for item in these}
    assert sum(count > 1 for count in sent.values()) == 10


def test_watching_ends_when_all_are_done(store: VerdictStore, tmp_path: Path) -> None:
    first, second, third = (item.id for item in items(tmp_path / "watched", 3))
    store.queue(first)
    store.begin(second)
    outcomes: list[Outcome] = []
    seen = []
    for counts in watch([first, second, third], store, on_done=outcomes.append, sleep=lambda seconds: None):
        seen.append(dict(counts))
        if len(seen) == 1:
            store.finish(record(id=first))
        elif len(seen) == 2:
            store.finish(record(id=second, outcome=Outcome.NO_FACE))
            store.finish(record(id=third))
    assert seen == [{"queued": 1, "running": 1, "unknown": 1}, {"running": 1, "unknown": 1}, {}]
    assert sorted(outcomes) == sorted([Outcome.SCORED, Outcome.NO_FACE, Outcome.SCORED])
