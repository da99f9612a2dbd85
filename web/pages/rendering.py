"""Templates of the pages."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any, Final

import jinja2
from fastapi import Request
from fastapi.responses import HTMLResponse, Response

from pipeline.results.clip_view import environment
from web.keys import Caller, Role
from web.pages.text import TEXT
from web.service import COOKIE, Service, service_of

# Answers for programs, and for what a page loads.
_NO_PAGES: Final = ("/v1/", "/static/", "/healthz", "/readyz", "/.well-known/")


def signed_in(request: Request, service: Service) -> Caller | None:
    """Who looks at a page; None: nobody has signed in.

    Raises:
        ProblemError: too many requests.
    """
    caller = service.keys.session(request.cookies.get(COOKIE, ""))
    if caller is not None:
        service.rates.check(caller.key.id)
    return caller


def page(service: Service, name: str, caller: Caller | None, status: int = 200, **values: Any) -> HTMLResponse:
    """A page from its template, with what the head of every page shows."""
    head = {
        "caller": caller,
        "is_senior": caller is not None and caller.key.role >= Role.SENIOR,
        "has_streams": caller is not None and has_streams(service, caller),
    }
    return HTMLResponse(_templates().get_template(name).render(**head, **values), status)


def problem_page(request: Request, status: int, headers: Mapping[str, str]) -> Response | None:
    """The page of an error; None where no browser asks for a page: it gets the problem as JSON."""
    if request.url.path.startswith(_NO_PAGES) or "text/html" not in request.headers.get("accept", ""):
        return None
    said = TEXT.get(f"problem_{status}", TEXT["problem" if status >= 500 else "problem_request"])
    request_id = getattr(request.state, "request_id", "")
    answer = page(service_of(request), "problem.html.j2", None, status, said=said, request_id=request_id)
    answer.headers.update(headers)
    return answer


def has_streams(service: Service, caller: Caller) -> bool:
    """Whether somebody may see live streams, and there can be some."""
    return service.streams is not None and caller.key.role >= Role.REVIEW


def moment(unix_s: float) -> str:
    """`2026-11-28 10:31 UTC`."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M UTC")


def age(unix_s: float) -> str:
    """How long ago, if that is worth a word: ` · 5 min`; empty within the first minute."""
    minutes = int(time.time() - unix_s) // 60
    return "" if minutes < 1 else f" · {minutes} min" if minutes < 120 else f" · {minutes // 60} h"


@cache
def _templates() -> jinja2.Environment:
    found = environment(jinja2.PackageLoader("web.pages"))
    found.filters["when"] = moment
    found.filters["age"] = age
    found.globals["text"] = TEXT
    found.globals["icon"] = (resources.files("web.pages") / "static" / "icon.svg").read_text("utf-8")
    return found
