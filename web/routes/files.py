"""Files and unchanged resources, as HTTP has it: ranges, entity tags."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import Final

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import iterate_in_threadpool

from web.media import StoredFile
from web.problems import Code, ProblemError

# One range; several in one request are answered with the whole file, as RFC 9110, 14.2 allows.
_RANGE: Final = re.compile(r"\s*bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.IGNORECASE)
_SEVERAL: Final = re.compile(r"\s*bytes\s*=[\d\s,-]*,[\d\s,-]*", re.IGNORECASE)


def ranged(
    request: Request,
    file: StoredFile,
    etag: str,
    media_type: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> StreamingResponse:
    """A file, or the range of it that was asked for, block by block.

    Args:
        request: with `Range` and `If-Range`, if any.
        file: it.
        etag: of its bytes, with its quotes.
        media_type: of the file; None: application/octet-stream.
        headers: further ones.

    Raises:
        ProblemError: the range is malformed, or after the end of the file.
    """
    sent = {"Accept-Ranges": "bytes", "ETag": etag, **(headers or {})}
    wanted = request.headers.get("range")
    found = None
    if wanted is not None and request.headers.get("if-range", etag) == etag:
        found = _found(wanted, file.size_bytes)
    start, end = found or (0, file.size_bytes)
    sent["Content-Length"] = str(end - start)
    if found is not None:
        sent["Content-Range"] = f"bytes {start}-{end - 1}/{file.size_bytes}"
    return StreamingResponse(
        _blocks(file, start, end),
        200 if found is None else 206,
        sent,
        media_type or "application/octet-stream",
    )


async def _blocks(file: StoredFile, start: int, end: int) -> AsyncIterator[bytes]:
    yield b""  # the answer to HEAD ends here, and nothing is read for it
    async for block in iterate_in_threadpool(file.blocks(start, end)):
        yield block


def _found(wanted: str, size_bytes: int) -> tuple[int, int] | None:
    """Start and end of a `Range`; None: the whole file."""
    if _SEVERAL.fullmatch(wanted):
        return None
    if match := _RANGE.fullmatch(wanted):
        first, last = match.groups()
        start = int(first) if first else max(0, size_bytes - int(last or 0))
        end = min(int(last) + 1, size_bytes) if first and last else size_bytes
        if start < end:
            return start, end
    detail = f"Range asks for bytes that do not exist, or is malformed: the file has {size_bytes} bytes"
    headers = {"Content-Range": f"bytes */{size_bytes}", "Accept-Ranges": "bytes"}
    raise ProblemError(416, Code.BAD_RANGE, detail, headers)


def is_known(etag: str, if_none_match: str) -> bool:
    """Whether the client has this version already.

    Args:
        etag: of the resource, with its quotes.
        if_none_match: the header: `*`, or entity tags, compared weakly (RFC 9110, 13.1.2).
    """
    tags = [each.strip() for each in if_none_match.split(",")]
    return "*" in tags or etag in [tag.removeprefix("W/") for tag in tags]
