"""/v1/uploads: resumable uploads, by the tus protocol 1.0.0 (https://tus.io/protocols/resumable-upload)."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Request, Response
from starlette.concurrency import run_in_threadpool

from pipeline.contracts import SourceClass
from web.headers import RESUMABLE, TUS_VERSION
from web.problems import Code, ProblemError, busy
from web.resources import ProblemResource, UploadResource
from web.resumable import COMMIT_BYTES, Appender, Resumable
from web.routes.wanted import check_idempotency, plain_name, with_fields
from web.service import Service, TheCaller, TheService
from web.uploads import chunks
from web.videos import Upload

EXTENSIONS: Final = "creation,creation-with-upload,expiration,checksum,termination"
# Of the checksum extension, which asks for sha1; it guards against accidents only.
_ALGORITHMS: Final = ("sha1", "sha256")
BYTES_TYPE: Final = "application/offset+octet-stream"
_MAX_METADATA: Final = 4096
_BLOCK_BYTES: Final = 1 << 20
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
_BODY: Final = {"requestBody": {"content": {BYTES_TYPE: {"schema": {"type": "string", "format": "binary"}}}}}
_HEADERS: Final = {"Upload-Offset": "bytes on disk", "Upload-Expires": "when it is deleted", "Unmask-Video": "its path"}
_ANSWER: Final = {
    "headers": {name: {"description": text, "schema": {"type": "string"}} for name, text in _HEADERS.items()}
}


def speaks_tus(caller: TheCaller, tus_resumable: Annotated[str | None, Header(description=TUS_VERSION)] = None) -> None:
    """Return if the client, whose key comes first, speaks this version of the protocol.

    Raises:
        ProblemError: it does not.
    """
    if tus_resumable != TUS_VERSION:
        detail = f"resumable uploads take Tus-Resumable: {TUS_VERSION}"
        raise ProblemError(412, Code.TUS, detail, {"Tus-Version": TUS_VERSION, "Connection": "close"})


router = APIRouter(
    prefix="/v1",
    tags=["uploads"],
    responses={"4XX": {"model": ProblemResource, "content": {"application/problem+json": {}}}},
)
_TUS: Final = [Depends(speaks_tus)]


@dataclass(slots=True)
class _Turn:
    """A request that has an upload to itself."""

    ended: asyncio.Event = field(default_factory=asyncio.Event)
    is_free: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def _turn(service: Service, id_: str) -> AsyncIterator[asyncio.Event]:
    """The upload for this request alone; one that still has it ends, since its client has come back by another way."""
    held: dict[str, _Turn] = service.turns
    while (other := held.get(id_)) is not None:
        other.ended.set()
        await other.is_free.wait()
    turn = held[id_] = _Turn()
    try:
        yield turn.ended
    finally:
        del held[id_]
        turn.is_free.set()


@router.options("/uploads", status_code=204, include_in_schema=False)
@router.options("/uploads/{id}", status_code=204, include_in_schema=False)
def options(service: TheService) -> Response:
    """What of the protocol is supported. It takes no key, as the protocol has it."""
    headers = {
        "Tus-Version": TUS_VERSION,
        "Tus-Extension": EXTENSIONS,
        "Tus-Max-Size": str(service.options.max_upload_bytes),
        "Tus-Checksum-Algorithm": ",".join(_ALGORITHMS),
    }
    return Response(status_code=204, headers=headers)


@router.post(
    "/uploads",
    status_code=201,
    response_class=Response,
    responses={201: {"description": "Its path is in Location.", **_ANSWER}},
    openapi_extra=_BODY,
    dependencies=_TUS,
)
async def create(
    request: Request,
    service: TheService,
    caller: TheCaller,
    upload_length: Annotated[str, Header(description="bytes of the file")] = "",
    upload_metadata: Annotated[
        str, Header(description="filename, source_class, start_s, end_s: each with its value in base64, commas between")
    ] = "",
    upload_checksum: Annotated[str | None, Header(description="of the body: sha1 or sha256, and base64")] = None,
    idempotency_key: Annotated[str | None, Header(description="the same key, the same upload")] = None,
) -> Response:
    """Begin a resumable upload. A body of type application/offset+octet-stream is its first bytes."""
    check_idempotency(idempotency_key)
    if "upload-defer-length" in request.headers:
        raise ProblemError(400, Code.BAD_REQUEST, "Upload-Defer-Length is not supported: send Upload-Length")
    length = _number("Upload-Length", upload_length)
    if length > service.options.max_upload_bytes:
        detail = f"at most {service.options.max_upload_bytes:,} bytes are accepted"
        raise ProblemError(413, Code.TOO_LARGE, detail, {"Connection": "close"})
    if length == 0:
        raise ProblemError(422, Code.NO_MEDIA, "the file is empty")
    given = _metadata(upload_metadata)
    has_body = _kind(request) == BYTES_TYPE
    if not has_body and request.headers.get("content-length", "0") != "0":
        raise ProblemError(415, Code.BAD_REQUEST, f"a body has Content-Type: {BYTES_TYPE}", {"Connection": "close"})
    named = plain_name(given.get("filename") or given.get("name", ""))
    wanted = with_fields(Upload(named or "video", SourceClass.UPLOAD, idempotency_key), given)
    await run_in_threadpool(service.videos.check_waiting)
    upload = await run_in_threadpool(service.resumable.create, caller.key.id, wanted, length, upload_metadata)
    if has_body and upload.offset == 0:
        async with _turn(service, upload.id) as ended:
            upload = await _received(request, service, upload, upload_checksum, ended)
    return Response(status_code=201, headers={"Location": f"{RESUMABLE}{upload.id}", **_headers(service, upload)})


@router.get("/uploads/{id}", response_model=UploadResource)
def get_upload(id: str, service: TheService, caller: TheCaller) -> UploadResource:
    """A resumable upload of this key. Requests that write to it go on."""
    return UploadResource.of(service.resumable.get(id, caller.key.id), service.resumable.idle_s)


@router.head("/uploads/{id}", include_in_schema=False, dependencies=_TUS)
async def offset(id: str, service: TheService, caller: TheCaller) -> Response:
    """How much of it is here. A request that still writes to it ends."""
    await run_in_threadpool(service.resumable.get, id, caller.key.id)
    async with _turn(service, id):
        upload = await run_in_threadpool(service.resumable.finish, id, caller.key.id)
    headers = {"Upload-Length": str(upload.length), **_headers(service, upload)}
    if upload.metadata:
        headers["Upload-Metadata"] = upload.metadata
    return Response(status_code=200, headers=headers)


@router.patch(
    "/uploads/{id}",
    status_code=204,
    response_class=Response,
    responses={204: {"description": "The bytes are on disk.", **_ANSWER}},
    openapi_extra=_BODY,
    dependencies=_TUS,
)
async def append(
    id: str,
    request: Request,
    service: TheService,
    caller: TheCaller,
    upload_offset: Annotated[str, Header(description="where the bytes belong: as many as are here")] = "",
    upload_checksum: Annotated[str | None, Header(description="of the body: sha1 or sha256, and base64")] = None,
) -> Response:
    """Send bytes. With the last one it becomes a video: Unmask-Video is its path."""
    if _kind(request) != BYTES_TYPE:
        raise ProblemError(415, Code.BAD_REQUEST, f"the body has Content-Type: {BYTES_TYPE}", {"Connection": "close"})
    begin = _number("Upload-Offset", upload_offset)
    await run_in_threadpool(service.resumable.get, id, caller.key.id)
    async with _turn(service, id) as ended:
        upload = await run_in_threadpool(service.resumable.get, id, caller.key.id)
        if begin != upload.offset:
            detail = f"Upload-Offset is {begin}, and {upload.offset} bytes are here"
            headers = {"Upload-Offset": str(upload.offset), "Connection": "close"}
            raise ProblemError(409, Code.CONFLICT, detail, headers)
        upload = await _received(request, service, upload, upload_checksum, ended)
    return Response(status_code=204, headers=_headers(service, upload))


@router.delete("/uploads/{id}", status_code=204, dependencies=_TUS)
async def terminate(id: str, service: TheService, caller: TheCaller) -> None:
    """Delete it with its bytes; a video that it has become stays."""
    await run_in_threadpool(service.resumable.get, id, caller.key.id)
    async with _turn(service, id):
        await run_in_threadpool(service.resumable.delete, id)


@router.post("/uploads/{id}", include_in_schema=False)
async def override(
    id: str,
    request: Request,
    service: TheService,
    caller: TheCaller,
    x_http_method_override: Annotated[str, Header()] = "",
    tus_resumable: Annotated[str | None, Header()] = None,
    upload_offset: Annotated[str, Header()] = "",
    upload_checksum: Annotated[str | None, Header()] = None,
) -> Response:
    """PATCH, HEAD or DELETE of clients that cannot send them."""
    if x_http_method_override in ("PATCH", "HEAD", "DELETE"):
        speaks_tus(caller, tus_resumable)
    match x_http_method_override:
        case "PATCH":
            return await append(id, request, service, caller, upload_offset, upload_checksum)
        case "HEAD":
            return await offset(id, service, caller)
        case "DELETE":
            await terminate(id, service, caller)
            return Response(status_code=204)
    allowed = {"Allow": "DELETE, GET, HEAD, PATCH"}
    raise ProblemError(405, Code.METHOD, "POST takes X-HTTP-Method-Override: PATCH, HEAD or DELETE", allowed)


async def _received(
    request: Request, service: Service, upload: Resumable, checksum: str | None, ended: asyncio.Event
) -> Resumable:
    """The upload with the body at its end; if it is complete, as a video."""
    stated = request.headers.get("content-length")
    if stated is not None and upload.offset + _number("Content-Length", stated) > upload.length:
        detail = f"{upload.length - upload.offset:,} bytes are missing, and {stated} would come"
        raise ProblemError(413, Code.TOO_LARGE, detail, {"Connection": "close"})
    expected = None if checksum is None else _checksum(checksum)
    if not upload.is_complete:
        if service.uploads >= service.options.max_uploads:
            raise busy(f"{service.uploads} uploads are under way", 2)
        service.uploads += 1
        try:
            upload = replace(upload, offset=await _written(request, service, upload, expected, ended))
        finally:
            service.uploads -= 1
    if upload.is_complete and upload.video is None:
        return await run_in_threadpool(service.resumable.finish, upload.id, upload.key_id)
    return await run_in_threadpool(service.resumable.get, upload.id, upload.key_id)


async def _written(
    request: Request, service: Service, upload: Resumable, expected: tuple[Any, bytes] | None, ended: asyncio.Event
) -> int:
    """Write the body as it comes; what came is kept even if the connection is lost, unless it has a checksum."""
    block = bytearray()
    with service.resumable.writing(upload) as appender:
        try:
            async for chunk in chunks(request, ended):
                block += chunk
                if len(block) >= _BLOCK_BYTES:
                    await run_in_threadpool(_write, appender, bytes(block), expected)
                    block.clear()
            await run_in_threadpool(_write, appender, bytes(block), expected)
            if expected is not None and not hmac.compare_digest(expected[0].digest(), expected[1]):
                raise ProblemError(460, Code.CHECKSUM, "the body is not what Upload-Checksum says; none of it is kept")
        except ProblemError as error:
            if error.code is Code.NO_MEDIA:
                await run_in_threadpool(service.resumable.delete, upload.id)
            elif expected is None:
                if error.code is not Code.TOO_LARGE:
                    await run_in_threadpool(_write, appender, bytes(block), None)
                await run_in_threadpool(appender.commit)
            raise
        await run_in_threadpool(appender.commit)
        return appender.committed


def _write(appender: Appender, block: bytes, expected: tuple[Any, bytes] | None) -> None:
    if expected is not None:
        expected[0].update(block)
    appender.write(block)
    if expected is None and appender.offset - appender.committed >= COMMIT_BYTES:
        appender.commit()


def _headers(service: Service, upload: Resumable) -> dict[str, str]:
    headers = {
        "Upload-Offset": str(upload.offset),
        "Upload-Expires": formatdate(upload.touched_s + service.resumable.idle_s, usegmt=True),
    }
    if upload.video is not None:
        headers["Unmask-Video"] = f"/v1/videos/{upload.video}"
    return headers


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _number(name: str, text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise ProblemError(400, Code.BAD_REQUEST, f"{name} is a number of bytes", {"Connection": "close"})
    return int(text)


def _metadata(text: str) -> dict[str, str]:
    """The pairs of an `Upload-Metadata`."""
    if len(text) > _MAX_METADATA:
        raise ProblemError(400, Code.BAD_REQUEST, f"Upload-Metadata has more than {_MAX_METADATA} bytes")
    found: dict[str, str] = {}
    for pair in filter(None, (each.strip(" ") for each in text.split(","))):
        name, _, value = pair.partition(" ")
        if name in found:
            raise ProblemError(400, Code.BAD_REQUEST, "Upload-Metadata has a key twice")
        try:
            found[name] = base64.b64decode(value, validate=True).decode("utf-8")
        except (binascii.Error, ValueError):
            raise ProblemError(400, Code.BAD_REQUEST, "values of Upload-Metadata are UTF-8 in base64") from None
    return found


def _checksum(text: str) -> tuple[Any, bytes]:
    """A new digest, and what it should be in the end."""
    name, _, value = text.partition(" ")
    if name not in _ALGORITHMS:
        raise ProblemError(400, Code.BAD_REQUEST, f"Upload-Checksum is by {' or '.join(_ALGORITHMS)}")
    try:
        return hashlib.new(name, usedforsecurity=False), base64.b64decode(value, validate=True)
    except binascii.Error:
        raise ProblemError(400, Code.BAD_REQUEST, "Upload-Checksum is an algorithm and base64") from None
