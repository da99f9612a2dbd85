"""Worker processes with their own Kafka and Redis, for tests and measurements."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import redis
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from deploy.local.services import KafkaServer, RedisServer, free_port, kafka_jars
from pipeline.contracts import VIDEO_TOPICS, Topic, Verdict, clip_key
from pipeline.results.store import connect
from pipeline.transport.consumer import GROUP
from pipeline.transport.history import read_topic
from pipeline.transport.messages import Message, VideoTask

UNMASK = str(Path(sys.executable).with_name("unmask"))
PATIENCE_S = 120


class WorkerProcess:
    """`unmask worker` as a process; its log goes to a file."""

    def __init__(
        self,
        folder: Path,
        environment: dict[str, str],
        *options: str,
        core: int | None = None,
        unmask: str | Path = UNMASK,
    ) -> None:
        self.port = free_port()
        self.log = folder / f"worker-{self.port}.log"
        pin = [] if core is None else ["taskset", "-c", str(core)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*pin, str(unmask), "worker", *options],
                env={"UNMASK_URI_ALLOW": "/", **os.environ, **environment, "UNMASK_HTTP_PORT": str(self.port)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a page; status 0 if there is no answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    @property
    def ready(self) -> bool:
        return self.get("/readyz")[0] == 200

    def kill(self) -> None:
        """Kill it, as a crash would."""
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def leave(self) -> int:
        """Send SIGTERM and wait; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)


class Platform:
    """Kafka, Redis and workers on the loopback; a context manager that stops all of them."""

    def __init__(self, folder: Path, *, options: Sequence[str] = (), **settings: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.kafka = KafkaServer(folder / "kafka", kafka_jars())
        self.redis = RedisServer(folder / "redis")
        self.workers: list[WorkerProcess] = []
        self._options = options
        self.environment = {
            "UNMASK_KAFKA": self.kafka.bootstrap,
            "UNMASK_REDIS": self.redis.url,
            "UNMASK_TTL_S": "86400",
        } | settings

    def __enter__(self) -> Self:
        self.redis.start()
        self.kafka.start()
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.kill()
        self.kafka.stop()
        self.redis.stop()

    def start_worker(self, core: int | None = None, unmask: str | Path = UNMASK) -> WorkerProcess:
        worker = WorkerProcess(self.folder, self.environment, *self._options, core=core, unmask=unmask)
        self.workers.append(worker)
        return worker

    def unmask(self, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run a command against this platform."""
        return subprocess.run(
            [UNMASK, *arguments],
            env={**os.environ, **self.environment, **changes},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def client(self) -> redis.Redis:
        return connect(self.redis.url)

    def tasks(self) -> dict[tuple[str, int, int], str]:
        """The ids of the submitted tasks by topic, partition and offset."""
        return {
            (str(topic), message.partition, message.offset): VideoTask.parse(message.value, message.key).video_id
            for topic in VIDEO_TOPICS
            for message in read_topic(self.kafka.bootstrap, topic)
        }

    def records(self) -> dict[str, list[Message]]:
        """The published records by id, in order."""
        found: dict[str, list[Message]] = defaultdict(list)
        for message in read_topic(self.kafka.bootstrap, Topic.VERDICTS):
            found[(message.key or b"").decode()].append(message)
        return found

    def stored(self, ids: Sequence[str]) -> dict[str, bytes | None]:
        """The records in Redis."""
        with self.client() as client, client.pipeline(transaction=False) as pipe:
            for clip_id in ids:
                pipe.hget(clip_key(clip_id), "verdict")
            return dict(zip(ids, pipe.execute(), strict=True))

    def attempts(self, ids: Sequence[str]) -> Counter[int]:
        """Number of clips by number of tries."""
        with self.client() as client:
            return Counter(int(client.hget(clip_key(clip_id), "attempt") or 0) for clip_id in ids)

    def committed(self) -> dict[tuple[str, int], int]:
        """The committed offsets."""
        consumer = KafkaConsumer(bootstrap_servers=self.kafka.bootstrap, group_id=GROUP, bootstrap_timeout_ms=5000)
        try:
            partitions = [
                TopicPartition(str(topic), n)
                for topic in VIDEO_TOPICS
                for n in consumer.partitions_for_topic(str(topic))
            ]
            return {(p.topic, p.partition): consumer.committed(p, timeout_ms=5000) or 0 for p in partitions}
        finally:
            consumer.close(timeout_ms=1000)

    def uncommitted(self) -> int:
        """Number of tasks after the committed offsets."""
        committed = self.committed()
        return sum(offset >= committed[topic, partition] for topic, partition, offset in self.tasks())


class OffsetWatch(threading.Thread):
    """Checks repeatedly whether an offset is committed whose verdict is not in Redis.

    Attributes:
        looks: number of checks in which both could be read.
        ahead: offsets found ahead of their verdict: topic, partition, offset, id.
    """

    def __init__(self, platform: Platform, tasks: dict[tuple[str, int, int], str]) -> None:
        super().__init__(daemon=True)
        self.looks, self.ahead = 0, list[tuple[str, int, int, str]]()
        self._platform, self._tasks, self._end = platform, tasks, threading.Event()
        self.start()

    def run(self) -> None:
        while not self._end.wait(0.5):
            # Kafka or Redis may be away: the tests stop them.
            with suppress(KafkaError, redis.RedisError, OSError):
                self._look()

    def _look(self) -> None:
        committed = self._platform.committed()
        behind = {key: clip for key, clip in self._tasks.items() if key[2] < committed.get(key[:2], 0)}
        stored = self._platform.stored(list(behind.values()))
        self.looks += 1
        self.ahead += [(*key, clip) for key, clip in behind.items() if stored[clip] is None]

    def end(self) -> None:
        self._end.set()
        self.join(PATIENCE_S)


def until(condition: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """Wait until the condition returns something true; returns it."""
    deadline = time.monotonic() + patience_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {patience_s:.0f} s: {condition}")
        time.sleep(0.1)
    return found


def done_count(platform: Platform, ids: Sequence[str]) -> int:
    """Number of clips with a verdict; -1 if Redis is away."""
    try:
        return sum(record is not None for record in platform.stored(ids).values())
    except redis.RedisError:
        return -1


def outcomes(records: dict[str, bytes | None]) -> Counter[str]:
    """Number of clips by outcome."""
    return Counter(
        "none" if record is None else str(Verdict.model_validate_json(record).outcome) for record in records.values()
    )


def copies_of(clips: Sequence[Path], count: int, folder: Path) -> Iterator[Path]:
    """Clips with different bytes: a `free` box of MP4, which readers ignore, has their number."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"clip-{number:04d}.mp4"
        text = json.dumps({"number": number}).encode()
        path.write_bytes(clips[number % len(clips)].read_bytes() + (8 + len(text)).to_bytes(4, "big") + b"free" + text)
        yield path
