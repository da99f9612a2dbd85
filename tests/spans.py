"""The spans of a test, and their tree as text."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline import tracing

PATIENCE_S = 120.0
# In the order of the conventions; the rest follows by name.
_SHOWN = ("messaging.message.body.size", "messaging.destination.partition.id", "http.response.status_code")


class Spans:
    """What this process exported: spans of the SDK, by trace."""

    def __init__(self, exporter: Any) -> None:
        self._exporter = exporter

    def all(self) -> list[Any]:
        tracing.flush()
        return list(self._exporter.get_finished_spans())

    def of_trace(self, trace_id: int) -> list[Any]:
        """By the time of their beginning."""
        return sorted((span for span in self.all() if span.context.trace_id == trace_id), key=lambda s: s.start_time)

    def trace_of(self, clip_id: str, *names: str) -> list[Any]:
        """The trace of the first span about this clip, once it has spans of these names."""
        end_s = time.monotonic() + PATIENCE_S
        while True:
            about = [span for span in self.all() if (span.attributes or {}).get("unmask.clip.id") == clip_id]
            found = self.of_trace(about[0].context.trace_id) if about else []
            if about and set(names) <= {span.name for span in found}:
                return found
            assert time.monotonic() < end_s, f"{names} not in {[span.name for span in found]}"
            threading.Event().wait(0.05)


@contextmanager
def collected() -> Iterator[Spans]:
    """In the block, this process exports its spans to memory."""
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    with tracing.exporting("unmask-test", exporter):
        yield Spans(exporter)


def tree(spans: list[Any]) -> str:
    """One line for each span, indented below its parent: kind, name, when it begins and how long it takes in ms."""
    first_ns = min(span.start_time for span in spans)
    ids = {span.context.span_id for span in spans}
    lines: list[str] = []

    def add(span: Any, depth: int) -> None:
        named = f"{'  ' * depth}{span.name}"
        facts = {name: value for name, value in (span.attributes or {}).items() if name.startswith("unmask.")}
        facts |= {name: span.attributes[name] for name in _SHOWN if name in (span.attributes or {})}
        facts.pop("unmask.clip.id", None)
        text = "  ".join(f"{name.rpartition('.')[2]}={value}" for name, value in facts.items())
        began_ms, took_ms = (span.start_time - first_ns) / 1e6, (span.end_time - span.start_time) / 1e6
        kind = span.kind.name.lower()
        lines.append(f"{named:34} {kind:9} {began_ms:7.1f} +{took_ms:7.1f} ms  {text}".rstrip())
        for child in spans:
            if child.parent is not None and child.parent.span_id == span.context.span_id:
                add(child, depth + 1)

    for span in spans:
        if span.parent is None or span.parent.span_id not in ids:
            add(span, 0)
    return "\n".join(lines)


def show(spans: list[Any]) -> None:
    """Print the tree; pytest shows it with `-s`."""
    sys.stdout.write(f"{tree(spans)}\n\n")
    sys.stdout.flush()


def outline(spans: list[Any]) -> list[str]:
    """Names as paths from the first span, sorted."""
    by_id = {span.context.span_id: span for span in spans}

    def path(span: Any) -> str:
        parent = None if span.parent is None else by_id.get(span.parent.span_id)
        return span.name if parent is None else f"{path(parent)} > {span.name}"

    return sorted(map(path, spans))
