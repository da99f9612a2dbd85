"""/v1/streams: live streams, and their segments for those who do not speak Kafka; files for workers."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from pipeline.contracts import State
from pipeline.transport.messages import MAX_SEGMENT_BYTES, ContentType, Segment
from web.keys import Role
from web.media_links import ROUTE, SignedAddresses
from web.problems import Code, ProblemError, fields_text, not_found
from web.resources import ProblemResource
from web.routes.files import ranged
from web.service import Service, TheCaller, TheService
from web.stream_resources import SegmentResource, StreamDetail, StreamList, StreamResource
from web.streams import Streams, no_workers
from web.uploads import chunks

router = APIRouter(
    prefix="/v1",
    tags=["streams"],
    responses={"4XX": {"model": ProblemResource, "content": {"application/problem+json": {}}}},
)
for_workers = APIRouter(include_in_schema=False)

Minutes = Annotated[float, Query(ge=0, le=30, description="of scores, from the stream's end backwards")]
_BODY = {
    "requestBody": {
        "required": True,
        "content": {each.value: {"schema": {"type": "string", "format": "binary"}} for each in ContentType},
    }
}


@router.get("/streams", response_model=StreamList)
def list_streams(
    service: TheService, caller: TheCaller, minutes: Minutes = 5.0, limit: Annotated[int, Query(ge=1, le=200)] = 50
) -> StreamList:
    """Streams that run, the one with the latest segment first. Takes role review, and workers."""
    caller.require(Role.REVIEW)
    found = _streams(service).running(limit)
    return StreamList(streams=[StreamResource.of(look, minutes) for look in found])


@router.get("/streams/{id}", response_model=StreamDetail)
def get_stream(id: str, service: TheService, caller: TheCaller, minutes: Minutes = 5.0) -> StreamDetail:
    """A stream with its verdict so far; one that has ended, too. Takes role review, and workers."""
    caller.require(Role.REVIEW)
    look = _streams(service).get(id)
    record = None if look.verdict is None else look.verdict.model_dump(mode="json", by_alias=True, exclude={"frames"})
    return StreamDetail(**StreamResource.of(look, minutes).model_dump(), verdict=record)


@router.post("/streams/{id}/segments", status_code=202, response_model=SegmentResource, openapi_extra=_BODY)
async def send_segment(
    id: str,
    request: Request,
    service: TheService,
    caller: TheCaller,
    sequence: Annotated[int, Query(description="from 0, one more for each segment")],
    start_s: Annotated[float, Query(description="of the segment within its stream")],
    final: Annotated[bool, Query(description="the stream ends with this segment")] = False,
) -> SegmentResource:
    """Send a piece of a stream: media that decodes by itself, fragmented MP4 or MPEG-TS. Takes workers."""
    streams = _streams(service)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in list(ContentType):
        raise ProblemError(415, Code.NO_MEDIA, f"Content-Type is one of {', '.join(ContentType)}")
    try:
        segment = Segment(stream_id=id, sequence=sequence, start_s=start_s, final=final, content_type=ContentType(kind))
    except ValidationError as error:
        raise ProblemError(422, Code.INVALID, fields_text(error.errors())) from error
    media = await _media(request)
    await run_in_threadpool(streams.send, caller.key, segment, media)
    return SegmentResource(stream=id, sequence=sequence, size_bytes=len(media))


@for_workers.get(ROUTE)
def media_for_workers(
    id: str,
    request: Request,
    service: TheService,
    until: int = 0,
    signature: Annotated[str, Query(max_length=100)] = "",
) -> Response:
    """An uploaded file for a worker: by a signed address, until its video is judged."""
    places = service.places
    if not isinstance(places, SignedAddresses) or not places.is_valid(id, until, signature):
        raise ProblemError(403, Code.NOT_ALLOWED, "this address is not signed by this service, or has expired")
    video = service.videos.get(id)
    file = None if video.state is State.DONE or video.upload.uri is not None else service.media.find(id)
    if file is None:
        raise not_found("file to be judged")
    return ranged(request, file, f'"{video.upload.sha256}"')


async def _media(request: Request) -> bytes:
    body = bytearray()
    async for chunk in chunks(request):
        body += chunk
        if len(body) > MAX_SEGMENT_BYTES:
            detail = f"a segment has at most {MAX_SEGMENT_BYTES:,} bytes: send shorter ones"
            raise ProblemError(413, Code.TOO_LARGE, detail, {"Connection": "close"})
    if not body:
        raise ProblemError(422, Code.NO_MEDIA, "the segment is empty")
    return bytes(body)


def _streams(service: Service) -> Streams:
    if service.streams is None:
        raise no_workers()
    return service.streams
