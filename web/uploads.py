"""The body of an upload, as it comes: raw bytes, or the part `file` of a form."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from web.media import MediaWriter
from web.problems import Code, ProblemError

# A client that sends nothing for this long has gone, in seconds.
QUIET_S: Final = 30.0
# Nor does it hold a place for long with a byte now and then: this much a second, over each period in seconds.
PERIOD_S, LEAST_BYTES_S = 60.0, 1 << 10
# Written at once: fewer switches to a thread.
_BLOCK_BYTES: Final = 1 << 20
_MAX_FIELDS: Final = 16
_MAX_FIELD_BYTES: Final = 16 << 10
_MAX_HEADER_BYTES: Final = 8 << 10


@dataclass(slots=True)
class Form:
    """What a form held besides the file.

    Attributes:
        filename: of the part `file`; empty without.
        fields: other parts, as text.
        has_file: there was a part `file`.
    """

    filename: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    has_file: bool = False


async def receive_raw(request: Request, writer: MediaWriter) -> None:
    """Write the body to the file.

    Raises:
        ProblemError: it ends early, or stops, or the file is refused.
    """
    block = bytearray()
    async for chunk in chunks(request):
        block += chunk
        if len(block) >= _BLOCK_BYTES:
            await run_in_threadpool(writer.write, bytes(block))
            block.clear()
    if block:
        await run_in_threadpool(writer.write, bytes(block))


async def receive_form(request: Request, writer: MediaWriter) -> Form:
    """Write the part `file` of a form to the file, and return the rest.

    Raises:
        ProblemError: as `receive_raw`; or it is not a form, has several files, or too many or too large fields.
    """
    _, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if not boundary:
        raise ProblemError(422, Code.BAD_REQUEST, "the form has no boundary in its Content-Type")
    try:
        reader = _FormReader(boundary)
    except FormParserError as error:
        raise ProblemError(422, Code.BAD_REQUEST, f"the form is malformed: {error}") from error
    async for chunk in chunks(request):
        reader.feed(chunk)
        if len(reader.block) >= _BLOCK_BYTES:
            await run_in_threadpool(writer.write, reader.taken())
    reader.end()
    if reader.block:
        await run_in_threadpool(writer.write, reader.taken())
    if not reader.form.has_file:
        raise ProblemError(422, Code.BAD_REQUEST, "the form has no part named file")
    return reader.form


class _FormReader:
    """Separates a form's file from its fields as it comes; it holds no more than was fed at once."""

    def __init__(self, boundary: bytes) -> None:
        self.form = Form()
        self.block = bytearray()
        self._headers = b""
        self._name = self._value = b""
        self._header: dict[str, str] = {}
        self._field: str | None = None
        self._in_file = self._ended = False
        self._held = bytearray()
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._part_data,
                "on_part_end": self._part_end,
                "on_end": self._end,
            },
        )

    def feed(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise ProblemError(422, Code.BAD_REQUEST, f"the form is malformed: {error}") from error

    def end(self) -> None:
        if not self._ended:
            raise ProblemError(422, Code.LENGTH, "the form ends before its last boundary")

    def taken(self) -> bytes:
        data = bytes(self.block)
        self.block.clear()
        return data

    def _part_begin(self) -> None:
        self._header, self._field, self._in_file = {}, None, False
        self._held.clear()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name = self._bounded(self._name + data[start:end])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value = self._bounded(self._value + data[start:end])

    def _bounded(self, text: bytes) -> bytes:
        if len(text) > _MAX_HEADER_BYTES:
            raise ProblemError(422, Code.BAD_REQUEST, "a header of the form is too long")
        return text

    def _header_end(self) -> None:
        self._header[self._name.decode("latin-1").lower()] = self._value.decode("latin-1")
        self._name = self._value = b""

    def _headers_finished(self) -> None:
        # Only the plain filename: RFC 7578 forbids filename*, whose charset could be anything.
        _, options = parse_options_header(self._header.get("content-disposition", ""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        filename = options.get(b"filename", b"").decode("utf-8", "replace")
        if not name:
            raise ProblemError(422, Code.BAD_REQUEST, "a part of the form has no name")
        if name == "file":
            if self.form.has_file:
                raise ProblemError(422, Code.BAD_REQUEST, "the form has several parts named file: send one a request")
            self._in_file = self.form.has_file = True
            self.form.filename = filename
        elif len(self.form.fields) >= _MAX_FIELDS:
            raise ProblemError(422, Code.BAD_REQUEST, f"the form has more than {_MAX_FIELDS} fields")
        else:
            self._field = name

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self.block += data[start:end]
            return
        self._held += data[start:end]
        if len(self._held) > _MAX_FIELD_BYTES:
            raise ProblemError(422, Code.BAD_REQUEST, f"a field of the form has more than {_MAX_FIELD_BYTES:,} bytes")

    def _part_end(self) -> None:
        if self._field is not None:
            self.form.fields[self._field] = self._held.decode("utf-8", "replace")

    def _end(self) -> None:
        self._ended = True


async def chunks(request: Request, ended: asyncio.Event | None = None) -> AsyncIterator[bytes]:
    """The body as it comes.

    Args:
        request: it.
        ended: set when another request takes the place of this one.

    Raises:
        ProblemError: nothing comes for `QUIET_S`, or too little, the client has gone, or `ended` was set.
    """
    clock = asyncio.get_running_loop().time
    since_s, counted = clock(), 0
    stream = request.stream().__aiter__()
    while True:
        try:
            chunk = await _next(stream, ended)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise ProblemError(
                408, Code.TOO_SLOW, f"nothing came for {QUIET_S:.0f} seconds", {"Connection": "close"}
            ) from None
        except ClientDisconnect:
            raise ProblemError(400, Code.LENGTH, "the client closed the connection before the end") from None
        counted += len(chunk)
        if (passed_s := clock() - since_s) >= PERIOD_S:
            if counted < LEAST_BYTES_S * passed_s:
                detail = f"less than {LEAST_BYTES_S} bytes a second came"
                raise ProblemError(408, Code.TOO_SLOW, detail, {"Connection": "close"})
            since_s, counted = clock(), 0
        yield chunk


async def _next(stream: AsyncIterator[bytes], ended: asyncio.Event | None) -> bytes:
    if ended is None:
        return await asyncio.wait_for(anext(stream), QUIET_S)
    coming = asyncio.ensure_future(anext(stream))
    taken = asyncio.ensure_future(ended.wait())
    try:
        done, _ = await asyncio.wait({coming, taken}, timeout=QUIET_S, return_when=asyncio.FIRST_COMPLETED)
        if coming in done:
            return coming.result()
    finally:
        taken.cancel()
        coming.cancel()
    if taken in done:
        detail = "another request goes on with this upload"
        raise ProblemError(409, Code.CONFLICT, detail, {"Connection": "close"})
    raise TimeoutError
