"""/v1/review and what belongs to it: who reviews which clip, and how well."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from web.actions import ActionKind
from web.keys import Key, Role
from web.listing import Sort
from web.problems import Code, ProblemError
from web.resources import ProblemResource, VideoResource, utc
from web.review_resources import (
    ActionResource,
    BulkRequest,
    BulkResource,
    GoldenRequest,
    LeaseResource,
    NextResource,
    PreferencesRequest,
    PreferencesResource,
    QualityResource,
    SkipRequest,
    ViewRequest,
    ViewResource,
)
from web.routes.choosing import Chosen
from web.service import Service, TheCaller, TheService, delete_video

router = APIRouter(
    prefix="/v1",
    tags=["review"],
    responses={"4XX": {"model": ProblemResource, "content": {"application/problem+json": {}}}},
)


@router.post("/review/next", response_model=NextResource)
def next_clip(
    service: TheService,
    caller: TheCaller,
    chosen: Chosen,
    sort: Sort = "created",
    leave: str | None = None,
) -> NextResource:
    """The clip that you review next, among those that the parameters choose. It is yours for ten minutes.

    `leave` is the id of a video that is not offered this time. Takes role review.
    """
    caller.require(Role.REVIEW)
    video = service.reviews.next(caller.key, chosen, sort=sort, leave=leave)
    if video is None:
        return NextResource(video=None, until=None)
    lease = service.reviews.holder(video)
    return NextResource(
        video=VideoResource.of(video, caller.key.role), until=None if lease is None else utc(lease.expires_s)
    )


@router.put("/videos/{id}/lease", response_model=LeaseResource)
def hold(id: str, service: TheService, caller: TheCaller) -> LeaseResource:
    """Take a clip for ten minutes, or keep it for ten more. Takes role review."""
    caller.require(Role.REVIEW)
    return LeaseResource.of(service.reviews.hold(service.videos.get(id), caller.key))


@router.delete("/videos/{id}/lease", status_code=204)
def release(id: str, service: TheService, caller: TheCaller) -> None:
    """Leave a clip to others. Takes role review."""
    caller.require(Role.REVIEW)
    service.reviews.release(service.videos.get(id), caller.key)


@router.post("/videos/{id}/skip", status_code=204)
def skip(id: str, wanted: SkipRequest, service: TheService, caller: TheCaller) -> None:
    """Do not decide on a clip: it is not offered to you again. Takes role review."""
    caller.require(Role.REVIEW)
    service.reviews.skip(service.videos.get(id), caller.key, wanted.reason)


@router.put("/videos/{id}/golden", response_model=VideoResource)
def set_golden(id: str, wanted: GoldenRequest, service: TheService, caller: TheCaller) -> VideoResource:
    """Let a clip whose answer is known check reviewers. They do not see that it does. Takes role senior."""
    caller.require(Role.SENIOR)
    video = service.reviews.set_golden(service.videos.get(id), wanted.answer)
    service.actions.add(caller.key, ActionKind.GOLDEN, {"video": video.id, "answer": wanted.answer})
    return VideoResource.of(video, caller.key.role)


@router.delete("/videos/{id}/golden", response_model=VideoResource)
def unset_golden(id: str, service: TheService, caller: TheCaller) -> VideoResource:
    """Let a clip no longer check reviewers. Takes role senior."""
    caller.require(Role.SENIOR)
    video = service.reviews.set_golden(service.videos.get(id), None)
    service.actions.add(caller.key, ActionKind.GOLDEN, {"video": video.id, "answer": None})
    return VideoResource.of(video, caller.key.role)


@router.post("/review/bulk", response_model=BulkResource)
def bulk(wanted: BulkRequest, service: TheService, caller: TheCaller) -> BulkResource:
    """Decide on up to 1,000 clips, or delete them; it is logged. Takes role senior."""
    caller.require(Role.SENIOR)
    if (wanted.action == "decide") != (wanted.decision is not None):
        raise ProblemError(422, Code.INVALID, "decision: it is needed to decide, and not allowed otherwise")
    ids = list(dict.fromkeys(wanted.videos))
    # Logged first: a service that is killed meanwhile has done no more than its log says.
    data = {"videos": ids, "decision": wanted.decision, "reason": wanted.reason}
    service.actions.add(caller.key, ActionKind(wanted.action), data)
    refused: dict[str, str] = {}
    for id_ in ids:
        try:
            _apply(service, caller.key, wanted, id_)
        except ProblemError as error:
            refused[id_] = error.detail
    service.webhooks.wake()
    return BulkResource(done=len(ids) - len(refused), refused=refused)


@router.get("/review/log", response_model=list[ActionResource])
def log(service: TheService, caller: TheCaller) -> list[ActionResource]:
    """The last 200 actions on many videos, exports and known answers, the newest first. Takes role senior."""
    caller.require(Role.SENIOR)
    return [ActionResource.of(each) for each in service.actions.last()]


@router.get("/review/quality", response_model=QualityResource)
def quality(service: TheService, caller: TheCaller) -> QualityResource:
    """Agreement of reviewers, clips whose answer is known, audits. Takes role senior."""
    caller.require(Role.SENIOR)
    return QualityResource.made(service.quality.quality())


@router.get(
    "/review/export", response_class=StreamingResponse, responses={200: {"content": {"application/x-ndjson": {}}}}
)
def export(service: TheService, caller: TheCaller, comments: bool = False) -> StreamingResponse:
    """All decisions that count, a line of JSON each, with pseudonyms for those who made them. Takes role senior."""
    caller.require(Role.SENIOR)
    service.actions.add(caller.key, ActionKind.EXPORT, {"comments": comments})
    return StreamingResponse(service.quality.export(comments=comments), media_type="application/x-ndjson")


@router.get("/views", response_model=list[ViewResource])
def list_views(service: TheService, caller: TheCaller) -> list[ViewResource]:
    """Your saved views, and those for all reviewers."""
    return [ViewResource.of(view) for view in service.views.of(caller.key)]


@router.post("/views", status_code=201, response_model=ViewResource)
def save_view(wanted: ViewRequest, service: TheService, caller: TheCaller) -> ViewResource:
    """Save the filter of a list under a name."""
    return ViewResource.of(service.views.save(caller.key, wanted.name, wanted.query, shared=wanted.shared))


@router.delete("/views/{id}", status_code=204)
def delete_view(id: str, service: TheService, caller: TheCaller) -> None:
    """Delete a saved view of yours; admins may delete any."""
    service.views.delete(caller.key, id)


@router.get("/me/preferences", response_model=PreferencesResource)
def get_preferences(service: TheService, caller: TheCaller) -> PreferencesResource:
    """How the page shows videos to you."""
    return PreferencesResource.model_validate(service.keys.preferences(caller.key))


@router.patch("/me/preferences", response_model=PreferencesResource)
def change_preferences(wanted: PreferencesRequest, service: TheService, caller: TheCaller) -> PreferencesResource:
    """Change how the page shows videos to you; what is missing stays as it is."""
    changed = service.keys.change_preferences(caller.key, wanted.model_dump(exclude_none=True))
    return PreferencesResource.model_validate(changed)


def _apply(service: Service, key: Key, wanted: BulkRequest, id_: str) -> None:
    video = service.videos.get(id_)
    if wanted.decision is None:
        delete_video(service, video, key.id)
    else:
        service.decisions.decide(video, key, wanted.decision, reason=wanted.reason)
