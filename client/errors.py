"""What can go wrong, by what a program can do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import httpx


class ClientError(Exception):
    """Any error of this package."""


class LostConnectionError(ClientError):
    """No answer came, also after retries where those are safe."""


class WaitTimeoutError(ClientError, TimeoutError):
    """The video was not judged in time; it still will be."""


class SignatureError(ClientError):
    """A webhook's message is not from the service, too old, or malformed: ignore it."""


@dataclass(frozen=True, slots=True)
class Problem:
    """The problem details of an answer (RFC 9457).

    Attributes:
        status: of the response.
        code: for programs, see docs/api.md; "" where the answer was not the service's own, such as a proxy's.
        detail: for people.
        request_id: under which the service's log has more; None without.
        retry_after_s: when to try again, if the answer says so.
    """

    status: int
    code: str
    detail: str
    request_id: str | None
    retry_after_s: float | None


class ApiError(ClientError):
    """The service refused a request.

    Attributes:
        problem: why.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        asked = f" (request {problem.request_id})" if problem.request_id else ""
        super().__init__(f"{problem.status} {problem.code or 'error'}: {problem.detail}{asked}")

    @property
    def code(self) -> str:
        """See `Problem`."""
        return self.problem.code

    @property
    def request_id(self) -> str | None:
        """See `Problem`."""
        return self.problem.request_id


class AccessError(ApiError):
    """The key is missing, wrong, or may not do this (401, 403)."""


class NotFoundError(ApiError):
    """It does not exist, or is not for this key (404)."""


class BusyError(ApiError):
    """Too much at once: nothing was accepted, and another try later may be (429)."""


class ServiceError(ApiError):
    """A fault of the service (5xx)."""


class RefusedError(ApiError):
    """The request is wrong, and stays so (any other 4xx)."""


_KINDS: Final[dict[int, type[ApiError]]] = {401: AccessError, 403: AccessError, 404: NotFoundError, 429: BusyError}


def error_of(response: httpx.Response) -> ApiError:
    """The error of an answer whose body was read."""
    body: Any = None
    if "json" in response.headers.get("content-type", ""):
        try:
            body = response.json()
        except ValueError:
            body = None
    found: dict[str, Any] = body if isinstance(body, dict) else {}
    problem = Problem(
        response.status_code,
        str(found.get("code") or ""),
        str(found.get("detail") or response.reason_phrase),
        found.get("request_id") or response.headers.get("x-request-id"),
        retry_after_s(response),
    )
    kind = _KINDS.get(response.status_code, ServiceError if response.status_code >= 500 else RefusedError)
    return kind(problem)


def retry_after_s(response: httpx.Response) -> float | None:
    """Seconds of a `Retry-After`; the service never sends a date."""
    text = response.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() else None
