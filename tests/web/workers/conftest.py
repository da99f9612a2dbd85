"""The service in front of a worker, between a real Kafka and a real Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import redis

from pipeline.live.store import StreamStore
from pipeline.results.store import VerdictStore
from pipeline.scan import Scanner
from pipeline.settings import Settings
from pipeline.telemetry import Metrics
from pipeline.transport.consumer import TaskConsumer
from pipeline.transport.kafka import Publisher
from pipeline.weights.leases import Scanners
from pipeline.worker.access import UriAllow
from pipeline.worker.loop import Worker
from pipeline.worker.message import Service
from pipeline.worker.streams import Live
from tests.pipeline.worker.conftest import bootstrap, client, network, publisher, scanner, store  # noqa: F401
from tests.pipeline.worker.serving import serving as working
from tests.web.served import Served, serving

# Nobody listens there.
HOOK = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the service."""
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def settings(bootstrap: str, redis_url: str) -> Settings:  # noqa: F811
    return Settings(kafka=bootstrap, redis=redis_url, ttl_s=600, webhook_allow=HOOK)


@pytest.fixture(scope="module")
def work(
    bootstrap: str,  # noqa: F811
    scanner: Scanner,  # noqa: F811
    store: VerdictStore,  # noqa: F811
    publisher: Publisher,  # noqa: F811
    client: redis.Redis,  # noqa: F811
    folder: Path,
) -> Callable[..., AbstractContextManager[Worker]]:
    """Starts a worker that may read the service's uploads, or what is named."""

    def start(allow: str = "") -> AbstractContextManager[Worker]:
        parsed = UriAllow.parse(allow or f"{folder}/media")

        def service(consumer: TaskConsumer) -> Service:
            return Service(
                Scanners(scanner), store, publisher, consumer, Metrics(), parsed, max_attempts=2, retry_wait_s=0.01
            )

        # Long limits: the machine may be busy.
        return working(bootstrap, service, live=Live(StreamStore(client, ttl_s=600), max_age_s=300.0, idle_s=300.0))

    return start


@pytest.fixture(scope="module")
def worker(work: Callable[..., AbstractContextManager[Worker]]) -> Iterator[Worker]:
    """A worker that serves until the end of the module."""
    with work() as found:
        yield found


@pytest.fixture(scope="module")
def served(folder: Path, settings: Settings) -> Iterator[Served]:
    with serving(folder, settings, workers=True, requests_s=1e6, unknown_keys_s=1e6) as found:
        yield found
