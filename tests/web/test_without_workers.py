"""`unmask serve` in one process: what needs workers says so, and which settings choose them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.web.served import PATIENCE_S, Served
from tests.web.test_restart import SERVE
from web.keys import Role

KAFKA, REDIS = {"UNMASK_KAFKA": "127.0.0.1:1"}, {"UNMASK_REDIS": "redis://127.0.0.1:1/0"}


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("GET", "/a"), ("POST", "/a/segments?sequence=0&start_s=0")])
def test_streams_need_workers(served: Served, method: str, path: str) -> None:
    answer = served.client().request(method, f"/v1/streams{path}", content=None)
    assert (answer.status_code, answer.json()["code"]) == (409, "no_workers")


def test_the_page_has_no_streams(served: Served) -> None:
    with served.client(None) as browser:
        browser.post("/login", data={"key": served.key(Role.ADMIN)})
        assert "/streams" not in browser.get("/videos").text
        answer = browser.get("/streams")
        assert (answer.status_code, "this service has none" in answer.text) == (404, True)


@pytest.mark.parametrize(
    ("environment", "options", "reason"),
    [
        (KAFKA, [], "UNMASK_KAFKA is set and UNMASK_REDIS is not"),
        (REDIS, [], "UNMASK_REDIS is set and UNMASK_KAFKA is not"),
        (KAFKA | REDIS, ["--fps", "1"], "--fps: workers judge"),
    ],
)
def test_settings_that_do_not_fit_end_the_start(
    tmp_path: Path, environment: dict[str, str], options: list[str], reason: str
) -> None:
    command = [*SERVE, "--folder", str(tmp_path / "served"), *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 2
    assert reason in done.stderr
    assert not (tmp_path / "served").exists()
