"""Headers of every response, and the limit on bodies that are not uploads."""

from __future__ import annotations

import asyncio
import re
import secrets
from typing import Final

from fastapi import Request
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from web.problems import Code, response

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Nothing from elsewhere; pictures of faces are in the page.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
MAX_BODY_BYTES: Final = 64 << 10
# Such a body comes within this time, in seconds.
BODY_S: Final = 30.0
# Their bodies are read by their route, after the key was checked.
_UPLOADS: Final = re.compile(r"/v1/videos|/v1/streams/[^/]+/segments|/v1/uploads")
RESUMABLE: Final = "/v1/uploads/"
TUS_VERSION: Final = "1.0.0"


def _is_upload(method: str, path: str) -> bool:
    if method == "POST" and _UPLOADS.fullmatch(path):
        return True
    return method in ("PATCH", "POST") and path.startswith(RESUMABLE)


class Headers:
    """Gives each request an id, and each response it and headers that protect the page.

    Args:
        app: what answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"").decode("latin-1")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                if f"{scope['path']}/".startswith(RESUMABLE):
                    headers["Tus-Resumable"] = TUS_VERSION
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, sending)


class SmallBodies:
    """Reads the body of a request that is no upload, up to a limit, before anything is made of it.

    The framework would read and parse bodies of any size, before it asks for a key.

    Args:
        app: what answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http" or _is_upload(scope["method"], scope["path"]):
            await self._app(scope, receive, send)
            return
        body, ended = bytearray(), False
        try:
            async with asyncio.timeout(BODY_S):
                while not ended:
                    message = await receive()
                    if message["type"] != "http.request":
                        return
                    body += message.get("body", b"")
                    if len(body) > MAX_BODY_BYTES:
                        detail = f"at most {MAX_BODY_BYTES:,} bytes are accepted here"
                        await self._refuse(413, Code.TOO_LARGE, detail, scope, receive, send)
                        return
                    ended = not message.get("more_body", False)
        except TimeoutError:
            await self._refuse(408, Code.TOO_SLOW, f"the body took over {BODY_S:.0f} s", scope, receive, send)
            return
        given = False

        async def receiving() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self._app(scope, receiving, send)

    async def _refuse(self, status: int, code: Code, detail: str, scope: Scope, receive: Receive, send: Send) -> None:
        answer = response(Request(scope), status, code, detail, {"Connection": "close"})
        await answer(scope, receive, send)
