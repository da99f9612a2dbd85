"""The recipes of docs/operations.md by which Redis and Kafka are copied and restored."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from deploy.local.services import KafkaServer, RedisServer, kafka_jars
from pipeline.contracts import Topic, clip_key
from pipeline.results.store import VerdictStore, connect
from pipeline.transport.history import read_topic
from pipeline.transport.kafka import Publisher, ensure_topics
from tests.conftest import required_service
from tests.deploy.images import ROOT
from tests.pipeline.records import record


def recipe(name: str) -> str:
    """The shell lines of docs/operations.md between two comments with this name."""
    text = (ROOT / "docs" / "operations.md").read_text()
    (found,) = re.findall(rf"    # {name}\n(.*?)    # end\n", text, flags=re.DOTALL)
    return "\n".join(line.removeprefix("    ") for line in found.splitlines())


def sh(script: str, **variables: str | Path) -> None:
    names = {"PATH": "/usr/local/bin:/usr/bin:/bin", **{name: str(value) for name, value in variables.items()}}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], env=names, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_redis_is_copied_while_it_is_written_and_restored_with_its_log(tmp_path: Path) -> None:
    if shutil.which("redis-cli") is None:
        pytest.skip("no redis-cli")
    with required_service():
        first = RedisServer(tmp_path / "first")
        first.start()
    try:
        with connect(first.url) as client:
            store, stop = VerdictStore(client, ttl_s=600), threading.Event()
            kept = {f"clip-{number}": store.finish(record(id=f"clip-{number}")) for number in range(200)}
            client.set("unmask:model:active", "announced")

            def write() -> None:
                number = 200
                while not stop.is_set():
                    store.finish(record(id=f"clip-{number}"))
                    number += 1

            writing = threading.Thread(target=write)
            writing.start()
            try:
                sh(recipe("copy of Redis"), PORT=str(first.port), COPY=tmp_path / "redis.rdb")
            finally:
                stop.set()
                writing.join()
    finally:
        first.stop()

    second = RedisServer(tmp_path / "second")
    sh(recipe("restored Redis"), PORT=str(second.port), COPY=tmp_path / "redis.rdb", FOLDER=second.folder)
    # As it is always started: with its append-only file, which the recipe has made of the copy.
    for _ in range(2):
        second.start()
        try:
            with connect(second.url) as client:
                store = VerdictStore(client, ttl_s=600)
                assert {clip: store.record(clip) for clip in kept} == kept
                assert client.get("unmask:model:active") == b"announced"
                assert client.ttl(clip_key("clip-0")) > 0
                store.finish(record(id="after"))
        finally:
            second.kill()
    second.start()
    try:
        with connect(second.url) as client:
            assert VerdictStore(client, ttl_s=600).record("after") is not None
    finally:
        second.stop()


@pytest.mark.slow
def test_kafka_is_copied_when_it_is_stopped_and_restored_with_its_offsets(tmp_path: Path) -> None:
    with required_service():
        jars = kafka_jars()
        first = KafkaServer(tmp_path / "first", jars)
        first.start()
    try:
        ensure_topics(first.bootstrap, partitions=2, replicas=1)
        with Publisher(first.bootstrap) as publisher:
            for number in range(50):
                publisher.verdict(record(id=f"clip-{number}").to_json().encode(), f"clip-{number}").wait()
        published = [(m.partition, m.offset, m.value) for m in read_topic(first.bootstrap, Topic.VERDICTS)]
    finally:
        first.stop()
    sh(recipe("copy of Kafka"), DATA=tmp_path / "first" / "data", COPY=tmp_path / "kafka.tar")
    second = KafkaServer(tmp_path / "second", jars)
    sh(recipe("restored Kafka"), DATA=tmp_path / "second" / "data", COPY=tmp_path / "kafka.tar")
    second.start()
    try:
        found = [(m.partition, m.offset, m.value) for m in read_topic(second.bootstrap, Topic.VERDICTS)]
        assert sorted(found) == sorted(published)
        assert len(found) == 50
        # It goes on behind them.
        with Publisher(second.bootstrap) as publisher:
            publisher.verdict(b"{}", "clip-0").wait()
        assert sum(1 for _ in read_topic(second.bootstrap, Topic.VERDICTS)) == 51
    finally:
        second.stop()
