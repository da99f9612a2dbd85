"""Fetches a file over HTTP, or posts one: each redirect and each address is checked before anything is asked of it."""

from __future__ import annotations

import base64
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from typing import Any, Final, Protocol, Self
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from models.errors import UnmaskError

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_READ_BYTES = 1 << 20
_REDIRECTS = 5
_REDIRECT_STATUS = frozenset({301, 302, 303, 307, 308})
# The server is asked again later where it answers so; any other refusal is final.
_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
# Of one address; hosts with several are tried one by one.
_CONNECT_S = 10.0
# Nothing at all arrives for this long.
_SILENT_S = 30.0
# Name, connection, TLS, request and the whole head of the answer take at most this long, for each redirect.
_HEAD_S = 60.0
# How often a stop is asked for while nothing arrives.
_TURN_S = 0.25
# A fetch may take hours, but not without progress: below this rate over a whole period it ends.
_PERIOD_S = 60.0
_LEAST_BYTES_S = 16 << 10
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_GLOBAL_UNICAST: Final = ipaddress.ip_network("2000::/3")
# Newer than, or missing in, Python's tables (IANA's special-purpose registries, 2025); and addresses that look public,
# at which clouds keep credentials: Oracle's (in 192.0.0.0/24) and Azure's.
_NOT_PUBLIC_NETWORKS = "192.0.0.0/24 168.63.129.16/32 192.88.99.0/24 64:ff9b:1::/48 3fff::/20 5f00::/16 2001:db8::/32"
_NOT_PUBLIC: Final = tuple(map(ipaddress.ip_network, _NOT_PUBLIC_NETWORKS.split()))


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
    stop: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Read the file behind a URL from start to end, following at most five redirects.

    A host is resolved once, and the connection goes to the address that was checked. Name and password of the URL are
    sent to its own host only. There is no limit of time while at least 16 KiB a second arrive.

    Args:
        url: http:// or https://.
        write: called with each block; what it raises ends the fetch.
        guard: checks the URL, each redirect and each address; None: all are allowed.
        stop: asked several times a second, whether to end.
        clock: seconds, for the rate.

    Raises:
        FetchError: the file does not exist, may not be read, or the connection fails.
        StoppedError: `stop` said so.
    """
    with _Watch(stop) as watch:
        _fetch(url, write, guard, watch, clock)


def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    guard: Guard | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Post a body to a URL, and return the status of the answer. Redirects are not followed, the answer is not read.

    Args:
        url: http or https.
        body: at most some MiB.
        headers: in addition to the usual ones.
        guard: what may be reached; None: everything.
        stop: asked several times a second, whether to end.

    Raises:
        FetchError: it is not allowed, or there was no answer within a minute.
        StoppedError: `stop` said so.
    """
    parts = _split(url)
    with _Watch(stop) as watch, _connected(url, parts, guard, watch) as connection:
        usual = _headers((parts.username, parts.password))
        connection.request("POST", _target(parts), body, {**usual, **headers})
        status = connection.getresponse().status
        watch.check()
        return status


def exchange(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    max_bytes: int,
    guard: Guard | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> bytes:
    """Post a body to a URL, and return the body of the answer (200). Redirects are not followed.

    Args:
        url: http or https.
        body: at most some MiB.
        headers: in addition to the usual ones.
        max_bytes: of the answer.
        guard: what may be reached; None: everything.
        stop: asked several times a second, whether to end.

    Raises:
        FetchError: it is not allowed, there was no whole answer within a minute, it is another status or too large.
        StoppedError: `stop` said so.
    """
    parts = _split(url)
    with _Watch(stop) as watch, _connected(url, parts, guard, watch) as connection:
        usual = _headers((parts.username, parts.password))
        connection.request("POST", _target(parts), body, {**usual, **headers})
        answer = connection.getresponse()
        watch.check()
        if answer.status != http.client.OK:
            raise FetchError(
                f"{parts.hostname} answers {answer.status} {answer.reason} for {parts.path or '/'}",
                transient=answer.status in _TRANSIENT_STATUS,
            )
        # The head's minute goes on: a body that drips ends with it.
        expected = answer.length
        found = answer.read(max_bytes + 1)
        watch.check()
        if len(found) > max_bytes:
            raise FetchError(f"{parts.hostname} answers with more than {max_bytes:,} bytes")
        if expected is not None and len(found) < expected:
            raise FetchError(f"the answer ended after {len(found)} of {expected} bytes", transient=True)
        return found


class StoppedError(Exception):
    """The fetch was stopped."""


class _Watch:
    """Ends a fetch from outside: it shuts the connection when `stop` says so, or a head takes too long.

    http.client reads heads, trailers and endless `100 Continue` in loops of its own, and each byte resets a socket's
    timeout.
    """

    def __init__(self, stop: Callable[[], bool]) -> None:
        self.stopped = self.late = False
        self._stop = stop
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._due_s: float | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fetch-watch", daemon=True)

    def begin(self) -> None:
        """A connection and a head are waited for."""
        with self._lock:
            self._due_s, self._socket = time.monotonic() + _HEAD_S, None

    def opened(self, connection: socket.socket) -> None:
        """This connection is to be shut."""
        with self._lock:
            self._socket = connection

    def arrived(self) -> None:
        """A head or a block is here; the next block is waited for."""
        with self._lock:
            self._due_s = time.monotonic() + _PERIOD_S

    def closing(self) -> None:
        """The connection is to be closed by the fetch itself."""
        with self._lock:
            self._socket = None

    def check(self) -> None:
        """Raise why the fetch was ended, if it was."""
        if self.stopped or self._stop():
            raise StoppedError
        if self.late:
            raise FetchError("the answer takes too long", transient=True)

    def _run(self) -> None:
        while not self._ended.wait(_TURN_S):
            with self._lock:
                self.stopped = self.stopped or self._stop()
                self.late = self.late or (self._due_s is not None and time.monotonic() > self._due_s)
                if (self.stopped or self.late) and self._socket is not None:
                    with suppress(OSError):
                        self._socket.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def _fetch(
    url: str, write: Callable[[bytes], object], guard: Guard | None, watch: _Watch, clock: Callable[[], float]
) -> None:
    first = _split(url)
    for _ in range(_REDIRECTS + 1):
        parts = _split(url)
        credentials = (first.username, first.password) if _place(parts) == _place(first) else (None, None)
        with _connected(url, parts, guard, watch) as connection:
            connection.request("GET", _target(parts), headers=_headers(credentials))
            answer = connection.getresponse()
            watch.check()
            watch.arrived()
            if answer.status in _REDIRECT_STATUS and (location := answer.getheader("Location")):
                url = _joined(url, location)
                continue
            if answer.status != http.client.OK:
                raise FetchError(
                    f"{parts.hostname} answers {answer.status} {answer.reason} for {parts.path or '/'}",
                    transient=answer.status in _TRANSIENT_STATUS,
                )
            _read(answer, write, clock, watch)
            return
    raise FetchError(f"more than {_REDIRECTS} redirects")


@contextmanager
def _connected(
    url: str, parts: SplitResult, guard: Guard | None, watch: _Watch
) -> Iterator[http.client.HTTPConnection]:
    """A connection to a URL's host, checked first; what goes wrong within the block is a `FetchError`."""
    if guard is not None:
        guard.check(url)
    watch.begin()
    try:
        connection = _connect(url, parts, guard, watch)
    except OSError as error:
        watch.check()
        raise FetchError(f"{parts.hostname}: {error}", transient=True) from error
    try:
        yield connection
    except (OSError, http.client.HTTPException) as error:
        watch.check()
        raise FetchError(f"{parts.hostname}: {type(error).__name__}: {error}", transient=True) from error
    finally:
        watch.closing()
        connection.close()


def check_host(uri: str, guard: Guard) -> None:
    """Check all addresses of the host that a URI of another scheme names (ftp, sftp, smb ...).

    The connection is made later, by another library, which looks the name up again.

    Raises:
        FetchError: it has no address, or one that is not allowed.
    """
    host = urlsplit(uri).hostname
    if not host:
        return
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise FetchError(f"{host}: {error}", transient=isinstance(error, OSError)) from error
    addresses = {str(entry[4][0]).partition("%")[0] for entry in found}
    if not all(guard.allows_address(uri, ipaddress.ip_address(each)) for each in addresses):
        raise _not_allowed(host, sorted(addresses))


def _not_allowed(host: str, addresses: Sequence[str]) -> FetchError:
    return FetchError(
        f"{host} is at {', '.join(addresses)}, a private or reserved address: UNMASK_URI_ALLOW must name the host, "
        "with the path"
    )


def is_public(address: IpAddress) -> bool:
    """Whether an address is one of the public Internet: not private, loopback, link-local, reserved or multicast.

    An IPv4 address inside an IPv6 one (mapped, 6to4, Teredo, NAT64) is looked at itself. Of IPv6 only global unicast
    (2000::/3) is public.
    """
    if any(address in network for network in _NOT_PUBLIC if network.version == address.version):
        return False
    if isinstance(address, ipaddress.IPv6Address):
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in _NAT64:
            inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if found := [each for each in inner if each is not None]:
            return all(is_public(each) for each in found)
        if address not in _GLOBAL_UNICAST or int(address) >> 32 & 0xFDFFFFFF == 0x5EFE:  # ISATAP (RFC 5214)
            return False
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


def _connect(url: str, parts: SplitResult, guard: Guard | None, watch: _Watch) -> http.client.HTTPConnection:
    host, port = parts.hostname or "", _port(parts)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise FetchError(f"{host}: {error}", transient=isinstance(error, OSError)) from error
    addresses = list(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found))
    allowed = [each for each in addresses if guard is None or guard.allows_address(url, ipaddress.ip_address(each))]
    if not allowed:
        raise _not_allowed(host, addresses)
    for number, address in enumerate(allowed, 1):
        watch.check()
        try:
            opened = socket.create_connection((address, port), _CONNECT_S)
            opened.settimeout(_SILENT_S)
            break
        except OSError:
            if number == len(allowed):
                raise
    watch.opened(opened)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        try:
            opened = context.wrap_socket(opened, server_hostname=host, do_handshake_on_connect=False)
            watch.opened(opened)
            opened.do_handshake()
        except BaseException:
            opened.close()
            raise
        connection = http.client.HTTPSConnection(host, port, context=context)
    else:
        connection = http.client.HTTPConnection(host, port)
    connection.sock = opened
    return connection


def _read(answer: Any, write: Callable[[bytes], object], clock: Callable[[], float], watch: _Watch) -> None:
    expected = None if answer.length is None else int(answer.length)
    total = counted = 0
    since = clock()
    # read1: what has arrived, so that a slow server is noticed.
    # Beyond the last block, http.client reads trailers without end: they are not waited for.
    while (expected is None or total < expected) and (block := answer.read1(_READ_BYTES)):
        watch.check()
        watch.arrived()
        write(block)
        total += len(block)
        counted += len(block)
        passed = clock() - since
        if passed >= _PERIOD_S:
            if counted < _LEAST_BYTES_S * passed:
                raise FetchError(f"{counted / passed:.0f} bytes a second is too slow", transient=True)
            since, counted = clock(), 0
    watch.check()
    if expected is not None and total < expected:
        raise FetchError(f"it ended after {total} of {expected} bytes", transient=True)
