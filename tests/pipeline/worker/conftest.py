"""Fixtures of the worker tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition

from pipeline.contracts import VIDEO_TOPICS, Topic
from pipeline.results.store import VerdictStore, connect
from pipeline.scan import Scanner
from pipeline.telemetry import Metrics
from pipeline.transport.consumer import GROUP, TaskConsumer
from pipeline.transport.kafka import Publisher, ensure_topics
from pipeline.video.sampling import Even
from pipeline.video.sandbox import DecodeServer
from pipeline.weights.leases import Scanners
from pipeline.worker.access import UriAllow
from pipeline.worker.message import Service
from tests import media
from tests.pipeline.quick import QuickNetwork, quick_scanner


@pytest.fixture(scope="module")
def network() -> QuickNetwork:
    return QuickNetwork()


@pytest.fixture(scope="module")
def scanner(network: QuickNetwork, decode_server: DecodeServer) -> Iterator[Scanner]:
    with quick_scanner(decode_server, Even(6), network=network, portraits=False) as scanner:
        yield scanner


@pytest.fixture(scope="module")
def bootstrap(kafka_bootstrap: str) -> str:
    """A Kafka where nothing waits for the workers: other tests send what is no task."""
    ensure_topics(kafka_bootstrap, partitions=2, replicas=1)
    group = KafkaConsumer(bootstrap_servers=kafka_bootstrap, group_id=GROUP, enable_auto_commit=False)
    partitions = [TopicPartition(str(topic), n) for topic in (Topic.SEGMENTS, *VIDEO_TOPICS) for n in (0, 1)]
    group.assign(partitions)
    group.commit({p: OffsetAndMetadata(end, "", -1) for p, end in group.end_offsets(partitions).items()})
    group.close()
    return kafka_bootstrap


@pytest.fixture(scope="module")
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        yield client


@pytest.fixture(scope="module")
def store(client: redis.Redis) -> VerdictStore:
    return VerdictStore(client, ttl_s=600)


@pytest.fixture(scope="module")
def publisher(bootstrap: str) -> Iterator[Publisher]:
    with Publisher(bootstrap) as publisher:
        yield publisher


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What workers may read."""
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def service(
    scanner: Scanner, store: VerdictStore, publisher: Publisher, root: Path, clips: Path
) -> Callable[[TaskConsumer], Service]:
    allow = UriAllow.parse(f"file://{root}, file://{clips}")
    metrics = Metrics()
    scanners = Scanners(scanner)
    return lambda consumer: Service(
        scanners, store, publisher, consumer, metrics, allow, max_attempts=3, retry_wait_s=0.01
    )


@pytest.fixture(scope="module")
def broken(root: Path) -> dict[str, Path]:
    return media.broken_inputs(root)
