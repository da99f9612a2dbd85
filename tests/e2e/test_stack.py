"""The local stack: start, stop, restart."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import redis

from deploy.local import stack
from deploy.local.services import ServiceError, kafka_jars
from pipeline.contracts import Topic
from pipeline.results.store import connect
from pipeline.transport.kafka import ensure_topics
from tests.conftest import required_service


def call(action: str, folder: Path) -> dict[str, str]:
    """The settings that stack.py prints."""
    command = [sys.executable, stack.__file__, action, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    lines = [line.removeprefix("export ") for line in done.stdout.splitlines() if line.startswith("export ")]
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.slow
def test_the_stack_keeps_its_data_and_stops_completely(tmp_path: Path) -> None:
    with required_service():
        kafka_jars()
    try:
        first = call("up", tmp_path)
        assert call("up", tmp_path) == first  # it runs already
        assert len(stack.running(tmp_path)) == 2
        assert set(ensure_topics(first["UNMASK_KAFKA"], partitions=1)) == set(Topic)
        with connect(first["UNMASK_REDIS"]) as client:
            client.set("kept", "yes")
        pids = [int(pid) for pid in json.loads((tmp_path / "pids.json").read_text())]
        call("down", tmp_path)
        assert not any(psutil.pid_exists(pid) for pid in pids)
        with pytest.raises(redis.ConnectionError), connect(first["UNMASK_REDIS"]) as client:
            client.ping()
        restarted = call("up", tmp_path)
        assert ensure_topics(restarted["UNMASK_KAFKA"]) == []
        with connect(restarted["UNMASK_REDIS"]) as client:
            assert client.get("kept") == b"yes"
    finally:
        call("down", tmp_path)
    assert stack.running(tmp_path) == []


def test_a_reused_pid_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "pids.json").write_text(json.dumps({str(psutil.Process().pid): 1.0}))
    assert stack.running(tmp_path) == []
    assert call("down", tmp_path) == {}


def test_a_missing_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServiceError, match=r"mvn; deploy/local/packages\.sh"):
        kafka_jars(tmp_path / "none")
