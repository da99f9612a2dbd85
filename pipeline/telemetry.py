"""A worker's metrics, and its HTTP endpoints for metrics and health."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.openmetrics import exposition as openmetrics

from pipeline.contracts import Outcome, SourceClass
from pipeline.scoring.engine import EngineStats

# A tenth of a second to ten minutes: from a live segment to a part of a film.
_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
# A worker's loop runs five times a second, and waits for Kafka's answers in between.
_STALLED_S = 60.0
# Of the HTTP server: probes and a scraper need a few connections and answer at once.
_CONNECTIONS = 32
_HEAD_S = 5.0
_HEAD_BYTES = 8192


class _Renamed:
    """A counter under its name and, until the release after next, under its earlier one."""

    def __init__(self, *counters: Counter) -> None:
        self._counters = counters

    def inc(self) -> None:
        for counter in self._counters:
            counter.inc()


class Metrics:
    """The counters of one worker, for Prometheus."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.clips = Counter(
            "unmask_clips", "Clips that got their verdict.", ["outcome", "source_class"], registry=registry
        )
        self.video_seconds = Counter(
            "unmask_video_seconds", "Seconds of video that verdicts are about.", ["source_class"], registry=registry
        )
        self.clip_seconds = Histogram(
            "unmask_clip_seconds", "From taking a task to its published verdict.", buckets=_SECONDS, registry=registry
        )
        self.clip_age_seconds = Histogram(
            "unmask_clip_age_seconds", "From a task's submission to taking it.", buckets=_SECONDS, registry=registry
        )
        self.stage_seconds = Histogram(
            "unmask_stage_seconds", "Of a clip in each stage.", ["stage"], buckets=_SECONDS, registry=registry
        )
        self.retries = Counter("unmask_retries", "Tries of a clip beyond its first one.", registry=registry)
        self.duplicates = _Renamed(
            Counter("unmask_duplicates", "Clips whose content was judged before.", registry=registry),
            Counter("unmask_twins", "The earlier name of unmask_duplicates.", registry=registry),
        )
        self.handed_back = Counter(
            "unmask_handed_back", "Clips handed over to another worker before they were done.", registry=registry
        )
        self.oldest_s = Gauge(
            "unmask_oldest_message_seconds", "For how long the oldest message has been served.", registry=registry
        )
        self.left = Gauge(
            "unmask_left",
            "Messages that are left to other workers; no offset behind them is committed here.",
            registry=registry,
        )
        self.dead = Counter("unmask_dead_letters", "Messages sent to the dead letters.", ["stage"], registry=registry)
        self.decoder_deaths = Counter("unmask_decoder_deaths", "Decode children that were killed.", registry=registry)
        self.split = Counter("unmask_split", "Long videos that were judged in parts.", registry=registry)
        self.segments = Counter(
            "unmask_segments",
            "Live segments: applied, late (of these), duplicated, shed, failed, after_end.",
            ["what"],
            registry=registry,
        )
        self.segment_seconds = Histogram(
            "unmask_segment_seconds",
            "From a segment's arrival in Kafka to its running verdict, of those that were looked at.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.streams_ended = Counter("unmask_streams_ended", "Live streams that got their verdict.", registry=registry)
        self.in_flight = Gauge("unmask_tasks_in_flight", "Tasks that are taken and not done.", registry=registry)
        self.lag = Gauge(
            "unmask_lag_messages", "Messages that wait in this worker's partitions.", ["topic"], registry=registry
        )
        self.waiting_s = Gauge(
            "unmask_oldest_waiting_seconds",
            "How long the oldest message waits in this worker's partitions.",
            ["topic"],
            registry=registry,
        )
        self.batch_crops = Histogram(
            "unmask_batch_crops", "Crops in a batch.", buckets=(1, 2, 4, 8, 16, 32, 64), registry=registry
        )

        self.swaps = Counter("unmask_swaps", "Announced weights by result.", ["result"], registry=registry)
        for result in ("swapped", "canary", "refused", "failed"):
            self.swaps.labels(result)
        self.weights = Gauge("unmask_weights", "The weights in use: 1.", ["model", "sha256"], registry=registry)
        self.canary_alarms = Counter(
            "unmask_canary_alarms", "Canaries that this worker ended, since the arms differed.", registry=registry
        )
        self.shadow_crops = Gauge(
            "unmask_shadow_crops", "Live crops on which the last new weights were compared.", registry=registry
        )
        self.shadow_difference = Gauge(
            "unmask_shadow_difference",
            "Differences of P(fake) between the last new weights and those before: mean, p95, max.",
            ["stat"],
            registry=registry,
        )
        # A series that begins with its first event has no increase: alerts would not see that event.
        for source_class in SourceClass:
            self.video_seconds.labels(source_class)
            for outcome in Outcome:
                if outcome is not Outcome.SHED:
                    self.clips.labels(outcome, source_class)
        for stage in ("parse", "score", "publish"):
            self.dead.labels(stage)
        for what in ("applied", "shed", "failed"):
            self.segments.labels(what)
        self._weights_age = WeightsAge()
        registry.register(self._weights_age)

    def tell_weights(self, model: str, sha256: str, made_s: float | None) -> None:
        """Set which weights are in use from now on.

        Args:
            model: their name.
            sha256: theirs; of an ensemble, with commas between.
            made_s: when they were made, Unix seconds; None: unknown, and no age is reported.
        """
        self.weights.clear()
        self.weights.labels(model, sha256).set(1)
        self._weights_age.set(model, sha256, made_s)

    def watch_engine(self, stats: Callable[[], EngineStats]) -> None:
        """Collect an engine's counters whenever the metrics are read."""
        self.registry.register(_EngineCollector(stats))

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def open_metrics(self) -> bytes:
        """All metrics in the OpenMetrics format, which has exemplars: a trace for each bucket of a histogram."""
        text: bytes = openmetrics.generate_latest(self.registry)  # type: ignore[no-untyped-call]
        return text


class WeightsAge:
    """Collects `unmask_weights_age_seconds`: the age of the weights in use, as long as it is known."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._weights: tuple[str, str, float] | None = None

    def set(self, model: str, sha256: str, made_s: float | None) -> None:
        """These weights are in use from now on; see `Metrics.tell_weights`."""
        self._weights = None if made_s is None else (model, sha256, made_s)

    def collect(self) -> Iterator[Metric]:
        """The metric, without a value if the age is unknown."""
        weights = self._weights
        found = GaugeMetricFamily(
            "unmask_weights_age_seconds", "Time since the weights in use were made.", labels=["model", "sha256"]
        )
        if weights is not None:
            model, sha256, made_s = weights
            found.add_metric([model, sha256], max(0.0, self._clock() - made_s))
        yield found


class _EngineCollector:
    def __init__(self, stats: Callable[[], EngineStats]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        stats = self._stats()
        yield GaugeMetricFamily("unmask_engine_queue_crops", "Crops that wait for a batch.", stats.waiting)
        yield GaugeMetricFamily(
            "unmask_engine_queue_age_seconds", "How long the oldest waiting crop has waited.", stats.oldest_age_s
        )
        yield CounterMetricFamily("unmask_engine_crops", "Crops that were scored.", stats.crops)
        yield CounterMetricFamily("unmask_engine_batches", "Batches that were scored.", stats.batches)
        yield CounterMetricFamily("unmask_engine_failed_crops", "Crops that could not be scored.", stats.failed)


# The error of each part of the service, or None.
Checks = Mapping[str, Callable[[], str | None]]
# Further facts in `/readyz`; None is null.
Facts = Mapping[str, Callable[[], str | None]]


class _BoundedServer(ThreadingHTTPServer):
    """Answers so many connections at once; further ones are closed."""

    daemon_threads = True
    # Connections that wait to be accepted.
    request_queue_size = 128

    def __init__(self, *arguments: Any) -> None:
        self._free = threading.BoundedSemaphore(_CONNECTIONS)
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up or says nothing is no error of ours."""


def _read_head(connection: socket.socket) -> bytes:
    """The request's head: at most 8 KiB, within five seconds in all; empty where it does not come."""
    deadline = time.monotonic() + _HEAD_S
    head = b""
    while b"\r\n\r\n" not in head and len(head) < _HEAD_BYTES:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            part = connection.recv(_HEAD_BYTES - len(head))
        except OSError:
            return b""
        if not part or time.monotonic() > deadline:
            return b""
        head += part
    connection.settimeout(_HEAD_S)
    return head


class HealthServer:
    """`/healthz` (is the loop alive), `/readyz` (do model, Kafka and Redis answer) and `/metrics`; a context manager.

    Attributes:
        port: where it listens.
    """

    def __init__(
        self,
        metrics: Metrics,
        checks: Checks,
        *,
        facts: Facts | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Listen; port 0 picks a free one.

        Raises:
            OSError: the port is taken.
        """
        self._metrics, self._checks, self._facts, self._clock = metrics, checks, facts or {}, clock
        self._ticked_s = clock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def setup(self) -> None:
                super().setup()
                # The whole head within a time, not each of its bytes.
                self.rfile = io.BytesIO(_read_head(self.connection))

            def do_GET(self) -> None:
                status, kind, body = outer._answer(self.path.split("?", 1)[0], self.headers.get("Accept", ""))
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Do not log probes."""

        self._server = _BoundedServer((host, port), Handler)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()

    def tick(self) -> None:
        """Heartbeat: the worker's loop calls this in each turn."""
        self._ticked_s = self._clock()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, path: str, accept: str) -> tuple[HTTPStatus, str, bytes]:
        if path == "/metrics":
            if "application/openmetrics-text" in accept:
                return HTTPStatus.OK, openmetrics.CONTENT_TYPE_LATEST, self._metrics.open_metrics()
            return HTTPStatus.OK, CONTENT_TYPE_LATEST, self._metrics.text()
        if path == "/healthz":
            stalled_s = self._clock() - self._ticked_s
            alive = stalled_s < _STALLED_S
            body = (
                {"alive": alive} if alive else {"alive": False, "error": f"no sign of the loop for {stalled_s:.0f} s"}
            )
            return _json(alive, body)
        if path == "/readyz":
            found = {name: check() for name, check in self._checks.items()}
            ready = not any(found.values())
            facts = {name: fact() for name, fact in self._facts.items()}
            return _json(ready, {"ready": ready, **{name: error or "ok" for name, error in found.items()}, **facts})
        return HTTPStatus.NOT_FOUND, "text/plain", b"/healthz, /readyz or /metrics\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _json(good: bool, body: Mapping[str, object]) -> tuple[HTTPStatus, str, bytes]:
    status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
    return status, "application/json", json.dumps(body).encode() + b"\n"
