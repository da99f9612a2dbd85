"""Files and unchanged resources, as HTTP has it: ranges, entity tags."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from web.problems import Code, response


class RangedFile(FileResponse):
    """A file whose bad ranges are answered with a problem; the framework's own answer is plain text."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        refused = False

        async def passing(message: Message) -> None:
            nonlocal refused
            refused = refused or message.get("status") in (400, 416)
            if not refused:
                await send(message)

        await super().__call__(scope, receive, passing)
        if refused:
            size_bytes = self.headers.get("content-length", "*")
            detail = f"Range asks for bytes that do not exist, or is malformed: the file has {size_bytes} bytes"
            headers = {"Content-Range": f"bytes */{size_bytes}", "Accept-Ranges": "bytes"}
            await response(Request(scope), 416, Code.BAD_RANGE, detail, headers)(scope, receive, send)


def is_known(etag: str, if_none_match: str) -> bool:
    """Whether the client has this version already.

    Args:
        etag: of the resource, with its quotes.
        if_none_match: the header: `*`, or entity tags, compared weakly (RFC 9110, 13.1.2).
    """
    tags = [each.strip() for each in if_none_match.split(",")]
    return "*" in tags or etag in [tag.removeprefix("W/") for tag in tags]
