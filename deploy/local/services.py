"""Redis and Apache Kafka on free ports of this machine, for tests and manual use. No Docker."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

# A Java process starts slowly on a machine with two busy cores.
START_S = 180.0
STOP_S = 30.0
FETCH_S = 300.0
KAFKA_POM = Path(__file__).with_name("kafka") / "pom.xml"


class ServiceError(Exception):
    """A service did not start; the message contains its output."""


class _Server:
    """A process that can be started, stopped cleanly or killed; a context manager."""

    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it serves."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop it cleanly; kill it if it does not end."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()
            self.process = None

    def kill(self) -> None:
        """End it as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(STOP_S)
            self.process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class RedisServer(_Server):
    """A `redis-server` on the loopback that keeps what it acknowledged; a context manager.

    Args:
        folder: for its append-only file and its log; data of an earlier server is loaded.
        port: None takes a free one.
        detached: it keeps running when this process ends.
    """

    def __init__(self, folder: Path, port: int | None = None, *, detached: bool = False) -> None:
        self.folder, self.detached = folder, detached
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            ServiceError: redis-server is missing or does not start.
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
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=self.detached,
        )
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                log = self.folder / "redis.log"
                said = log.read_text()[-500:] if log.exists() else ""
                raise ServiceError(f"redis-server on port {self.port} did not start: {said}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 0.5) as connection:
                # Its folder, not just a PONG: another server may hold the port. A PONG too: it may still load its data.
                connection.settimeout(5.0)
                connection.sendall(b"CONFIG GET dir\r\nPING\r\nQUIT\r\n")
                answer = b"".join(iter(lambda: connection.recv(4096), b""))
                return str(self.folder.resolve()).encode() in answer and b"+PONG" in answer
        except OSError:
            return False


class KafkaServer(_Server):
    """One Apache Kafka node (KRaft: broker and controller) on the loopback; a context manager.

    Args:
        folder: for its log segments and its log; data of an earlier server is kept.
        jars: folder with Kafka's jars; see `kafka_jars`.
        detached: it keeps running when this process ends.
        listeners: additional listeners, such as SASL_SSL://127.0.0.1:9093.
        more: additional settings of server.properties.
    """

    def __init__(
        self,
        folder: Path,
        jars: Path,
        *,
        detached: bool = False,
        listeners: Sequence[str] = (),
        more: Mapping[str, str] | None = None,
    ) -> None:
        self.folder, self.jars, self.detached = folder, jars, detached
        self._listeners, self._more = listeners, dict(more or {})
        self.port, self._controller_port = free_port(), free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it serves.

        Raises:
            ServiceError: Java is missing, or Kafka does not start.
        """
        if shutil.which("java") is None:
            raise ServiceError("no java; deploy/local/packages.sh installs it")
        self.folder.mkdir(parents=True, exist_ok=True)
        config, log = self.folder / "server.properties", self.folder / "kafka.log"
        config.write_text(self._config())
        if not (self.folder / "data" / "meta.properties").exists():
            cluster = uuid.uuid4().hex[:22]  # 22 characters of base64, as Kafka requires
            command = [*self._java("kafka.tools.StorageTool"), "format", "-t", cluster, "-c", str(config)]
            _run(command, START_S, "Kafka's storage could not be formatted")
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*self._java("kafka.Kafka"), str(config)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=self.detached,
            )
        deadline = time.monotonic() + START_S
        while b"Kafka Server started" not in log.read_bytes():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise ServiceError(f"Kafka on {self.bootstrap} did not start: {log.read_text()[-1000:]}")
            time.sleep(0.05)

    def _java(self, main: str) -> list[str]:
        logging = "-Dorg.slf4j.simpleLogger.logFile=System.out"
        # The serial collector, the quick compiler and 512 MB are enough for a test's traffic and save the cores.
        options = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
        return ["java", *options, logging, "-cp", f"{self.jars}/*", main]

    def _config(self) -> str:
        own = (f"PLAINTEXT://127.0.0.1:{self.port}", f"CONTROLLER://127.0.0.1:{self._controller_port}")
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller_port}",
            "listeners": ",".join([*own, *self._listeners]),
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(self.folder / "data"),
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": "0",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "1",
            **self._more,
        }
        return "".join(f"{name}={value}\n" for name, value in settings.items())


def kafka_jars(folder: Path | None = None) -> Path:
    """The folder with Kafka's jars; Maven fetches them if it does not exist.

    Args:
        folder: None takes one in the cache, a different one for each content of the pom.

    Raises:
        ServiceError: Maven is missing or could not fetch them.
    """
    if folder is None:
        cache = Path(os.environ.get("UNMASK_CACHE", "~/.cache/unmask")).expanduser()
        folder = cache / f"kafka-{hashlib.sha256(KAFKA_POM.read_bytes()).hexdigest()[:12]}"
    if folder.is_dir():
        return folder
    if shutil.which("mvn") is None:
        raise ServiceError("no mvn; deploy/local/packages.sh installs it")
    # Renamed when complete: two processes that fetch at once must not read each other's half-filled folder.
    fresh = folder.with_name(f"{folder.name}.{os.getpid()}")
    command = ["mvn", "-q", "-B", "-f", str(KAFKA_POM), "dependency:copy-dependencies", f"-DoutputDirectory={fresh}"]
    try:
        _run(command, FETCH_S, "Maven could not fetch Kafka's jars")
        fresh.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def _run(command: list[str], timeout_s: float, failure: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise ServiceError(f"{failure}: not finished after {timeout_s:.0f} s") from error
    if done.returncode != 0:
        raise ServiceError(f"{failure}: {(done.stdout + done.stderr)[-500:]}")


def free_port() -> int:
    """A port of the loopback that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
