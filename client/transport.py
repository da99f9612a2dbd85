"""Requests with a key: errors as exceptions, and retries where they are safe."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import httpx

from client.errors import ApiError, LostConnectionError, error_of

# Nothing was done by requests that these answer: the service is busy, or a proxy did not reach it.
_PASSING: Final = frozenset({429, 502, 503, 504})
_FIRST_WAIT_S, _MAX_WAIT_S = 0.5, 30.0
# The service answers a large upload's last piece when it is hashed and on disk.
_TIMEOUT: Final = httpx.Timeout(60.0, connect=10.0, read=180.0)


class Transport:
    """A connection pool to one service.

    Args:
        url: of the service; it may have a path, behind a proxy.
        key: text of the API key.
        retries: further tries of a request that may be repeated.
        http: sends the requests instead of a new client; it keeps its timeouts, proxies and certificates.

    Raises:
        ValueError: the URL is not one of http or https with a host.
    """

    def __init__(self, url: str, key: str, *, retries: int, http: httpx.Client | None = None) -> None:
        address = httpx.URL(url)
        if address.scheme not in ("http", "https") or not address.host:
            raise ValueError(f"{url!r}: expected a URL such as http://127.0.0.1:8400")
        self._http = http or httpx.Client(timeout=_TIMEOUT)
        self._http.base_url = address
        self._http.headers["Authorization"] = f"Bearer {key}"
        self._http.headers["User-Agent"] = f"unmask-client/{_version()}"
        self._retries = retries

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        repeatable: bool | None = None,
        content: Callable[[], Any] | None = None,
        **more: Any,
    ) -> httpx.Response:
        """Send a request, and return its answer if that is 2xx.

        Args:
            method: of HTTP.
            path: of the API, such as /v1/videos.
            repeatable: whether a second request does no harm; None: if the method says so.
            content: makes the body, again for each try.
            more: as httpx has it.

        Raises:
            ApiError: the service refused it.
            LostConnectionError: no answer came.
        """
        if repeatable is None:
            repeatable = method in ("GET", "HEAD", "DELETE", "PUT")
        tries = 0
        while True:
            try:
                body = {} if content is None else {"content": content()}
                answer = self._http.request(method, path, **body, **more)
            except httpx.TransportError as error:
                # A connection that was not made has sent nothing.
                if tries >= self._retries or not (repeatable or isinstance(error, httpx.ConnectError)):
                    raise lost(error) from error
                wait_s = _wait_s(tries)
            else:
                if answer.is_success:
                    return answer
                failed = error_of(answer)
                if not repeatable or answer.status_code not in _PASSING or tries >= self._retries:
                    raise failed
                asked_s = failed.problem.retry_after_s
                wait_s = _wait_s(tries) if asked_s is None else asked_s
                if wait_s > 2 * _MAX_WAIT_S:
                    raise failed
            tries += 1
            time.sleep(wait_s)

    @contextmanager
    def stream(self, path: str, *, read_s: float) -> Iterator[httpx.Response]:
        """The answer to a GET as it comes; nothing is tried again.

        Args:
            path: of the API.
            read_s: longest time without a byte.

        Raises:
            ApiError: the service refused it.
            LostConnectionError: it ended early, or nothing came for too long.
        """
        timeout = httpx.Timeout(60.0, connect=10.0, read=read_s)
        try:
            with self._http.stream("GET", path, timeout=timeout) as answer:
                if not answer.is_success:
                    answer.read()
                    raise error_of(answer)
                yield answer
        except httpx.TransportError as error:
            raise lost(error) from error


def lost(error: httpx.TransportError) -> LostConnectionError:
    """The error of this package."""
    return LostConnectionError(f"{type(error).__name__}: {error}")


def pause(tries: int, error: ApiError | LostConnectionError) -> None:
    """Sleep before another try, as long as the service asked for."""
    asked_s = error.problem.retry_after_s if isinstance(error, ApiError) else None
    time.sleep(_wait_s(tries) if asked_s is None else min(asked_s, 2 * _MAX_WAIT_S))


def _wait_s(tries: int) -> float:
    """Twice as long each time, and at random, so that many clients do not come back at once."""
    return float(min(_MAX_WAIT_S, _FIRST_WAIT_S * 2**tries) * random.uniform(0.5, 1.0))


def _version() -> str:
    try:
        return version("unmask")
    except PackageNotFoundError:
        return "0"
