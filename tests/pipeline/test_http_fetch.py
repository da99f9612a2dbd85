"""Fetching over HTTP from real servers on this machine: redirects, addresses, credentials, slow and broken answers."""

from __future__ import annotations

import base64
import ipaddress
import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from pipeline.contracts import Outcome
from pipeline.http_fetch import FetchError, IpAddress, StoppedError, exchange, fetch, is_public
from pipeline.sources import ScanInterruptedError, Source, SourceError, open_source
from pipeline.worker.access import UriAllow

CONTENT = bytes(range(256)) * 100


@dataclass
class Server:
    """Answers by path; keeps what was asked."""

    port: int = 0
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    redirects: dict[str, str] = field(default_factory=dict)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"


@pytest.fixture
def start() -> Iterator[Callable[[], Server]]:
    """Starts servers."""
    running: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def started() -> Server:
        found = Server()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found.asked.append((self.path, self.headers["Authorization"]))
                if self.path in found.redirects:
                    self.send_response(302)
                    self.send_header("Location", found.redirects[self.path])
                    self.end_headers()
                elif self.path == "/chunked":
                    self.protocol_version = "HTTP/1.1"
                    self.send_response(200)
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    for part in (CONTENT[:1000], CONTENT[1000:]):
                        self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
                    self.wfile.write(b"0\r\n\r\n")
                elif self.path.startswith("/status/"):
                    self.send_error(int(self.path[8:]))
                else:
                    self.send_response(200)
                    if self.path != "/endless":
                        self.send_header("Content-Length", str(len(CONTENT) * (2 if self.path == "/short" else 1)))
                    self.end_headers()
                    self.wfile.write(CONTENT)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.do_GET()

            def log_message(self, format: str, *arguments: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        running.append((server, thread))
        found.port = server.server_port
        return found

    yield started
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def server(start: Callable[[], Server]) -> Server:
    return start()


def fetched(url: str, guard: UriAllow | None = None) -> bytes:
    blocks: list[bytes] = []
    fetch(url, blocks.append, guard=guard)
    return b"".join(blocks)


@pytest.mark.parametrize("path", ["/a.mp4", "/chunked", "/endless", "/a%20b.mp4?x=1&y=%2F", "/\N{SNOWMAN} a.mp4"])
def test_the_bytes_arrive(path: str, server: Server) -> None:
    assert fetched(server.url(path)) == CONTENT
    assert server.asked[0][0] == path.replace("\N{SNOWMAN} ", "%E2%98%83%20")


def test_redirects_are_followed_and_counted(server: Server) -> None:
    server.redirects = {f"/{n}": f"/{n + 1}" for n in range(9)}
    assert fetched(server.url("/4")) == CONTENT
    with pytest.raises(FetchError, match="more than 5 redirects"):
        fetched(server.url("/3"))


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1/a", "http://", "http://[::1", "gopher://x/", "http://h:99999/"]
)
def test_a_redirect_to_something_else_is_an_error(target: str, server: Server) -> None:
    server.redirects["/a"] = target
    with pytest.raises(FetchError) as error:
        fetched(server.url("/a"))
    assert not error.value.transient


def test_each_redirect_is_checked(server: Server, start: Callable[[], Server]) -> None:
    inside = start()
    server.redirects = {"/a": inside.url("/secret"), "/b": "/elsewhere", "/c": "/videos/c"}
    allow = UriAllow.parse(
        f"http://127.0.0.1:{server.port}/a,http://127.0.0.1:{server.port}/b,"
        f"http://127.0.0.1:{server.port}/c,http://127.0.0.1:{server.port}/videos"
    )
    for path in ("/a", "/b"):
        with pytest.raises(SourceError, match="UNMASK_URI_ALLOW"):
            fetched(server.url(path), allow)
    assert fetched(server.url("/c"), allow) == CONTENT
    assert inside.asked == []


HOSTS = ("localhost", "127.0.0.1", "0x7f000001", "2130706433", "127.1", "0.0.0.0", "[::ffff:7f00:1]")


@pytest.mark.parametrize("host", HOSTS)
def test_names_of_this_machine_are_refused_where_only_the_scheme_is_allowed(host: str, server: Server) -> None:
    with pytest.raises(FetchError, match="a private or reserved address: UNMASK_URI_ALLOW must name the host"):
        fetched(server.url("/a", host), UriAllow.parse("http"))
    assert server.asked == []
    named = UriAllow.parse(f"http://{host}:{server.port}")
    assert fetched(server.url("/a", host), named) == CONTENT


def test_the_connection_goes_to_the_address_that_was_checked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that resolves to a public address first and to this machine afterwards is asked for once."""
    answers = itertools.chain(["127.0.0.1"], itertools.repeat("127.0.0.2"))
    resolve = socket.getaddrinfo

    def rebinding(host: str, port: int, *others: Any, **how: Any) -> Any:
        return resolve(next(answers) if host == "rebinding.example.org" else host, port, *others, **how)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)

    class OnlyTheFirst(UriAllow):
        def allows_address(self, uri: str, address: IpAddress) -> bool:
            return str(address) == "127.0.0.1"

    guard = OnlyTheFirst(frozenset({"http"}), ())
    assert fetched(server.url("/a", "rebinding.example.org"), guard) == CONTENT
    with pytest.raises(FetchError, match=r"127\.0\.0\.2"):
        fetched(server.url("/a", "rebinding.example.org"), guard)


def test_credentials_stay_with_their_host(server: Server, start: Callable[[], Server]) -> None:
    other = start()
    server.redirects = {"/away": other.url("/b"), "/here": "/b"}
    url = f"http://me:pass%40word@127.0.0.1:{server.port}"
    assert fetched(f"{url}/away") == fetched(f"{url}/here") == CONTENT
    basic = f"Basic {base64.b64encode(b'me:pass@word').decode()}"
    assert server.asked == [("/away", basic), ("/here", basic), ("/b", basic)]
    assert other.asked == [("/b", None)]


@pytest.mark.parametrize(
    ("path", "says", "transient"),
    [
        ("/status/404", "answers 404", False),
        ("/status/403", "answers 403", False),
        ("/status/503", "answers 503", True),
        ("/status/429", "answers 429", True),
        ("/short", "ended after 25600 of 51200 bytes", True),
    ],
)
def test_a_failed_fetch_says_why(path: str, says: str, transient: bool, server: Server) -> None:
    with pytest.raises(FetchError, match=says) as error:
        fetched(server.url(path))
    assert error.value.transient is transient


def test_a_slow_server_is_left(server: Server) -> None:
    now = itertools.count(0.0, 80.0)
    with pytest.raises(FetchError, match="too slow"):
        fetch(server.url("/a"), lambda block: None, clock=lambda: next(now))


def test_an_error_never_shows_a_password(server: Server) -> None:
    url = f"http://me:secret@127.0.0.1:{server.port}/status/404"
    with pytest.raises(SourceError) as error, open_source(Source(url)):
        pass
    assert error.value.outcome is Outcome.UNAVAILABLE
    assert "secret" not in str(error.value)


HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(params=["continue", "head", "body", "trailer", "nothing", "no handshake"])
def endless(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a server that keeps a fetch waiting, a few bytes at a time."""
    first, more = {
        "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        "head": (b"HTTP/1.1 200 OK\r\nX: ", b"a"),
        "body": (HEAD, b"1\r\na\r\n"),
        "trailer": (HEAD + b"1\r\na\r\n0\r\n", b"X: a\r\n"),
        "nothing": (b"", b""),
        "no handshake": (b"", b""),
    }[request.param]
    ended = threading.Event()

    def serve(listening: socket.socket) -> None:
        with listening, listening.accept()[0] as connection, suppress(OSError):
            connection.sendall(first)
            while not ended.wait(0.05):
                connection.sendall(more)

    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve, args=[listening], daemon=True)
    thread.start()
    scheme = "https" if request.param == "no handshake" else "http"
    yield f"{scheme}://127.0.0.1:{listening.getsockname()[1]}/x.mp4"
    ended.set()
    thread.join(30)


def test_a_fetch_that_never_ends_hears_the_stop(endless: str) -> None:
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    with pytest.raises(StoppedError):
        fetch(endless, lambda block: None, stop=stop.is_set)


def test_a_fetch_that_never_ends_ends(endless: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_HEAD_S", "_PERIOD_S"):
        monkeypatch.setattr(f"pipeline.http_fetch.{name}", 0.5)
    with pytest.raises(FetchError, match=r"takes too long|is too slow") as caught:
        fetch(endless, lambda block: None)
    assert caught.value.transient


def test_a_worker_that_stops_leaves_its_fetches(endless: str) -> None:
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    with pytest.raises(ScanInterruptedError), open_source(Source(endless), stop=stop.is_set):
        pass


@pytest.mark.parametrize(
    "address",
    [
        "::127.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b:1::7f00:1", "64:ff9b::7f00:1", "fec0::1", "fe80::1", "fc00::1",
        "2001:470::5efe:7f00:1", "2001:470::200:5efe:7f00:1", "5f00::1", "3fff::1", "2001:db8::1", "ff02::1", "::",
        "192.0.0.192", "168.63.129.16", "169.254.169.254", "100.64.0.1", "0.0.0.0", "240.0.0.1", "2002:7f00:1::",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "64:ff9b::101:101", "2002:101:101::"]
)
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("scheme", ["ftp", "sftp", "smb", "webhdfs"])
def test_hosts_of_other_schemes_are_checked_too(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.0)
        uri = f"{scheme}://127.0.0.1:{listening.getsockname()[1]}/x.mp4"
        with (
            pytest.raises(SourceError, match="a private or reserved address"),
            open_source(Source(uri, guard=UriAllow.parse(scheme))),
        ):
            pass
        with pytest.raises(BlockingIOError):
            listening.accept()


@pytest.mark.parametrize(
    ("path", "max_bytes", "fault"),
    [
        ("/whole", 25_599, "more than 25,599 bytes"),
        ("/chunked", 25_599, "more than 25,599 bytes"),
        ("/short", 1 << 20, "ended after 25600 of 51200 bytes"),
        ("/status/500", 1 << 20, "answers 500"),
        ("/elsewhere", 1 << 20, "answers 302"),
    ],
)
def test_an_exchange_gives_a_whole_answer_or_an_error(
    start: Callable[[], Server], path: str, max_bytes: int, fault: str
) -> None:
    server = start()
    server.redirects["/elsewhere"] = server.url("/whole")
    with pytest.raises(FetchError, match=fault):
        exchange(server.url(path), b"question", {}, max_bytes=max_bytes)


@pytest.mark.parametrize("path", ["/whole", "/chunked", "/endless"])
def test_an_exchange_asks_allowed_addresses_only(start: Callable[[], Server], path: str) -> None:
    server = start()
    assert exchange(server.url(path), b"question", {}, max_bytes=len(CONTENT)) == CONTENT
    with pytest.raises(FetchError, match="UNMASK_URI_ALLOW"):
        exchange(server.url(path), b"question", {}, max_bytes=1 << 20, guard=UriAllow.parse("http"))
