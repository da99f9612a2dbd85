"""Commands whose collector accepts connections and never answers."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from pipeline.contracts import Outcome, Verdict
from tests.e2e.service import Platform, until

pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
pytestmark = pytest.mark.slow


def test_a_collector_that_hangs_delays_no_verdict_and_keeps_no_process(one_face: Path, tmp_path: Path) -> None:
    with socket.socket() as hanging:
        hanging.bind(("127.0.0.1", 0))
        hanging.listen()
        address = f"http://127.0.0.1:{hanging.getsockname()[1]}"
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": address, "OTEL_EXPORTER_OTLP_TIMEOUT": "3600"}
        with Platform(tmp_path, **settings) as platform:
            worker = platform.start_worker()
            until(lambda: worker.ready)
            done = platform.unmask("submit", str(one_face))
            assert done.returncode == 0, done.stderr
            clip_id = done.stdout.rpartition("id: ")[2].strip()
            record = until(lambda: platform.stored([clip_id])[clip_id])
            assert Verdict.model_validate_json(record).outcome is Outcome.SCORED
            assert worker.leave() == 0
            (message,) = platform.records()[clip_id]
            assert message.header("traceparent").startswith("00-")
