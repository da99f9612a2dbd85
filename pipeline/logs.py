"""Logs on standard error: readable text at a terminal, else one line of JSON each."""

from __future__ import annotations

import io
import logging
import sys
from contextlib import suppress
from typing import Any, TextIO, cast

import structlog

from pipeline.tracing import ids
from pipeline.visible import visible_event


def configure_logging(*, level: str = "info", as_json: bool | None = None) -> None:
    """Send our logs, and the libraries' from "warning" on, to standard error, one line each.

    A log that cannot be written is dropped: a full disk or a closed pipe must not stop the program.

    Args:
        level: of our own logs, such as "info" or "warning".
        as_json: None writes JSON unless standard error is a terminal.
    """
    # None: the process was started without a standard error.
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    if as_json is None:
        as_json = not is_terminal
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        _add_trace,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Not rich's traceback: it prints the local variables of every frame.
    renderer = structlog.dev.ConsoleRenderer(colors=is_terminal, exception_formatter=structlog.dev.plain_traceback)
    last: list[Any] = (
        [structlog.processors.format_exc_info, visible_event, structlog.processors.JSONRenderer()]
        if as_json
        else [visible_event, renderer]
    )
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _StandardError())),
    )
    handler = logging.StreamHandler(_StandardError())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def _add_trace(logger: Any, method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Names the active span, so that a log leads to its trace."""
    found = ids()
    return event if found is None else {**event, **found}


class _StandardError(io.TextIOBase):
    """Writes to the current `sys.stderr`. Failed writes are dropped."""

    def write(self, text: str) -> int:
        # ValueError: the file is closed. AttributeError: there is no standard error.
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()
