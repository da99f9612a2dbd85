"""Health reports the current state."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack, suppress
from http.client import HTTPException

import pytest

from pipeline.telemetry import HealthServer, Metrics


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_stalled_loop_is_not_alive() -> None:
    now = [0.0]
    with HealthServer(Metrics(), {}, clock=lambda: now[0]) as server:
        assert get(server.port, "/healthz")[0] == 200
        now[0] = 59.0
        server.tick()
        now[0] = 118.0
        assert get(server.port, "/healthz")[0] == 200
        now[0] = 120.0
        status, body = get(server.port, "/healthz")
    assert status == 503
    assert json.loads(body)["error"] == "no sign of the loop for 61 s"


def test_readyz_names_what_is_not_ready() -> None:
    wrong: dict[str, str | None] = {"kafka": None, "redis": "ConnectionError"}
    checks: dict[str, Callable[[], str | None]] = {name: (lambda name=name: wrong[name]) for name in wrong}  # type: ignore[misc]
    with HealthServer(Metrics(), checks) as server:
        status, body = get(server.port, "/readyz?verbose")
        assert (status, json.loads(body)) == (503, {"ready": False, "kafka": "ok", "redis": "ConnectionError"})
        wrong["redis"] = None
        assert get(server.port, "/readyz")[0] == 200
        assert get(server.port, "/elsewhere")[0] == 404


def test_metrics_are_prometheus_text() -> None:
    metrics = Metrics()
    metrics.clips.labels("scored", "upload").inc(3)
    with HealthServer(metrics, {}) as server:
        status, text = get(server.port, "/metrics")
    assert status == 200
    assert 'unmask_clips_total{outcome="scored",source_class="upload"} 3.0' in text


def test_the_age_of_the_weights_is_reported_where_it_is_known() -> None:
    metrics = Metrics()
    metrics.tell_weights("mine", "a,b", time.time() - 3600)
    (line,) = [each for each in metrics.text().decode().splitlines() if each.startswith("unmask_weights_age_seconds{")]
    assert line.startswith('unmask_weights_age_seconds{model="mine",sha256="a,b"} ')
    assert float(line.rsplit(" ", 1)[1]) == pytest.approx(3600, abs=60)
    metrics.tell_weights("other", "c", None)
    assert "unmask_weights_age_seconds{" not in metrics.text().decode()


def test_connections_that_say_nothing_are_closed_and_bounded() -> None:
    with HealthServer(Metrics(), {}) as server, ExitStack() as stack:
        before = threading.active_count()
        for _ in range(200):
            silent = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 10))
            with suppress(OSError):  # it may be closed already
                silent.send(b"GET /healthz HTTP/1.1\r\nHost:")
        assert threading.active_count() <= before + 32

        def answers() -> bool:
            with suppress(OSError, HTTPException):
                return get(server.port, "/healthz")[0] == 200
            return False

        deadline = time.monotonic() + 60
        while not answers():
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_a_renamed_metric_keeps_its_earlier_name() -> None:
    metrics = Metrics()
    metrics.duplicates.inc()
    for name in ("unmask_duplicates_total", "unmask_twins_total"):
        assert metrics.registry.get_sample_value(name) == 1


def test_a_port_in_use_is_an_error() -> None:
    with HealthServer(Metrics(), {}) as server, pytest.raises(OSError, match="in use"):
        HealthServer(Metrics(), {}, port=server.port)
