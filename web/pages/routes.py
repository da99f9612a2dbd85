"""The pages: sign in, the list of videos, one video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, Query, Request
from fastapi import Form as FormField
from fastapi.responses import RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from pipeline.contracts import SourceClass, Strength
from pipeline.results import wording
from pipeline.results.clip_view import detailed
from web.appeals import Appeal
from web.decisions import Decision, is_hidden
from web.keys import SESSION_S, Caller, Key, Role
from web.known import known_decision
from web.oidc import OidcError
from web.pages.choosing import Form, api_query, form_of
from web.pages.rendering import moment, page, signed_in
from web.pages.text import SKIP_REASONS, TEXT
from web.problems import ProblemError
from web.review_resources import PreferencesResource
from web.rounds import Choice, Round
from web.routes.choosing import MAX_NAME, only_own
from web.routes.videos import appeals_seen, seen
from web.service import COOKIE, Service, TheService, check_own_page
from web.videos import Upload, Video

log = structlog.get_logger(__name__)

router = APIRouter()

PAGE_ROWS = 50
# From this size on, the page sends a file in pieces of that size.
RESUMABLE_BYTES, PIECE_BYTES = 64 << 20, 32 << 20


@dataclass(frozen=True, slots=True)
class _Row:
    """A video of the list with what people decided on the clip."""

    video: Video
    kind: str
    badge: str
    decided: str
    part: str


def static_files() -> StaticFiles:
    """Scripts and styles: the page's own, and the report's."""
    return _Static(packages=[("web.pages", "static"), ("pipeline.results", "templates")])


class _Static(StaticFiles):
    """Revalidated each time: a new version of the package has new ones under the same names."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        answer = super().file_response(*args, **kwargs)
        answer.headers["Cache-Control"] = "no-cache"
        return answer

    def lookup_path(self, path: str) -> Any:
        if not path.endswith((".css", ".js", ".svg")):  # templates are next to the report's style
            return "", None
        return super().lookup_path(path)


@router.get("/")
def home() -> RedirectResponse:
    """The list."""
    return RedirectResponse("/videos", 303)


@router.get("/login")
def loginpage(request: Request, service: TheService) -> Response:
    """Where a person enters a key."""
    if signed_in(request, service) is not None:
        return RedirectResponse("/videos", 303)
    return login_form(service)


@router.post("/login")
def login(request: Request, service: TheService, key: Annotated[str, FormField()] = "") -> Response:
    """Start a session."""
    # A foreign page could sign a person in with the key of another one.
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return login_form(service, 403, TEXT["key_wrong"])
    service.unknown_keys.check(request.client.host if request.client else "")
    try:
        found = service.keys.check(key.strip())
    except ProblemError as error:
        return login_form(service, error.status, TEXT["key_wrong"])
    return start_session(service, found, RedirectResponse("/videos", 303))


def login_form(service: Service, status: int = 200, error: str = "") -> Response:
    """The page where people sign in."""
    return page(service, "login.html.j2", None, status, error=error, by_provider=service.provider is not None)


def start_session(service: Service, key: Key, answer: Response) -> Response:
    """Start a session with a response.

    Args:
        service: it.
        key: who signed in.
        answer: gets the session's cookie.
    """
    text, _ = service.keys.open_session(key)
    answer.set_cookie(COOKIE, text, max_age=int(SESSION_S), httponly=True, samesite="strict", secure=service.is_secure)
    return answer


@router.post("/logout")
def logout(request: Request, service: TheService, csrf: Annotated[str, FormField(max_length=100)] = "") -> Response:
    """End a session."""
    caller = signed_in(request, service)
    answer: Response = RedirectResponse("/login", 303)
    if caller is not None:
        check_own_page(request, caller, csrf)
        service.keys.close_session(request.cookies.get(COOKIE, ""))
        if (there := _sign_out_there(service, caller)) is not None:
            answer = page(service, "signed_out.html.j2", None, provider_out=there)
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=service.is_secure)
    return answer


def _appeal_texts(appeals: Sequence[Appeal], names: dict[str, str]) -> list[dict[str, str]]:
    return [
        {
            "reason": each.reason,
            "against": TEXT[each.against.value] if each.against is not None else "",
            "by": names.get(each.by, each.by),
            "at": moment(each.made_s),
        }
        for each in appeals
    ]


def _sign_out_there(service: Service, caller: Caller) -> str | None:
    """Where a person ends their session at the provider, which would sign them in again without a question."""
    if service.provider is None or not service.accounts.has(caller.key.id):
        return None
    try:
        return service.provider.sign_out_url()
    except OidcError as error:
        log.warning("nobody can be sent to the provider", error=str(error))
        return None


@router.get("/videos")
def video_list(
    request: Request,
    service: TheService,
    form: Annotated[Form, Depends(form_of)],
    cursor: Annotated[str | None, Query(max_length=500)] = None,
) -> Response:
    """The list, with uploads above it."""
    caller = signed_in(request, service)
    if caller is None:
        return RedirectResponse("/login", 303)
    chosen = form.filter(caller)
    found = service.list.page(chosen, sort=form.sort, limit=PAGE_ROWS, cursor=cursor)
    return page(
        service,
        "videos.html.j2",
        caller,
        rows=[_row(video, caller) for video in found.videos],
        counts={state.value: n for state, n in service.list.states(only_own(caller)).items()},
        following=None if found.cursor is None else f"/videos?{form.query(cursor=found.cursor)}",
        form=form,
        max_name=MAX_NAME,
        sources=[(each.value, TEXT[f"source_{each.value}"]) for each in SourceClass],
        strengths=[(each.value, TEXT[f"strength_{each.value}"]) for each in Strength],
        query=form.query(),
        views=service.views.of(caller.key),
        next_query=api_query(chosen, form.sort),
        may_review=caller.key.role >= Role.REVIEW,
        choices=[(each.value, TEXT[each.value]) for each in Choice],
        resumable_bytes=RESUMABLE_BYTES,
        piece_bytes=PIECE_BYTES,
        by_uri=bool(service.judge.allow.schemes or service.judge.allow.roots),
    )


@router.get("/videos/{id}")
def videopage(id: str, request: Request, service: TheService) -> Response:
    """One video: player, people, decision."""
    caller = signed_in(request, service)
    if caller is None:
        return RedirectResponse("/login", 303)
    try:
        video = seen(service, caller, id)
    except ProblemError as error:
        return page(service, "missing.html.j2", caller, error.status)
    service.auditor.looked(caller.key.id, video.id)
    report = service.videos.report(video)
    similar = service.known.similar(video, only_own(caller))
    names = {key.id: key.name for key in service.keys.all()}
    lease = service.reviews.holder(video)
    is_held = lease is not None and lease.by != caller.key.id
    may_review = caller.key.role >= Role.REVIEW and report is not None
    return page(
        service,
        "video.html.j2",
        caller,
        preferences=PreferencesResource.model_validate(service.keys.preferences(caller.key)),
        is_held=may_review and is_held,
        skips=[(names.get(each.by, each.by), each.reason) for each in service.reviews.skips(video)],
        reasons=SKIP_REASONS,
        video=video,
        clip=None if report is None else detailed(report),
        similar=similar,
        known=known_decision(similar),
        has_file=video.upload.uri is None,
        is_complete=service.judge.is_complete(video),
        part=_part_text(video.upload),
        moments=service.explainer.moments_s(video),
        is_picture=(video.upload.media_type or "").startswith("image/"),
        decisions=[_decision_text(each, names, caller.key.id) for each in service.decisions.seen_by(video, caller.key)],
        appeals=_appeal_texts(appeals_seen(service, caller, video), names),
        may_appeal=report is not None and video.golden is None and video.round in (Round.CLOSED, Round.AUTOMATIC),
        choices=[(each.value, TEXT[each.value]) for each in Choice],
        may_decide=may_review and not is_held and not (video.round is Round.SENIOR and caller.key.role < Role.SENIOR),
        may_delete=video.key_id == caller.key.id or caller.key.role >= Role.SENIOR,
    )


def _row(video: Video, caller: Caller) -> _Row:
    kind, badge = "unjudged", ""
    if video.label is not None:
        kind, badge = video.label.value, TEXT[video.label.value]
    elif video.outcome is not None:
        badge = wording.OUTCOMES[video.outcome].badge
    part = _part_text(video.upload)
    if video.answer is not None and not (caller.key.role is Role.REVIEW and is_hidden(video)):
        return _Row(video, kind, badge, TEXT[video.answer.value], part)
    # Reviewers do not see how far others are.
    shows = video.round is not None and caller.key.role >= Role.SENIOR
    return _Row(video, kind, badge, TEXT[f"round_{video.round}"] if shows else "", part)


def _part_text(upload: Upload) -> str:
    """`8.30 s to 4:05.2`; "" where all of the video is judged."""
    if upload.part is None:
        return ""
    end = TEXT["to_end"] if upload.end_s is None else wording.moment_text(upload.end_s)
    return f"{wording.moment_text(upload.part.start_s)} {TEXT['to']} {end}"


def _decision_text(decision: Decision, names: dict[str, str], key_id: str) -> dict[str, Any]:
    is_standing = decision.undone_s is None
    return {
        "on": TEXT["the_clip"] if decision.track is None else f"{TEXT['track']} {decision.track}",
        "decision": TEXT[decision.decision.value],
        # On the clip, by this person, and not taken back: its button is pressed.
        "own": decision.decision.value if decision.by == key_id and decision.track is None and is_standing else "",
        "reason": decision.reason,
        "comment": decision.comment,
        "by": names.get(decision.by, decision.by),
        "at": moment(decision.made_s),
        "undone": not is_standing,
    }
