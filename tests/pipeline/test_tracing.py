"""Spans, what they carry, and what their absence costs; see tests/web/workers/test_traces.py for whole traces."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from pipeline import tracing
from pipeline.logs import configure_logging
from pipeline.scoring.engine import Engine
from pipeline.stage_times import StageTimes
from pipeline.telemetry import HealthServer, Metrics
from tests.pipeline.quick import SPEC, QuickNetwork
from tests.spans import Spans, collected

ROOT = Path(__file__).resolve().parents[2]
FOREIGN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(scope="module")
def spans() -> Iterator[Spans]:
    pytest.importorskip("opentelemetry.sdk.trace")
    with collected() as found:
        yield found


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"OTEL_SERVICE_NAME": "a"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, "otlp"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, "otlp"),
        ({"OTEL_TRACES_EXPORTER": "console"}, "console"),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, None),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, None),
    ],
)
def test_traces_are_asked_for_by_the_sdks_variables(
    variables: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert tracing.wanted() == expected


def test_without_traces_messages_and_records_are_as_before() -> None:
    if tracing.is_on():  # another test of this process has turned them on
        pytest.skip("traces are on")
    headers = [("traceparent", b"00-a-b-01"), ("other", None), ("tracestate", b"")]
    with tracing.exporting("unmask-test"), tracing.span("outer", {"a": 1}) as span, tracing.continuing("{}"):
        assert not span.is_traced
        assert tracing.inject(headers) == headers
        assert tracing.http_headers() == {}
        assert (tracing.carry(), tracing.place(), tracing.exemplar(), tracing.ids()) == (None, None, None, None)
        StageTimes().trace()
        tracing.note({"a": 1}, error="b")


def test_a_missing_extra_is_a_warning(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(tracing, "find_spec", lambda name: None)
    configure_logging(as_json=True)
    before = tracing.is_on()
    with tracing.exporting("unmask-test"):
        assert tracing.is_on() == before
    assert json.loads(capsys.readouterr().err)["expected"] == "unmask[otel]"


def test_an_unknown_exporter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    with pytest.raises(ValueError, match="expected otlp, console or none"), tracing.exporting("unmask-test"):
        pass
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(ValueError, match="http/protobuf"), tracing.exporting("unmask-test"):
        pass


def test_a_carried_trace_is_continued(spans: Spans) -> None:
    carried = [("traceparent", FOREIGN.encode()), ("tracestate", b"vendor=1"), ("baggage", b"name=somebody")]
    with tracing.span("first", carried=carried):
        stored = tracing.carry()
        sent = dict(tracing.inject([("schema", b"1"), ("traceparent", b"an older one"), ("baggage", b"kept")]))
    assert sent["schema"] == b"1"
    assert sent["baggage"] == b"kept"
    assert sent["tracestate"] == b"vendor=1"
    assert stored is not None
    assert json.loads(stored)["traceparent"].encode() == sent["traceparent"]
    # Another process, later.
    with tracing.continuing(stored), tracing.span("second"):
        pass
    first, second = spans.of_trace(int(FOREIGN[3:35], 16))
    assert second.parent.span_id == first.context.span_id
    assert first.parent.span_id == int(FOREIGN[36:52], 16)


@given(st.lists(st.tuples(st.sampled_from(["traceparent", "tracestate"]), st.none() | st.binary(max_size=60))))
def test_invalid_headers_begin_a_new_trace(spans: Spans, headers: list[tuple[str, bytes | None]]) -> None:
    with tracing.span("process", kind="consumer", carried=headers):
        assert dict(tracing.inject(headers))["traceparent"].startswith(b"00-")


@pytest.mark.parametrize(
    ("sampler", "carried", "flags"),
    [
        ("parentbased_always_on", FOREIGN, "01"),
        ("parentbased_always_on", f"{FOREIGN[:-2]}00", "00"),
        ("always_off", FOREIGN, "00"),
    ],
)
def test_the_sampler_decides_what_is_exported(
    sampler: str, carried: str, flags: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("opentelemetry.sdk.trace")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "desk")
    with collected() as own:
        with tracing.span("clip", carried=[("traceparent", carried.encode())]):
            batch = tracing.linked("score batch", [tracing.place()], {})
            batch.end()
            tracing.record("fetch", 0.0, 1.0, {})
            tracing.note({"unmask.outcome": "scored"})
            sent, exemplar = tracing.http_headers()["traceparent"], tracing.exemplar()
        found = own.all()
    # What is not sampled is carried on as such.
    assert (sent[3:35], sent[-2:]) == (FOREIGN[3:35], flags)
    assert (exemplar is not None) == batch.is_traced == (flags == "01")
    assert {span.name for span in found} == ({"clip", "fetch", "score batch"} if flags == "01" else set())
    assert {span.resource.attributes["service.name"] for span in found} <= {"desk"}


def test_an_error_is_named_by_its_class_only(spans: Spans) -> None:
    with pytest.raises(FileNotFoundError), tracing.span("failing", {"unmask.clip.id": "failing"}):
        raise FileNotFoundError("/srv/videos/somebody.mp4")
    (failed,) = spans.trace_of("failing", "failing")
    assert (failed.status.status_code.name, failed.attributes["error.type"]) == ("ERROR", "FileNotFoundError")
    assert "somebody" not in failed.to_json()


def test_a_batch_links_to_all_clips_that_it_served(spans: Spans) -> None:
    pixels = np.zeros((2, SPEC.size, SPEC.size, 3), np.uint8)
    waiting = []
    # The batch of four is full with the second clip; the time limit never ends it.
    with Engine(QuickNetwork(), max_delay_s=300.0) as engine:
        for clip in ("one", "two"):
            with tracing.span("process", {"unmask.clip.id": f"batch {clip}"}):
                waiting.append(engine.submit(pixels))
        for future in waiting:
            assert future.result(60).shape == (2,)
    served = {spans.trace_of(f"batch {clip}")[0].context.span_id for clip in ("one", "two")}
    (batch,) = (
        span
        for span in spans.all()
        if span.name == "score batch" and served <= {link.context.span_id for link in span.links}
    )
    assert len(batch.links) == 2
    assert batch.parent is None
    assert batch.attributes["unmask.crops"] == 4


def test_stages_are_children_of_the_clip(spans: Spans) -> None:
    with tracing.span("process", {"unmask.clip.id": "stages"}):
        times = StageTimes()
        for stage in ("decode", "faces", "queue", "decode", "faces", "queue", "score"):
            with times.timed(stage):
                pass
        times.counts.update(frames=2, faces=5, crops=3)
        more = StageTimes()
        with more.timed("open"):
            pass
        more.update(times)
        more.trace(size_bytes=7)
    process, *stages = spans.trace_of("stages", "process")
    assert {span.name for span in stages} == {"fetch", "decode", "faces", "score"}
    for span in stages:
        assert span.parent.span_id == process.context.span_id
        assert process.start_time <= span.start_time <= span.end_time <= process.end_time
    score = next(span for span in stages if span.name == "score")
    assert score.attributes["unmask.crops"] == 3


def test_logs_and_exemplars_name_the_trace(spans: Spans, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(as_json=True)
    metrics = Metrics()
    log = structlog.get_logger()
    with tracing.span("process", carried=[("traceparent", FOREIGN.encode())]):
        log.info("inside")
        metrics.clip_seconds.observe(0.15, tracing.exemplar())
        metrics.stage_seconds.labels("faces").observe(0.01, tracing.exemplar())
    log.info("outside")
    inside, outside = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert inside["trace_id"] == FOREIGN[3:35]
    assert len(inside["span_id"]) == 16
    assert "trace_id" not in outside
    with HealthServer(metrics, {}) as server:
        url = f"http://127.0.0.1:{server.port}/metrics"
        asked = urllib.request.Request(url, headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        with urllib.request.urlopen(asked, timeout=10) as answer:
            assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
            text = answer.read().decode()
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert FOREIGN[3:35] not in answer.read().decode()
    assert "unmask_clips" in {family.name for family in text_string_to_metric_families(text)}
    lines = text.splitlines()
    found = [line for line in lines if f'trace_id="{FOREIGN[3:35]}"' in line]
    assert [line.split(" # ")[0] for line in found] == [
        'unmask_clip_seconds_bucket{le="0.2"} 1.0',
        'unmask_stage_seconds_bucket{le="0.05",stage="faces"} 1.0',
    ]


# Clips of a process whose collector is away; in tests/e2e/test_traces.py it accepts connections and never answers.
LATE = """
from pipeline import tracing
with tracing.exporting("unmask-test"):
    assert tracing.is_on()
    for n in range(3000):
        with tracing.span("clip", {"unmask.clip.id": str(n)}):
            pass
    print("all judged", flush=True)
print("left")
"""


def test_a_collector_that_is_away_keeps_no_process() -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-c", LATE],
            env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_TIMEOUT": "3600"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert (done.returncode, done.stdout.split("\n")) == (0, ["all judged", "left", ""]), done.stderr
