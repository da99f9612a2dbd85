"""Fetches a file over HTTP: each redirect and each address is checked before anything is asked of it."""

from __future__ import annotations

import base64
import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Final, Protocol
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from models.errors import UnmaskError

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_READ_BYTES = 1 << 20
_REDIRECTS = 5
_REDIRECT_STATUS = frozenset({301, 302, 303, 307, 308})
# The server is asked again later where it answers so; any other refusal is final.
_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_SILENT_S = 30.0
# A fetch may take hours, but not without progress: below this rate over a whole period it ends.
_PERIOD_S = 60.0
_LEAST_BYTES_S = 16 << 10
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


class Guard(Protocol):
    """What may be read on behalf of others."""

    def check(self, uri: str) -> None:
        """Raises an error if the URI may not be read."""

    def allows_address(self, uri: str, address: IpAddress) -> bool:
        """Whether the URI's host may be reached at this address."""


class FetchError(UnmaskError):
    """A file cannot be fetched.

    Attributes:
        transient: another try may succeed.
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


def fetch(
    url: str,
    write: Callable[[bytes], object],
    *,
    guard: Guard | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Read the file behind a URL from start to end, following at most five redirects.

    A host is resolved once, and the connection goes to the address that was checked. Name and password of the URL are
    sent to its own host only. There is no limit of time while at least 16 KiB a second arrive.

    Args:
        url: http:// or https://.
        write: called with each block; what it raises ends the fetch.
        guard: checks the URL, each redirect and each address; None: all are allowed.
        clock: seconds, for the rate.

    Raises:
        FetchError: the file does not exist, may not be read, or the connection fails.
    """
    first = _split(url)
    for _ in range(_REDIRECTS + 1):
        parts = _split(url)
        if guard is not None:
            guard.check(url)
        credentials = (first.username, first.password) if _place(parts) == _place(first) else (None, None)
        try:
            connection = _connect(url, parts, guard)
        except OSError as error:
            raise FetchError(f"{parts.hostname}: {error}", transient=True) from error
        try:
            connection.request("GET", _target(parts), headers=_headers(credentials))
            answer = connection.getresponse()
            if answer.status in _REDIRECT_STATUS and (location := answer.getheader("Location")):
                url = _joined(url, location)
                continue
            if answer.status != http.client.OK:
                raise FetchError(
                    f"{parts.hostname} answers {answer.status} {answer.reason} for {parts.path or '/'}",
                    transient=answer.status in _TRANSIENT_STATUS,
                )
            _read(answer, write, clock)
            return
        except (OSError, http.client.HTTPException) as error:
            raise FetchError(f"{parts.hostname}: {type(error).__name__}: {error}", transient=True) from error
        finally:
            connection.close()
    raise FetchError(f"more than {_REDIRECTS} redirects")


def is_public(address: IpAddress) -> bool:
    """Whether an address is one of the public Internet: not private, loopback, link-local, reserved or multicast.

    An IPv4 address inside an IPv6 one (mapped, 6to4, Teredo, NAT64) is looked at itself.
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in _NAT64:
            inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if found := [each for each in inner if each is not None]:
            return all(is_public(each) for each in found)
    return address.is_global and not address.is_multicast


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise FetchError(f"not a URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise FetchError("expected http:// or https:// and a host")
    return parts


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise FetchError(f"a redirect to what is not a URL: {error}") from error


def _place(parts: SplitResult) -> tuple[str, str | None, int]:
    return parts.scheme, parts.hostname, _port(parts)


def _port(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)


def _target(parts: SplitResult) -> str:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    # As browsers do: what is no ASCII, a space or a control character is sent percent-encoded.
    return "".join(c if "!" <= c <= "~" else "".join(f"%{b:02X}" for b in c.encode()) for c in target)


def _headers(credentials: tuple[str | None, str | None]) -> dict[str, str]:
    headers = {"User-Agent": f"unmask/{version('unmask')}", "Accept": "*/*", "Connection": "close"}
    name, password = credentials
    if name is not None:
        pair = f"{unquote(name)}:{unquote(password or '')}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
    return headers


def _connect(url: str, parts: SplitResult, guard: Guard | None) -> http.client.HTTPConnection:
    host, port = parts.hostname or "", _port(parts)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise FetchError(f"{host}: {error}", transient=isinstance(error, OSError)) from error
    addresses = list(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found))
    allowed = [each for each in addresses if guard is None or guard.allows_address(url, ipaddress.ip_address(each))]
    if not allowed:
        raise FetchError(
            f"{host} is at {', '.join(addresses)}, a private or reserved address: UNMASK_URI_ALLOW must name the host"
        )
    for number, address in enumerate(allowed, 1):
        try:
            opened = socket.create_connection((address, port), _SILENT_S)
            break
        except OSError:
            if number == len(allowed):
                raise
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        try:
            opened = context.wrap_socket(opened, server_hostname=host)
        except BaseException:
            opened.close()
            raise
        connection = http.client.HTTPSConnection(host, port, context=context)
    else:
        connection = http.client.HTTPConnection(host, port)
    connection.sock = opened
    return connection


def _read(answer: Any, write: Callable[[bytes], object], clock: Callable[[], float]) -> None:
    expected = None if answer.length is None else int(answer.length)
    total = counted = 0
    since = clock()
    # read1: what has arrived, so that a slow server is noticed.
    while block := answer.read1(_READ_BYTES):
        write(block)
        total += len(block)
        counted += len(block)
        passed = clock() - since
        if passed >= _PERIOD_S:
            if counted < _LEAST_BYTES_S * passed:
                raise FetchError(f"{counted / passed:.0f} bytes a second is too slow", transient=True)
            since, counted = clock(), 0
    if expected is not None and total < expected:
        raise FetchError(f"it ended after {total} of {expected} bytes", transient=True)
