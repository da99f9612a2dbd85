"""HEAD on every route that has GET: the same answer without its body."""

from __future__ import annotations

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from web.headers import RESUMABLE


class _EnoughError(OSError):
    """The headers were sent, and nothing else is wanted: what streams a body takes it for a client that has gone."""


class Heads:
    """Answers HEAD by GET. Resumable uploads have a HEAD of their own.

    Args:
        app: what answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http" or scope["method"] != "HEAD" or scope["path"].startswith(RESUMABLE):
            await self._app(scope, receive, send)
            return
        ended = False

        async def sending(message: Message) -> None:
            nonlocal ended
            if message["type"] == "http.response.start":
                await send(message)
                return
            if not ended:
                ended = True
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            if message.get("more_body", False):
                raise _EnoughError

        try:
            await self._app({**scope, "method": "GET"}, receive, sending)
        except (_EnoughError, ClientDisconnect):
            if not ended:
                raise
