"""The service on a port of this machine, as clients see it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from pipeline.scanner_options import ScannerOptions
from pipeline.settings import Settings
from web.app import create_app
from web.judging import JudgeOptions
from web.keys import Role
from web.listening import bound_socket, http_server
from web.service import ServeOptions, Service

PATIENCE_S = 300.0


@dataclass(frozen=True, slots=True)
class Served:
    """A running service.

    Attributes:
        url: where it answers.
        service: it.
        clients: that were made; they are closed with the service.
    """

    url: str
    service: Service
    clients: list[httpx.Client] = field(default_factory=list)

    def key(self, role: Role = Role.ADMIN, *, expires_s: float | None = None) -> str:
        """The text of a new key."""
        return self.service.keys.create(f"a {role.text}", role, expires_s=expires_s)[1]

    def client(self, role: Role | None = Role.ADMIN) -> httpx.Client:
        """A client with a new key of this role; None: without a key."""
        headers = {} if role is None else {"Authorization": f"Bearer {self.key(role)}"}
        client = httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE_S)
        self.clients.append(client)
        return client


@contextmanager
def serving(
    folder: Path, settings: Settings | None = None, *, port: int = 0, proxies: str = "", **changes: object
) -> Iterator[Served]:
    """Serve from a folder until the end of the block.

    Args:
        folder: of the database and the files.
        settings: None: those of the environment.
        port: 0 takes a free one.
        proxies: see `http_server`.
        changes: of `ServeOptions`.
    """
    options = ServeOptions(folder, JudgeOptions(scanner=ScannerOptions(workers=2)))
    service = Service(replace(options, **changes), settings or Settings())  # type: ignore[arg-type]
    listening = bound_socket("127.0.0.1", port)
    server = http_server(create_app(service), proxies)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    served = Served(f"http://127.0.0.1:{listening.getsockname()[1]}", service)
    try:
        until(lambda: server.started)
        yield served
    finally:
        for client in served.clients:
            client.close()
        server.should_exit = True
        thread.join()


def until(done: object, patience_s: float = PATIENCE_S) -> None:
    """Wait until the function says so."""
    assert callable(done)
    end_s = time.monotonic() + patience_s
    while not done():
        assert time.monotonic() < end_s, "it did not happen"
        threading.Event().wait(0.02)


def hand_in(client: httpx.Client, path: Path, *, wait_s: int = 60, **more: str) -> httpx.Response:
    """Upload a file as the body, and wait for its verdict."""
    headers = {"Content-Type": "application/octet-stream", **more}
    if wait_s:
        headers["Prefer"] = f"wait={wait_s}"
    return client.post("/v1/videos", params={"name": path.name}, content=path.read_bytes(), headers=headers)


def judged(client: httpx.Client, path: Path, **more: str) -> dict[str, object]:
    """Upload a file, and return its resource once it is judged."""
    answer = hand_in(client, path, **more)
    assert answer.status_code in (200, 202), answer.text
    url = answer.headers["location"]
    until(lambda: client.get(url).json()["state"] == "done")
    found: dict[str, object] = client.get(url).json()
    return found
