"""A span for each request, by OpenTelemetry's conventions for HTTP servers (semantic conventions 1.44.0)."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline import tracing

# Probes come every few seconds, and workers fetch files by signed addresses: each would begin a trace of its own.
_LEFT_OUT: Final = ("/healthz", "/readyz", "/static/", "/v1/tasks/")
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Traces:
    """Gives each request a span that continues the trace of its `traceparent`.

    Paths, queries, addresses and keys are no attributes: they may hold signatures, or name people. `http.route` is the
    path's template.

    Args:
        app: what answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http" or scope["path"].startswith(_LEFT_OUT):
            await self._app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        carried = [(name.decode("latin-1"), value) for name, value in scope["headers"]]
        facts = {"http.request.method": method, "url.scheme": scope["scheme"]}
        with tracing.span(method, facts, kind="server", carried=carried) as span:

            async def sending(message: Message) -> None:
                if message["type"] == "http.response.start":
                    status = message["status"]
                    span.set({"http.response.status_code": status})
                    if status >= 500:
                        span.fail(str(status))
                await send(message)

            try:
                await self._app(scope, receive, sending)
            finally:
                if (route := getattr(scope.get("route"), "path", None)) is not None:
                    span.set({"http.route": route})
                    span.rename(f"{method} {route}")
