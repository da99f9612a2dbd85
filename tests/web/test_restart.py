"""A service that is killed: what it accepted is judged after its next start."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.web.served import PATIENCE_S, until

SERVE = (sys.executable, "-c", "from pipeline.cli import main; main()", "serve", "--port", "0")
COMMAND = (*SERVE, "--workers", "1")


@dataclass(frozen=True, slots=True)
class Process:
    """A service in a process of its own."""

    process: subprocess.Popen[str]
    client: httpx.Client
    key: str

    def ids(self, **query: str) -> list[str]:
        """Of the listed videos, the oldest first."""
        found = self.client.get("/v1/videos", params={"sort": "created", "limit": "200", **query}).json()
        return [video["id"] for video in found["videos"]]


@contextmanager
def started(
    folder: Path, key: str | None = None, command: Sequence[str] = COMMAND, **settings: str
) -> Iterator[Process]:
    process = subprocess.Popen(
        [*command, "--folder", str(folder)], stdout=subprocess.PIPE, text=True, env=os.environ | settings
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            key = found[0] if (found := re.search(r"unmask_\w{10}_[\w-]{43}", line)) else key
            if address := re.match(r"(http://\S+)  files in", line):
                break
        else:
            raise AssertionError("the service did not start")
        assert key is not None
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=address[1], headers=headers, timeout=PATIENCE_S) as client:
            until(lambda: answers(client))
            yield Process(process, client, key)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.slow
def test_nothing_accepted_is_lost_by_kill_9(tmp_path: Path, three_faces: Path) -> None:
    content = three_faces.read_bytes()
    accepted: list[str] = []
    key: str | None = None
    for _ in range(3):
        with started(tmp_path / "served", key) as service:
            key = service.key
            for _ in range(4):
                made = service.client.post("/v1/videos", content=content)
                assert made.status_code == 202, made.text
                accepted.append(made.json()["id"])
            done = len(service.ids(state="done"))
            until(lambda service=service, done=done: len(service.ids(state="done")) > done)  # type: ignore[misc]
            service.client.post(f"/v1/videos/{service.ids(state='done')[0]}/decisions", json={"decision": "fake"})
            os.kill(service.process.pid, signal.SIGKILL)
    with started(tmp_path / "served", key) as service:
        assert service.ids() == accepted
        until(lambda: service.ids(state="done") == accepted)
        found = [service.client.get(f"/v1/videos/{id_}").json() for id_ in accepted]
        assert {video["outcome"] for video in found} == {"scored"}
        assert len({video["probability"] for video in found}) == 1
        assert [each["decision"] for each in found[0]["decisions"] if each["undone_at"] is None] == ["fake"]
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(PATIENCE_S) == 0
    files = {path.name for path in (tmp_path / "served/media").rglob("*") if path.is_file()}
    assert files == set(accepted)


def test_a_port_that_is_taken_ends_the_start(tmp_path: Path) -> None:
    with started(tmp_path / "one") as service:
        port = str(service.client.base_url.port)
        command = [*COMMAND, "--folder", str(tmp_path / "two"), "--port", port]
        second = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert second.returncode == 2
    assert f"port {port} cannot be listened on" in second.stderr
    assert not (tmp_path / "two").exists()
