"""Sign-in by a provider: to it, and back."""

from __future__ import annotations

from typing import Annotated, Final

import structlog
from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from web.oidc import FLOW_S, OidcError
from web.oidc_options import CALLBACK
from web.pages.rendering import page
from web.pages.routes import login_form, start_session
from web.pages.text import TEXT
from web.problems import ProblemError
from web.service import Service, TheService

log = structlog.get_logger(__name__)

router = APIRouter()

START: Final = "/login/oidc"
_COOKIE: Final = "unmask_sign_in"
_Parameter = Annotated[str, Query(max_length=4000)]


@router.get(START)
def begin(request: Request, service: TheService) -> Response:
    """Send a person to the provider."""
    if service.provider is None:
        return page(service, "missing.html.j2", None, 404)
    service.unknown_keys.check(request.client.host if request.client else "")
    try:
        url, browser = service.provider.begin()
    except OidcError as error:
        return _failed(service, error)
    answer = RedirectResponse(url, 303)
    # Lax: the provider's page leads back here, which Strict would take for a foreign one.
    answer.set_cookie(
        _COOKIE, browser, max_age=int(FLOW_S), path=CALLBACK, httponly=True, samesite="lax", secure=service.is_secure
    )
    return answer


@router.get(CALLBACK)
def back(
    request: Request,
    service: TheService,
    state: _Parameter = "",
    code: _Parameter = "",
    iss: Annotated[str | None, Query(max_length=4000)] = None,
    error: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """Start the session of a person whom the provider sent back."""
    provider = service.provider
    if provider is None:
        return page(service, "missing.html.j2", None, 404)
    service.unknown_keys.check(request.client.host if request.client else "")
    options = provider.options
    try:
        person = provider.finish(state, request.cookies.get(_COOKIE, ""), code, issuer=iss, error=error)
    except OidcError as failure:
        return _failed(service, failure)
    try:
        key = service.accounts.enter(options.issuer, person.subject, person.name, options.roles.role_of(person.claims))
    except ProblemError as refused:
        log.warning("a person may not sign in", subject=person.subject, reason=refused.detail)
        return login_form(service, refused.status, TEXT["no_role"])
    log.info("signed in", key=key.id, subject=person.subject, role=key.role.text)
    # A page that leads on, not a redirect: a Strict cookie is not sent along one that a foreign page began.
    answer = start_session(service, key, page(service, "entered.html.j2", None))
    answer.delete_cookie(_COOKIE, path=CALLBACK)
    return answer


def _failed(service: Service, error: OidcError) -> Response:
    log.warning("nobody was signed in", error=str(error))
    if error.is_away:
        return login_form(service, 503, TEXT["provider_away"])
    return login_form(service, 403, TEXT["provider_failed"])
