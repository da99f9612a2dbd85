"""Spans by the OpenTelemetry SDK (extra `otel`). Only `pipeline.tracing` imports this, where traces are exported.

Attributes follow the semantic conventions 1.44.0 of OpenTelemetry; those of messaging are still in development there.
The SDK's global provider stays untouched: other libraries of the process add no spans.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, Final

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

Value = str | bool | int | float
Attributes = Mapping[str, Value]

_SCHEMA: Final = "https://opentelemetry.io/schemas/1.44.0"
# What is still queued at the end is sent within this time, or dropped.
_LEAVE_S: Final = 5.0


class OtelSpan:
    """A span that ends once."""

    is_traced = True

    def __init__(self, span: Any) -> None:
        self._span = span

    def rename(self, name: str) -> None:
        """Give the span the name that is known now."""
        self._span.update_name(name)

    def set(self, attributes: Attributes) -> None:
        """Add attributes."""
        self._span.set_attributes(attributes)

    def fail(self, kind: str) -> None:
        """Mark the span as failed; `kind` is a class of errors, never their text, which may name files."""
        self._span.set_attribute("error.type", kind)
        self._span.set_status(Status(StatusCode.ERROR))

    def end(self) -> None:
        """The span ends now."""
        self._span.end()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Spans that begin in the block, on this thread or task, are children of this one."""
        token = contexts.attach(trace.set_span_in_context(self._span))
        try:
            yield
        finally:
            contexts.detach(token)


class OtelTracer:
    """Makes the spans of a process. Thread-safe.

    Args:
        service: `service.name`, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES set it.
        exporter: sends spans, on a thread of its own, from a bounded queue.
    """

    def __init__(self, service: str, exporter: SpanExporter) -> None:
        release = version("unmask")
        # Sampler, queue and resource come from the SDK's own variables. At the end comes `close`, which has a limit.
        self._provider = TracerProvider(resource=_resource(service, release), shutdown_on_exit=False)
        self._exporter = exporter
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("unmask", release, schema_url=_SCHEMA)
        # Not the propagators of OTEL_PROPAGATORS: baggage may hold anything, and is in no contract.
        self._propagator = TraceContextTextMapPropagator()

    def begin(
        self,
        name: str,
        kind: str,
        carried: Mapping[str, str],
        links: Iterable[SpanContext],
        attributes: Attributes,
        *,
        is_root: bool = False,
    ) -> OtelSpan:
        """Begin a span: child of the active one, else of the carried one, else the first of a new trace.

        Servers and consumers have no active one: uvicorn begins the next request of a connection within the one before.

        Args:
            name: of few different values.
            kind: of `SpanKind`, in lower case.
            carried: `traceparent` and `tracestate`; invalid ones are ignored.
            links: to spans of other traces.
            attributes: known from the start.
            is_root: a new trace in any case.
        """
        is_entry = is_root or kind in ("server", "consumer")
        parent = contexts.Context() if is_entry else contexts.get_current()
        if carried and not trace.get_current_span(parent).get_span_context().is_valid:
            parent = self._propagator.extract(carried, parent)
        found = [Link(context) for context in links]
        return OtelSpan(self._tracer.start_span(name, parent, SpanKind[kind.upper()], dict(attributes), links=found))

    def record(self, name: str, began_s: float, ended_s: float, attributes: Attributes) -> None:
        """A child of the active span that is over already.

        Args:
            name: of the span.
            began_s: as `time.perf_counter` gives it.
            ended_s: likewise.
            attributes: of the span.
        """
        now_ns, now_s = time.time_ns(), time.perf_counter()
        began_ns, ended_ns = (now_ns - round((now_s - at_s) * 1e9) for at_s in (began_s, ended_s))
        # The two clocks drift apart by microseconds; a child never begins before its parent.
        began_ns = max(began_ns, getattr(trace.get_current_span(), "start_time", None) or began_ns)
        span = self._tracer.start_span(name, attributes=dict(attributes), start_time=began_ns)
        span.end(max(began_ns, min(ended_ns, now_ns)))

    def headers(self) -> dict[str, str]:
        """`traceparent` and, if it has values, `tracestate` of the active span; empty without one."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier

    @contextmanager
    def continuing(self, carried: Mapping[str, str]) -> Iterator[None]:
        """In the block, the carried span is the active one."""
        token = contexts.attach(self._propagator.extract(carried, contexts.get_current()))
        try:
            yield
        finally:
            contexts.detach(token)

    def active(self) -> OtelSpan | None:
        """The active span; None without one."""
        span = trace.get_current_span()
        return OtelSpan(span) if span.get_span_context().is_valid else None

    def place(self) -> SpanContext | None:
        """The context of the active span if it is sampled: others may link to it."""
        context = trace.get_current_span().get_span_context()
        return context if context.is_valid and context.trace_flags.sampled else None

    def ids(self) -> tuple[str, str] | None:
        """Ids of trace and span, in hex, if there is an active span."""
        context = trace.get_current_span().get_span_context()
        if not context.is_valid:
            return None
        return trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)

    def flush(self) -> None:
        """Send what is queued, and wait for it."""
        self._provider.force_flush()

    def close(self) -> None:
        """Send what is queued, for five seconds at most: a collector that is away must not keep a process."""
        # The processor's own limit is 30 s, and an export under way ends by its own time limit only.
        leaving = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        leaving.start()
        leaving.join(_LEAVE_S)
        if leaving.is_alive():
            # Ends the wait between two tries of an export.
            self._exporter.shutdown()


def _resource(service: str, release: str) -> Resource:
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    own: dict[str, Any] = {"service.version": release}
    return Resource.create(own if named else {"service.name": service, **own})


def exporter_of(name: str) -> SpanExporter:
    """The exporter of this name, as OTEL_TRACES_EXPORTER has it.

    Raises:
        ValueError: Unmask has no such exporter.
    """
    if name == "console":
        import sys

        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        # Standard output may be the result of a command.
        return ConsoleSpanExporter(out=sys.stderr)
    if name == "otlp":
        protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        if protocol not in (None, "", "http/protobuf"):
            raise ValueError(f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol}: Unmask exports traces by http/protobuf")
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter()
    raise ValueError(f"OTEL_TRACES_EXPORTER={name}: expected otlp, console or none")
