"""A web server for clips that does something when one is asked for, such as killing the process that asks."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil


class ClipServer(ThreadingHTTPServer):
    """Clips by name.

    Attributes:
        clips: files by name.
        asked: how often each was asked for.
        before: by name, called with the process that asks, before the answer.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.clips: dict[str, Path] = {}
        self.asked: Counter[str] = Counter()
        self.before: dict[str, Callable[[int], None]] = {}

    def uri(self, name: str, clip: Path) -> str:
        """Serve a clip under a name."""
        self.clips[name] = clip
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"

    def asks(self, port: int) -> int:
        """The process at the other end."""
        for each in psutil.net_connections("tcp"):
            if each.laddr and each.laddr.port == port and each.pid and each.pid != os.getpid():
                return int(each.pid)
        raise LookupError(port)


class _Handler(BaseHTTPRequestHandler):
    server: ClipServer

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        self.server.asked[name] += 1
        if name in self.server.before:
            self.server.before[name](self.server.asks(self.client_address[1]))
        content = self.server.clips[name].read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:  # who asked was killed
            self.close_connection = True


def kill(pid: int) -> None:
    """Kill a process as the kernel does for lack of memory."""
    os.kill(pid, signal.SIGKILL)


@contextmanager
def clip_server() -> Iterator[ClipServer]:
    """A running server."""
    with ClipServer() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
