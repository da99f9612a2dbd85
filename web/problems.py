"""Errors of the API: problem details as JSON (RFC 9457), with a code for programs."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from enum import StrEnum
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from models.errors import UnmaskError

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")


class Code(StrEnum):
    """What went wrong, for programs; docs/api.md lists them. Codes may be added."""

    BAD_REQUEST = "bad_request"
    INVALID = "invalid"
    NO_KEY = "no_key"
    WRONG_KEY = "wrong_key"
    NOT_ALLOWED = "not_allowed"
    FOREIGN_PAGE = "foreign_page"
    NOT_FOUND = "not_found"
    METHOD = "method_not_allowed"
    TOO_SLOW = "too_slow"
    CONFLICT = "conflict"
    LENGTH = "length_mismatch"
    TOO_LARGE = "too_large"
    NO_MEDIA = "no_media"
    URI_REFUSED = "uri_refused"
    KEY_REUSED = "key_reused"
    BAD_RANGE = "bad_range"
    TUS = "tus_version"
    CHECKSUM = "checksum_mismatch"
    BUSY = "busy"
    RATE = "rate_limited"
    NO_SPACE = "no_space"
    INTERNAL = "internal"
    STARTING = "starting"
    NO_WORKERS = "no_workers"
    AWAY = "away"


class ProblemError(UnmaskError):
    """An error that a client gets.

    Args:
        status: of the response.
        code: for programs.
        detail: what was wrong, what was expected and what to do.
        headers: of the response.
    """

    def __init__(self, status: int, code: Code, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})


def not_found(what: str) -> ProblemError:
    """It does not exist, or is not for this key: both look the same."""
    return ProblemError(404, Code.NOT_FOUND, f"no such {what}")


def busy(detail: str, retry_after_s: float) -> ProblemError:
    """Nothing was accepted; another try later may be."""
    return ProblemError(429, Code.BUSY, detail, {"Retry-After": str(max(1, round(retry_after_s)))})


# Of the request, its status, and the headers of the answer; None: no page is wanted.
AsPage = Callable[[Request, int, Mapping[str, str]], Response | None]


def handle_problems(app: FastAPI, headers: Mapping[str, str], as_page: AsPage = lambda *_: None) -> None:
    """Answer every error with a problem, or with a page where a browser asks for one.

    Args:
        app: the application.
        headers: of answers to faults, which pass no middleware.
        as_page: makes the page.
    """

    def answer(
        request: Request,
        status: int,
        code: Code,
        detail: str,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> Response:
        page = as_page(request, status, headers or {})
        return response(request, status, code, detail, headers, **more) if page is None else page

    @app.exception_handler(ProblemError)
    async def problem(request: Request, error: ProblemError) -> Response:
        return answer(request, error.status, error.code, error.detail, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        found = [{"at": ".".join(map(str, each["loc"])), "message": str(each["msg"])} for each in error.errors()]
        return answer(request, 422, Code.INVALID, fields_text(error.errors()), errors=found)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        codes = {404: Code.NOT_FOUND, 405: Code.METHOD, 413: Code.TOO_LARGE}
        code = codes.get(error.status_code, Code.BAD_REQUEST)
        headers = error.headers
        if error.status_code == 405 and (methods := _methods(request)):
            headers = {"Allow": methods}
        return answer(request, error.status_code, code, str(error.detail), headers)

    @app.exception_handler(Exception)
    async def internal(request: Request, error: Exception) -> Response:
        request_id = getattr(request.state, "request_id", "")
        log.error("a request failed", request_id=request_id, path=request.url.path, error=repr(error))
        closing = {**headers, "X-Request-Id": request_id, "Connection": "close"}
        detail = "a fault of the service; its log has the details under this request id"
        return answer(request, 500, Code.INTERNAL, detail, closing)


async def answer_without_space(request: Request) -> AsyncIterator[None]:
    """Dependency of all routes: a full disk is an answer, not a fault whose traceback is logged.

    Raises:
        ProblemError: what the route did needed space that was not there.
    """
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        if not is_out_of_space(error):
            raise
        request_id = getattr(request.state, "request_id", "")
        log.warning("no space left for a request", request_id=request_id, path=request.url.path)
        detail = "the service has no space left"
        raise ProblemError(507, Code.NO_SPACE, detail, {"Connection": "close"}) from error


def is_out_of_space(error: Exception) -> bool:
    """Whether it says that a disk is full, or a quota used up."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:  # 460, of tus
        return "Checksum Mismatch"


def fields_text(errors: Sequence[Any]) -> str:
    """What is wrong with which field, from the errors of pydantic."""
    return "; ".join(f"{'.'.join(map(str, each['loc'])) or 'body'}: {each['msg']}" for each in errors)


def _methods(request: Request) -> str:
    """Methods of the path, for `Allow`: the framework names those of its first route only."""
    scope = dict(request.scope)
    found = []
    for method in _METHODS:
        scope["method"] = method
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes):
            found.append(method)
    return ", ".join(found)


def response(
    request: Request,
    status: int,
    code: Code,
    detail: str,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> JSONResponse:
    """The problem as a response."""
    body = {
        "type": f"urn:unmask:problem:{code}",
        "title": _title(status),
        "status": status,
        "code": code,
        "detail": detail,
        "instance": request.url.path,
        "request_id": getattr(request.state, "request_id", None),
        **more,
    }
    return JSONResponse(body, status, dict(headers or {}), media_type=MEDIA_TYPE)
