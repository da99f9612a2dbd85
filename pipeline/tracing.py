"""Traces: spans of what happens to a clip, in one trace from its submission to its webhook.

Without the extra `otel`, or without a variable that asks for traces, nothing of OpenTelemetry is imported, and each
function here returns after one comparison. Which process exports is set once, at its start, like where it logs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

if TYPE_CHECKING:
    from pipeline.otel import OtelTracer

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attributes = Mapping[str, str | bool | int | float]
# Of Kafka; a null header has None.
Headers = Iterable[tuple[str, bytes | None]]

# W3C Trace Context.
TRACE_HEADERS: Final = frozenset({"traceparent", "tracestate"})
_ASKED: Final = ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PACKAGES: Final = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")

_tracer: OtelTracer | None = None


class Span(Protocol):
    """Something that takes time. `end` it once; `span` does so by itself."""

    @property
    def is_traced(self) -> bool:
        """Whether traces are on."""

    def rename(self, name: str) -> None:
        """Give it the name that is known now."""

    def set(self, attributes: Attributes) -> None:
        """Add attributes: no personal data, no names of files, no URIs."""

    def fail(self, kind: str) -> None:
        """Mark it as failed; `kind` is a class of errors."""

    def end(self) -> None:
        """It ends now."""

    def active(self) -> AbstractContextManager[None]:
        """In the block, on this thread, spans that begin are its children."""


class _NoSpan:
    is_traced = False

    def rename(self, name: str) -> None:
        """Traces are off."""

    def set(self, attributes: Attributes) -> None:
        """Traces are off."""

    def fail(self, kind: str) -> None:
        """Traces are off."""

    def end(self) -> None:
        """Traces are off."""

    def active(self) -> AbstractContextManager[None]:
        """Traces are off."""
        return nullcontext()


NO_SPAN: Final[Span] = _NoSpan()


def wanted() -> str | None:
    """Name of the exporter that the environment asks for; None: traces are off."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if not any(os.environ.get(name) for name in _ASKED):
        return None
    name = os.environ.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    return None if name == "none" else name


@contextmanager
def exporting(service: str, exporter: Any = None) -> Iterator[None]:
    """In the block, this process exports its spans, if the environment asks for it and the extra is installed.

    Args:
        service: name of the process in traces.
        exporter: replaces that of the environment.

    Raises:
        ValueError: the environment names an exporter that Unmask does not have.
    """
    global _tracer
    name = wanted()
    if exporter is None and name is None:
        yield
        return
    if not _is_installed():
        import structlog

        structlog.get_logger(__name__).warning("no traces: the extra is not installed", expected="unmask[otel]")
        yield
        return
    from pipeline.otel import OtelTracer, exporter_of

    before = _tracer
    tracer = _tracer = OtelTracer(service, exporter_of(name or "otlp") if exporter is None else exporter)
    try:
        yield
    finally:
        _tracer = before
        tracer.close()


def _is_installed() -> bool:
    try:
        return all(find_spec(name) is not None for name in _PACKAGES)
    except ModuleNotFoundError:  # not even the package around it
        return False


def is_on() -> bool:
    """Whether this process exports spans."""
    return _tracer is not None


def begin(
    name: str,
    attributes: Attributes | None = None,
    *,
    kind: Kind = "internal",
    carried: Headers | str | None = None,
) -> Span:
    """Begin a span that another thread or a later step ends.

    Args:
        name: of few different values: no id.
        attributes: known from the start.
        kind: see OpenTelemetry's `SpanKind`.
        carried: the trace that it belongs to where no span is active: headers, or what `carry` gave.
    """
    if _tracer is None:
        return NO_SPAN
    return _tracer.begin(name, kind, _texts(carried), (), attributes or {})


@contextmanager
def span(
    name: str,
    attributes: Attributes | None = None,
    *,
    kind: Kind = "internal",
    carried: Headers | str | None = None,
) -> Iterator[Span]:
    """The block as a span; see `begin`. An exception marks it as failed."""
    if _tracer is None:
        yield NO_SPAN
        return
    made = begin(name, attributes, kind=kind, carried=carried)
    try:
        with made.active():
            yield made
    except BaseException as error:
        made.fail(type(error).__name__)
        raise
    finally:
        made.end()


def record(name: str, began_s: float, ended_s: float, attributes: Attributes) -> None:
    """A span that is over, below the active one; its times are those of `time.perf_counter`."""
    if _tracer is not None:
        _tracer.record(name, began_s, ended_s, attributes)


def note(attributes: Attributes, *, error: str | None = None) -> None:
    """Add attributes to the active span; `error` is a class of errors, and marks it as failed."""
    if _tracer is not None and (active := _tracer.active()) is not None:
        active.set(attributes)
        if error is not None:
            active.fail(error)


def inject(headers: Headers = ()) -> list[tuple[str, bytes | None]]:
    """These headers of a message, with those of the active span's trace; unchanged without a span."""
    if _tracer is None or not (own := _tracer.headers()):
        return list(headers)
    kept = [(name, raw) for name, raw in headers if name not in TRACE_HEADERS]
    return kept + [(name, text.encode()) for name, text in own.items()]


def http_headers() -> dict[str, str]:
    """The headers of an HTTP request that carry the active span's trace; empty without one."""
    return {} if _tracer is None else _tracer.headers()


def carry() -> str | None:
    """The active span's trace as text, to be stored with what goes on later; None without one."""
    own = http_headers()
    return json.dumps(own) if own else None


def continuing(carried: str | None) -> AbstractContextManager[None]:
    """In the block, spans and what is carried on belong to a stored trace."""
    return nullcontext() if _tracer is None or carried is None else _tracer.continuing(_texts(carried))


def place() -> Any:
    """Where others may link to: the active span, if it is sampled; else None."""
    return None if _tracer is None else _tracer.place()


def linked(name: str, places: Iterable[Any], attributes: Attributes) -> Span:
    """Begin a trace of its own with links to the places that are not None; nothing where all of them are."""
    if _tracer is None:
        return NO_SPAN
    found = {(each.trace_id, each.span_id): each for each in places if each is not None}
    if not found:
        return NO_SPAN
    return _tracer.begin(name, "internal", {}, found.values(), attributes, is_root=True)


def exemplar() -> dict[str, str] | None:
    """Labels of an exemplar that names the active span, if it is sampled."""
    return None if place() is None else ids()


def ids() -> dict[str, str] | None:
    """`trace_id` and `span_id` of the active span, in hex."""
    found = None if _tracer is None else _tracer.ids()
    return None if found is None else dict(zip(("trace_id", "span_id"), found, strict=True))


def flush() -> None:
    """Send the spans that have ended, and wait for it."""
    if _tracer is not None:
        _tracer.flush()


def _texts(carried: Headers | str | None) -> dict[str, str]:
    if carried is None:
        return {}
    if isinstance(carried, str):
        found: dict[str, str] = json.loads(carried)
        return found
    return {name: raw.decode("latin-1") for name, raw in carried if name in TRACE_HEADERS and raw is not None}
