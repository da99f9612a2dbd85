"""The pages: sign in, the list of videos, one video."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Annotated, Any
from urllib.parse import urlencode

import jinja2
from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from pipeline.contracts import Label, Outcome, State
from pipeline.results import wording
from pipeline.results.clip_view import detailed, environment
from web.keys import SESSION_S, Caller, Role
from web.pages.text import TEXT
from web.problems import ProblemError
from web.routes.videos import only_own, seen
from web.service import COOKIE, Service, TheService, check_own_page
from web.videos import Choice, Decision, Filter, Sort, Video

router = APIRouter()

PAGE_ROWS = 50
_LABELS = {
    Label.FAKE: ("fake", "Fake"),
    Label.REAL: ("real", "Real"),
    Label.INCONCLUSIVE: ("inconclusive", "Inconclusive"),
}


@dataclass(frozen=True, slots=True)
class _Row:
    """A video of the list with what people decided on the clip."""

    video: Video
    kind: str
    badge: str
    decided: str


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
def login_page(request: Request, service: TheService) -> Response:
    """Where a person enters a key."""
    if _caller(request, service) is not None:
        return RedirectResponse("/videos", 303)
    return _page("login.html.j2", None, error="")


@router.post("/login")
def login(request: Request, service: TheService, key: Annotated[str, Form()] = "") -> Response:
    """Start a session."""
    # A foreign page could sign a person in with the key of another one.
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return _page("login.html.j2", None, 403, error=TEXT["key_wrong"])
    service.unknown_keys.check(request.client.host if request.client else "")
    try:
        found = service.keys.check(key.strip())
    except ProblemError as error:
        return _page("login.html.j2", None, error.status, error=TEXT["key_wrong"])
    text, _ = service.keys.open_session(found)
    answer = RedirectResponse("/videos", 303)
    answer.set_cookie(
        COOKIE, text, max_age=int(SESSION_S), httponly=True, samesite="strict", secure=service.options.secure
    )
    return answer


@router.post("/logout")
def logout(request: Request, service: TheService, csrf: Annotated[str, Form(max_length=100)] = "") -> Response:
    """End a session."""
    caller = _caller(request, service)
    if caller is not None:
        check_own_page(request, caller, csrf)
        service.keys.close_session(request.cookies.get(COOKIE, ""))
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE)
    return answer


@router.get("/videos")
def video_list(
    request: Request,
    service: TheService,
    show: str = "",
    find: Annotated[str, Query(max_length=255)] = "",
    sort: Sort = "-created",
    cursor: Annotated[str | None, Query(max_length=500)] = None,
) -> Response:
    """The list, with uploads above it."""
    caller = _caller(request, service)
    if caller is None:
        return RedirectResponse("/login", 303)
    chosen = _chosen(show, find, only_own(caller))
    page = service.videos.list(chosen, sort=sort, limit=PAGE_ROWS, cursor=cursor)
    query = [("show", show), ("find", find), ("sort", sort)]
    following = None if page.cursor is None else f"/videos?{urlencode([*query, ('cursor', page.cursor)])}"
    return _page(
        "videos.html.j2",
        caller,
        rows=[_row(service, video) for video in page.videos],
        counts={state.value: found for state, found in service.videos.counts(only_own(caller)).items()},
        following=following,
        show=show,
        find=find,
        sort=sort,
        by_uri=bool(service.judge.allow.schemes or service.judge.allow.roots),
    )


@router.get("/videos/{id}")
def video_page(id: str, request: Request, service: TheService) -> Response:
    """One video: player, people, decision."""
    caller = _caller(request, service)
    if caller is None:
        return RedirectResponse("/login", 303)
    try:
        video = seen(service, caller, id)
    except ProblemError as error:
        return _page("missing.html.j2", caller, error.status)
    report = service.videos.report(video)
    names = {key.id: key.name for key in service.keys.all()}
    return _page(
        "video.html.j2",
        caller,
        video=video,
        clip=None if report is None else detailed(report),
        has_file=video.upload.uri is None,
        is_picture=(video.upload.media_type or "").startswith("image/"),
        decisions=[_decision_text(each, names) for each in service.videos.decisions(video)],
        choices=[(each.value, TEXT[each.value]) for each in Choice],
        may_decide=caller.key.role >= Role.REVIEW and report is not None,
        may_delete=video.key_id == caller.key.id or caller.key.role >= Role.SENIOR,
    )


def _caller(request: Request, service: Service) -> Caller | None:
    return service.keys.session(request.cookies.get(COOKIE, ""))


def _chosen(show: str, find: str, key_id: str | None) -> Filter:
    """What the list's menu names; anything else is all."""
    kind, _, value = show.partition(":")
    return Filter(
        key_id,
        state=State(value) if kind == "state" and value in list(State) else None,
        outcome=Outcome(value) if kind == "outcome" and value in list(Outcome) else None,
        label=Label(value) if kind == "label" and value in list(Label) else None,
        name=find or None,
        decided={"yes": True, "no": False}.get(value) if kind == "decided" else None,
    )


def _row(service: Service, video: Video) -> _Row:
    kind, badge = "unjudged", ""
    if video.label is not None:
        kind, badge = _LABELS[video.label]
    elif video.outcome is not None:
        badge = wording.OUTCOMES[video.outcome].badge
    made = [each for each in service.videos.decisions(video) if each.track is None and each.undone_s is None]
    return _Row(video, kind, badge, ", ".join(sorted({TEXT[each.decision.value] for each in made})))


def _decision_text(decision: Decision, names: dict[str, str]) -> dict[str, Any]:
    return {
        "on": TEXT["the_clip"] if decision.track is None else f"{TEXT['track']} {decision.track}",
        "decision": TEXT[decision.decision.value],
        "reason": decision.reason,
        "comment": decision.comment,
        "by": names.get(decision.by, decision.by),
        "at": moment(decision.made_s),
        "undone": decision.undone_s is not None,
    }


def moment(unix_s: float) -> str:
    """`2026-11-28 10:31 UTC`."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M UTC")


@cache
def _templates() -> jinja2.Environment:
    found = environment(jinja2.PackageLoader("web.pages"))
    found.filters["when"] = moment
    found.globals["text"] = TEXT
    found.globals["icon"] = (resources.files("web.pages") / "static" / "icon.svg").read_text("utf-8")
    return found


def _page(name: str, caller: Caller | None, status: int = 200, **values: Any) -> HTMLResponse:
    return HTMLResponse(_templates().get_template(name).render(caller=caller, **values), status)
