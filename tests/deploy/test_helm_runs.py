"""Service and worker as the Helm chart starts them: its arguments, its variables and nothing else, with its probes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from deploy.local.services import free_port
from tests.conftest import required_service
from tests.deploy.helm_chart import containers, environment, of_kind, render
from tests.e2e.service import PATIENCE_S, UNMASK, Platform

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with required_service():
        started = Platform(tmp_path_factory.mktemp("chart")).__enter__()
    try:
        yield started
    finally:
        started.__exit__()


class Started:
    """A container's process. Only addresses, ports and folders of a cluster are replaced by those of this machine."""

    def __init__(self, container: Mapping[str, Any], folder: Path, port: int) -> None:
        folder.mkdir()
        self.container, self.url, self.log = container, f"http://127.0.0.1:{port}", folder / "log"
        here = {
            "UNMASK_CACHE": str(folder / "cache"),
            "UNMASK_HTTP_HOST": "127.0.0.1",
            "UNMASK_HTTP_PORT": str(port),
            "UNMASK_SERVE_FOLDER": str(folder / "data"),
        }
        given = environment(container)
        variables = {name: here.get(name, value) for name, value in given.items()}
        arguments = [
            {"--host=0.0.0.0": "--host=127.0.0.1", "--port=8400": f"--port={port}"}.get(argument, argument)
            for argument in container["args"]
        ]
        machine = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [UNMASK, *arguments],
                env={**machine, "HOME": str(folder), **variables},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def passes(self, probe: str) -> bool:
        path = self.container[probe]["httpGet"]["path"]
        try:
            return httpx.get(f"{self.url}{path}", timeout=5, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def wait(self) -> None:
        """Until it has started, as its probe sees it."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.passes("startupProbe"):
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            assert time.monotonic() < deadline, self.log.read_text()[-2000:]
            time.sleep(0.2)

    def stop(self, grace_s: float) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(grace_s)


def test_an_upload_is_judged_by_service_and_worker_of_the_chart(
    platform: Platform, one_face: Path, tmp_path: Path
) -> None:
    web_port = free_port()
    found = render(
        {
            "kafka": {"bootstrap": platform.kafka.bootstrap},
            "redis": {"url": platform.redis.url},
            "networkPolicy": {
                "kafka": {"ports": [int(platform.kafka.bootstrap.rsplit(":", 1)[1])]},
                "redis": {"ports": [urlsplit(platform.redis.url).port]},
            },
            "web": {"url": f"http://127.0.0.1:{web_port}", "keepDays": {"upload": 30}},
            "workers": {"cpu": {"env": {"UNMASK_WORKERS": "1", "UNMASK_BACKEND": "openvino"}}},
        }
    )
    pods = {name: each["spec"]["template"] for name, each in of_kind(found, "Deployment").items()}
    (web,), (worker,) = containers(pods["unmask-web"]), containers(pods["unmask-worker-cpu"])
    started: list[Started] = []
    try:
        started.append(Started(web, tmp_path / "web", web_port))
        started.append(Started(worker, tmp_path / "worker", free_port()))
        for each in started:
            each.wait()
        for each in started:
            assert each.passes("livenessProbe")
            assert each.passes("readinessProbe")
        key = re.search(r"shown this once: (\S+)", started[0].log.read_text())
        assert key is not None
        with httpx.Client(
            base_url=started[0].url, headers={"Authorization": f"Bearer {key[1]}"}, trust_env=False
        ) as client:
            with one_face.open("rb") as file:
                video = client.post("/v1/videos", files={"file": ("a.mp4", file)}).raise_for_status().json()
            deadline = time.monotonic() + PATIENCE_S
            while (answer := client.get(f"/v1/videos/{video['id']}").raise_for_status().json())["state"] != "done":
                assert time.monotonic() < deadline, answer
                time.sleep(0.2)
            assert client.get("/v1/metrics").status_code == 200
        assert answer["verdict"]["outcome"] == "scored", answer
        for pod, each in zip((pods["unmask-web"], pods["unmask-worker-cpu"]), started, strict=True):
            assert each.stop(pod["spec"]["terminationGracePeriodSeconds"]) == 0, each.log.read_text()[-2000:]
    finally:
        for each in started:
            each.process.kill()
            each.process.wait()
