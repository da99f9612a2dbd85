"""The page of live streams."""

from __future__ import annotations

import time
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from web.keys import Role
from web.pages.rendering import page, signed_in
from web.pages.stream_view import stream_view
from web.pages.text import TEXT
from web.problems import ProblemError
from web.service import TheService

router = APIRouter()

MAX_STREAMS: Final = 50


@router.get("/streams")
def stream_page(request: Request, service: TheService) -> Response:
    """Live streams that run."""
    caller = signed_in(request, service)
    if caller is None:
        return RedirectResponse("/login", 303)
    if caller.key.role < Role.REVIEW:
        return page(service, "missing.html.j2", caller, 404)
    if service.streams is None:
        return page(service, "missing.html.j2", caller, 404, said=TEXT["streams_need_workers"])
    try:
        found = service.streams.running(MAX_STREAMS)
    except ProblemError as error:
        return page(service, "streams.html.j2", caller, error.status, streams=[], is_away=True)
    now_s = time.time()
    views = [stream_view(look, now_s) for look in sorted(found, key=lambda look: look.id)]
    return page(service, "streams.html.j2", caller, streams=views, is_away=False)
