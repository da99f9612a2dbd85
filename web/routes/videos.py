"""/v1/videos: hand in, follow, read, delete."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Annotated, Any, Final
from urllib.parse import urlencode, urlsplit

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import contextmanager_in_threadpool
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import Field, ValidationError
from starlette.concurrency import run_in_threadpool

from pipeline.contracts import SourceClass, State
from pipeline.sources import SourceError
from web.appeals import Appeal
from web.decisions import is_hidden
from web.headers import MAX_BODY_BYTES
from web.hub import Event, Listener
from web.keys import Caller, Role
from web.known import known_decision
from web.listing import MAX_PAGE, Sort
from web.media import MediaWriter
from web.problems import Code, ProblemError, busy, fields_text, not_found
from web.resources import (
    AppealRequest,
    AppealResource,
    DecisionRequest,
    DecisionResource,
    FramesResource,
    ProblemResource,
    Resource,
    VideoDetail,
    VideoPage,
    VideoResource,
    detail_of,
)
from web.routes.choosing import Chosen, only_own
from web.routes.files import is_known, ranged
from web.routes.wanted import MAX_NAME, PART, check_idempotency, check_part, plain_name, with_fields
from web.service import Service, TheCaller, TheService
from web.service import delete_video as delete_with_all
from web.uploads import chunks, receive_form, receive_raw
from web.videos import Upload, Video, new_id

router = APIRouter(
    prefix="/v1",
    tags=["videos"],
    responses={"4XX": {"model": ProblemResource, "content": {"application/problem+json": {}}}},
)

MAX_WAIT_S: Final = 60.0
# How often those who wait look whether the service ends, in seconds; and after how many of these turns a quiet stream
# gets a line, so that proxies keep it open.
_TURN_S, _HEARTBEAT_TURNS = 0.5, 30
_BODIES: Final = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "video/*": {"schema": {"type": "string", "format": "binary"}},
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "source_class": {"type": "string"},
                        "start_s": {"type": "number", "minimum": 0},
                        "end_s": {"type": "number", "minimum": 0},
                    },
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["uri"],
                    "properties": {
                        "uri": {"type": "string"},
                        "name": {"type": "string"},
                        "source_class": {"type": "string", "enum": [each.value for each in SourceClass]},
                        "start_s": {"type": ["number", "null"], "minimum": 0},
                        "end_s": {"type": ["number", "null"], "minimum": 0},
                    },
                    "additionalProperties": False,
                }
            },
        },
    }
}


class _UriRequest(Resource):
    uri: str
    name: str = ""
    source_class: SourceClass = SourceClass.UPLOAD
    start_s: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    end_s: float | None = Field(default=None, ge=0, allow_inf_nan=False)


@router.post(
    "/videos",
    status_code=202,
    response_model=VideoDetail,
    responses={200: {"model": VideoDetail, "description": "It is judged, or was handed in before."}},
    openapi_extra=_BODIES,
)
async def hand_in(
    request: Request,
    response: Response,
    service: TheService,
    caller: TheCaller,
    name: Annotated[str, Query(max_length=MAX_NAME, description="of the file; a form brings its own")] = "",
    source_class: SourceClass = SourceClass.UPLOAD,
    start_s: Annotated[float | None, Query(ge=0, allow_inf_nan=False, description=PART)] = None,
    end_s: Annotated[float | None, Query(ge=0, allow_inf_nan=False, description=PART)] = None,
    idempotency_key: Annotated[str | None, Header(description="the same key, the same upload")] = None,
    prefer: Annotated[str | None, Header(description="wait=30: answer with the verdict if it takes no longer")] = None,
) -> VideoDetail:
    """Hand in a video: as the body, as the part `file` of a form, or by its URI in JSON."""
    wait_s = _wait_s(prefer)
    check_idempotency(idempotency_key)
    wanted = Upload(name, source_class, idempotency_key, start_s=start_s, end_s=end_s)
    check_part(wanted)
    if await run_in_threadpool(service.videos.earlier, idempotency_key, caller.key.id) is None:
        await run_in_threadpool(service.videos.check_waiting)
    video, is_new = await _received(request, service, caller, wanted)
    if is_new:
        service.judge.wake()
    if wait_s:
        video = await _finished(request, service, video, wait_s)
        response.headers["Preference-Applied"] = f"wait={wait_s:g}"
    response.headers["Location"] = f"/v1/videos/{video.id}"
    response.status_code = 200 if video.state is State.DONE or not is_new else 202
    return await run_in_threadpool(_detail, service, caller, video)


@router.get("/videos", response_model=VideoPage)
def list_videos(
    request: Request,
    service: TheService,
    caller: TheCaller,
    chosen: Chosen,
    sort: Sort = "-created",
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
) -> VideoPage:
    """The videos that this key may see: with role submit those that it handed in, else all."""
    page = service.list.page(chosen, sort=sort, limit=limit, cursor=cursor)
    following = None
    if page.cursor is not None:
        query = [(key, value) for key, value in request.query_params.multi_items() if key != "cursor"]
        following = f"/v1/videos?{urlencode([*query, ('cursor', page.cursor)])}"
    return VideoPage(videos=[VideoResource.of(video, caller.key.role) for video in page.videos], next=following)


@router.get("/videos/{id}", response_model=VideoDetail, responses={304: {"description": "It has not changed."}})
def get_video(
    id: str,
    response: Response,
    service: TheService,
    caller: TheCaller,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Any:
    """A video with its verdict."""
    video = seen(service, caller, id)
    detail = _detail(service, caller, video)
    # What people decide on a copy changes the answer, and no version of this video.
    known = "" if detail.known is None else f".{detail.known.video}.{detail.known.decision}.{detail.known.votes}"
    more = "" if detail.complete else ".more"
    etag = f'"{video.version}{known}{more}"'
    if if_none_match is not None and is_known(etag, if_none_match):
        return Response(status_code=304, headers={"ETag": etag})
    response.headers["ETag"] = etag
    return detail


@router.get("/videos/{id}/record", response_class=Response, responses={200: {"content": {"application/json": {}}}})
def get_record(id: str, service: TheService, caller: TheCaller) -> Response:
    """The whole record, as `unmask scan --jsonl` writes it."""
    report = service.videos.report(seen(service, caller, id))
    if report is None:
        raise not_found("record: the video is not judged yet")
    return Response(report.verdict.to_json(), media_type="application/json")


@router.get("/videos/{id}/frames", response_model=FramesResource)
def get_frames(
    id: str,
    service: TheService,
    caller: TheCaller,
    track: Annotated[int | None, Query(ge=0)] = None,
    from_s: Annotated[float, Query(ge=0)] = 0.0,
    to_s: Annotated[float | None, Query(ge=0)] = None,
) -> FramesResource:
    """The scored faces, all of them or those of a person or a stretch."""
    report = service.videos.report(seen(service, caller, id))
    if report is None:
        raise not_found("frames: the video is not judged yet")
    chosen = [
        face.model_dump(mode="json")
        for face in report.verdict.frames
        if (track is None or face.track == track) and from_s <= face.t_s and (to_s is None or face.t_s <= to_s)
    ]
    return FramesResource(frames=chosen)


@router.get("/videos/{id}/crops/{track}/{n}", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}})
def get_crop(id: str, track: int, n: int, service: TheService, caller: TheCaller) -> Response:
    """A picture of a person: first the most suspicious ones, then the clearest."""
    video = seen(service, caller, id)
    jpeg = service.videos.crop(video, track, n) if 0 <= n < 1000 and 0 <= track < 2**31 else None
    if jpeg is None:
        raise not_found("crop")
    service.auditor.looked(caller.key.id, video.id)
    return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})


@router.get(
    "/videos/{id}/media",
    response_class=FileResponse,
    responses={206: {"description": "A range of it."}, 416: {"model": ProblemResource, "description": "A bad range."}},
)
def get_media(id: str, request: Request, service: TheService, caller: TheCaller) -> Response:
    """The file as it was handed in; ranges are supported."""
    video = seen(service, caller, id)
    file = None if video.upload.uri is not None else service.media.find(video.id)
    if file is None:
        raise not_found("file: only its URI was handed in")
    service.auditor.looked(caller.key.id, video.id)
    headers = {"Content-Security-Policy": "sandbox", "Cache-Control": "private, max-age=3600"}
    return ranged(request, file, f'"{video.upload.sha256}"', video.upload.media_type, headers)


@router.get(
    "/videos/{id}/events", response_class=StreamingResponse, responses={200: {"content": {"text/event-stream": {}}}}
)
async def get_events(id: str, request: Request, service: TheService, caller: TheCaller) -> StreamingResponse:
    """Server-sent events: state, progress, partial (the verdict so far, which may change), known, decision.

    The stream ends when the video is judged or deleted.
    """
    await run_in_threadpool(seen, service, caller, id)
    return StreamingResponse(
        _events(request, service, caller, id),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


@router.delete("/videos/{id}", status_code=204)
def delete_video(id: str, service: TheService, caller: TheCaller) -> None:
    """Delete a video with its file, verdict, pictures and decisions. Those of other keys take role senior."""
    video = seen(service, caller, id)
    if video.key_id != caller.key.id:
        caller.require(Role.SENIOR)
    delete_with_all(service, video, caller.key.id)


@router.post("/videos/{id}/decisions", status_code=201, response_model=DecisionResource)
def decide(id: str, wanted: DecisionRequest, service: TheService, caller: TheCaller) -> DecisionResource:
    """Decide on a clip or on a person in it; it replaces your earlier decision on the same. Takes role review."""
    caller.require(Role.REVIEW)
    video = service.videos.get(id)
    made = service.decisions.decide(
        video, caller.key, wanted.decision, track=wanted.track, reason=wanted.reason, comment=wanted.comment
    )
    answer = DecisionResource.of(made)
    service.webhooks.wake()
    service.hub.publish(video.id, Event("decision", answer.model_dump(mode="json")))
    return answer


@router.delete("/videos/{id}/decisions/last", response_model=DecisionResource)
def undo(id: str, service: TheService, caller: TheCaller) -> DecisionResource:
    """Take your last decision on this video back, within five minutes."""
    caller.require(Role.REVIEW)
    video = service.videos.get(id)
    answer = DecisionResource.of(service.decisions.undo(video, caller.key.id))
    service.webhooks.wake()
    service.hub.publish(video.id, Event("decision", answer.model_dump(mode="json")))
    return answer


@router.post("/videos/{id}/appeals", status_code=201, response_model=AppealResource)
def appeal(id: str, wanted: AppealRequest, service: TheService, caller: TheCaller) -> AppealResource:
    """Open a closed review again: a senior who did not decide before decides; the earlier decisions stay.

    Keys that handed the video in may appeal, and those of role review.
    """
    video = seen(service, caller, id)
    made = AppealResource.of(service.decisions.appeal(video, caller.key, wanted.reason))
    service.webhooks.wake()
    return made


def seen(service: Service, caller: Caller, id_: str) -> Video:
    """A video that the caller may see.

    Raises:
        ProblemError: it does not exist, or is not for them.
    """
    return service.videos.get(id_, only_own(caller))


def _detail(service: Service, caller: Caller, video: Video) -> VideoDetail:
    report = service.videos.report(video)
    decisions = [DecisionResource.of(each) for each in service.decisions.seen_by(video, caller.key)]
    known = known_decision(service.known.similar(video, only_own(caller)))
    verdict = None if report is None else report.verdict
    complete = service.judge.is_complete(video)
    appeals = [AppealResource.of(each) for each in appeals_seen(service, caller, video)]
    return detail_of(video, caller.key.role, verdict, decisions, appeals, known, complete=complete)


def appeals_seen(service: Service, caller: Caller, video: Video) -> Sequence[Appeal]:
    """While a review is open, a reviewer sees their own only: others' say what it came to before."""
    found = service.decisions.appeals(video)
    if caller.key.role is Role.REVIEW and is_hidden(video):
        return [each for each in found if each.by == caller.key.id]
    return found


async def _received(request: Request, service: Service, caller: Caller, wanted: Upload) -> tuple[Video, bool]:
    kind = request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
    id_ = new_id()
    if kind == "application/json":
        upload = await _named_by_uri(request, service, wanted)
        return await run_in_threadpool(service.videos.accept, upload, caller.key.id, id_)
    if service.uploads >= service.options.max_uploads:
        raise busy(f"{service.uploads} uploads are under way", 2)
    _check_length(request, service.options.max_upload_bytes)
    service.uploads += 1
    try:
        # A store may be slow to end an upload, too.
        writing = service.media.writing(id_, service.options.max_upload_bytes)
        async with contextmanager_in_threadpool(writing) as writer:
            if kind == "multipart/form-data":
                form = await receive_form(request, writer)
                wanted = with_fields(replace(wanted, name=form.filename or wanted.name), form.fields)
            else:
                await receive_raw(request, writer)
            await run_in_threadpool(_keep, request, writer, kind)
        upload = replace(
            wanted,
            name=plain_name(wanted.name) or id_,
            media_type=writer.media_type,
            size_bytes=writer.size_bytes,
            sha256=writer.sha256,
        )
        try:
            video, is_new = await run_in_threadpool(service.videos.accept, upload, caller.key.id, id_)
        except BaseException:
            await run_in_threadpool(service.media.discard, id_)
            raise
        if not is_new:
            await run_in_threadpool(service.media.discard, id_)
        return video, is_new
    finally:
        service.uploads -= 1


def _keep(request: Request, writer: MediaWriter, kind: str) -> None:
    stated = request.headers.get("content-length")
    if kind != "multipart/form-data" and stated is not None and int(stated) != writer.size_bytes:
        raise ProblemError(422, Code.LENGTH, f"{writer.size_bytes} bytes came, and Content-Length says {stated}")
    writer.keep()


def _check_length(request: Request, max_bytes: int) -> None:
    stated = request.headers.get("content-length", "0")
    if not stated.isdecimal():
        raise ProblemError(400, Code.BAD_REQUEST, "Content-Length is not a number")
    # A form adds its boundaries and fields.
    if int(stated) > max_bytes + (1 << 20):
        raise ProblemError(413, Code.TOO_LARGE, f"at most {max_bytes:,} bytes are accepted", {"Connection": "close"})


async def _named_by_uri(request: Request, service: Service, default: Upload) -> Upload:
    body = b""
    async for chunk in chunks(request):
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise ProblemError(413, Code.TOO_LARGE, f"at most {MAX_BODY_BYTES:,} bytes of JSON are accepted")
    try:
        wanted = _UriRequest.model_validate_json(body)
    except ValidationError as error:
        raise ProblemError(422, Code.INVALID, fields_text(error.errors())) from error
    try:
        await run_in_threadpool(service.judge.check, wanted.uri)
    except SourceError as error:
        raise ProblemError(422, Code.URI_REFUSED, str(error)) from error
    except ValueError as error:
        raise ProblemError(422, Code.INVALID, f"uri: {error}") from error
    given = {name: getattr(wanted, name) for name in ("source_class", "start_s", "end_s")}
    given = {name: value for name, value in given.items() if name in wanted.model_fields_set}
    named = plain_name(wanted.name) or plain_name(urlsplit(wanted.uri).path) or "video"
    upload = replace(default, name=named, uri=wanted.uri, **given)
    check_part(upload)
    return upload


def _wait_s(prefer: str | None) -> float:
    """Seconds of a `Prefer: wait=30` (RFC 7240); what is not understood is ignored, as it asks."""
    found = re.search(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})", prefer or "", re.IGNORECASE)
    return min(float(found[1]), MAX_WAIT_S) if found else 0.0


async def _finished(request: Request, service: Service, video: Video, wait_s: float) -> Video:
    """The video once it is judged, or as it is after this time."""
    with service.hub.listening(video.id) as listener:
        try:
            async with asyncio.timeout(wait_s):
                video = await run_in_threadpool(service.videos.get, video.id)
                while video.state is not State.DONE and not service.is_ending():
                    event = await _next(listener, _TURN_S)
                    if event is not None and event.is_last:
                        break
        except TimeoutError:
            pass
    return await run_in_threadpool(service.videos.get, video.id)


async def _events(request: Request, service: Service, caller: Caller, id_: str) -> AsyncIterator[str]:
    with service.hub.listening(id_) as listener:
        try:
            video = await run_in_threadpool(seen, service, caller, id_)
        except ProblemError:
            return
        now = {"state": video.state.value, "outcome": video.outcome, "label": video.label}
        yield _sse(Event("state", now))
        if video.state is State.DONE:
            return
        quiet = 0
        while not service.is_ending() and not await request.is_disconnected():
            event = await _next(listener, _TURN_S)
            quiet = 0 if event is not None else quiet + 1
            if event is None:
                if quiet % _HEARTBEAT_TURNS == 0:
                    yield ": waiting\n\n"
                continue
            yield _sse(event)
            if event.is_last:
                return


async def _next(listener: Listener, wait_s: float) -> Event | None:
    try:
        return await asyncio.wait_for(listener.events.get(), wait_s)
    except TimeoutError:
        return None


def _sse(event: Event) -> str:
    return f"event: {event.kind}\ndata: {json.dumps(event.data)}\n\n"
