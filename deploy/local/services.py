"""Redis (and later Kafka) on free ports of this machine, for the tests and for trying things out. No Docker."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path

START_S = 20.0


class ServiceError(Exception):
    """A service did not start; the message says what it said."""


class RedisServer:
    """A `redis-server` that keeps what it acknowledged, on the loopback; a context manager.

    Args:
        folder: for its append-only file and its log; what an earlier server left there is loaded.
        port: None takes a free one.
    """

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            ServiceError: there is no redis-server, or it does not come up.
        """
        if shutil.which("redis-server") is None:
            raise ServiceError("no redis-server; deploy/local/packages.sh installs it")
        self.folder.mkdir(parents=True, exist_ok=True)
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
            "save": "",
            "logfile": str(self.folder / "redis.log"),
        }
        command = ["redis-server", *(text for name, value in options.items() for text in (f"--{name}", value))]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                log = self.folder / "redis.log"
                said = log.read_text()[-500:] if log.exists() else ""
                raise ServiceError(f"redis-server on port {self.port} did not start: {said}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it in good order."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(START_S)
            self.process = None

    def kill(self) -> None:
        """End it as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(START_S)
            self.process = None

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 0.5) as connection:
                # Its folder, not just a PONG: another server may hold the port.
                connection.sendall(b"CONFIG GET dir\r\n")
                return str(self.folder.resolve()).encode() in connection.recv(4096)
        except OSError:
            return False


def free_port() -> int:
    """A port of the loopback that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
