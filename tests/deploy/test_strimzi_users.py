"""Users of deploy/helm/examples/strimzi.yaml at a real broker that checks rights: enough for their work, no more."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from kafka import KafkaAdminClient
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ACLResourcePatternType, ResourcePattern, ResourceType

from deploy.local.services import KafkaServer, free_port, kafka_jars
from pipeline.contracts import VIDEO_TOPICS, SourceClass, Topic
from pipeline.transport.consumer import GROUP, TaskConsumer
from pipeline.transport.history import read_topic
from pipeline.transport.kafka import Publisher, TransportError, ensure_topics
from pipeline.transport.messages import VideoTask
from pipeline.transport.security import client_options
from tests.conftest import required_service
from tests.deploy.helm_chart import EXAMPLES, of_kind

pytestmark = pytest.mark.slow

WORKER, WEB, STRANGER = "unmask-worker", "unmask-web", "stranger"
# A worker without the right to create topics.
UNABLE = "unable"


def users() -> dict[str, list[dict[str, Any]]]:
    """Rights of each user."""
    objects = list(yaml.safe_load_all((EXAMPLES / "strimzi.yaml").read_text()))
    return {name: user["spec"]["authorization"]["acls"] for name, user in of_kind(objects, "KafkaUser").items()}


def as_acls(name: str, rights: list[dict[str, Any]]) -> Iterator[ACL]:
    """As Strimzi's operator gives them to Kafka."""
    for right in rights:
        resource = right["resource"]
        pattern = ResourcePattern(
            ResourceType[resource["type"].upper()],
            resource["name"],
            ACLResourcePatternType[resource["patternType"].upper()],
        )
        for operation in right["operations"]:
            yield ACL(f"User:{name}", "*", ACLOperation[operation.upper()], ACLPermissionType.ALLOW, pattern)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap servers of its listener with users."""
    port = free_port()
    names = " ".join(f'user_{name}="{name}"' for name in (WORKER, WEB, STRANGER, UNABLE))
    settings = {
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl_plaintext.plain.sasl.jaas.config": (
            f"org.apache.kafka.common.security.plain.PlainLoginModule required {names};"
        ),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }
    with required_service():
        server = KafkaServer(
            tmp_path_factory.mktemp("acls") / "kafka",
            kafka_jars(),
            listeners=[f"SASL_PLAINTEXT://127.0.0.1:{port}"],
            more=settings,
        )
        server.start()
    try:
        ensure_topics(server.bootstrap, partitions=2, replicas=1)
        admin = KafkaAdminClient(bootstrap_servers=server.bootstrap)
        for name, rights in users().items():
            admin.create_acls(list(as_acls(name, rights)))
        less = [each for each in as_acls(UNABLE, users()[WORKER]) if each.operation is not ACLOperation.CREATE]
        admin.create_acls(less)
        admin.close()
        yield f"127.0.0.1:{port}"
    finally:
        server.stop()


@pytest.fixture
def become(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Connect as a user from now on."""

    def to(name: str) -> None:
        monkeypatch.setenv("UNMASK_KAFKA_SECURITY", "SASL_PLAINTEXT")
        monkeypatch.setenv("UNMASK_KAFKA_MECHANISM", "PLAIN")
        monkeypatch.setenv("UNMASK_KAFKA_USER", name)
        monkeypatch.setenv("UNMASK_KAFKA_PASSWORD", name)

    return to


def task(source_class: SourceClass = SourceClass.UPLOAD) -> VideoTask:
    return VideoTask(video_id=f"test-{uuid.uuid4()}", uri="/a.mp4", source_class=source_class, submitted_at=time.time())


def test_the_service_hands_in_and_a_worker_judges(broker: str, become: Any) -> None:
    become(WEB)
    assert ensure_topics(broker) == []
    mine = task()
    with Publisher(broker) as publisher:
        publisher.submit(mine).wait()
        publisher.submit(task(SourceClass.ARCHIVE)).wait()
        publisher.forget("gone").wait()
    become(WORKER)
    assert ensure_topics(broker) == []
    consumer = TaskConsumer(broker, capacities={(Topic.SEGMENTS,): 4, VIDEO_TOPICS: 4})
    try:
        taken = []
        for _ in range(200):
            taken += consumer.poll()
            if mine.to_json() in [delivery.value for delivery in taken]:
                break
        assert mine.to_json() in [delivery.value for delivery in taken]
        with Publisher(broker) as publisher:
            publisher.verdict(b"{}", mine.video_id).wait()
            publisher.submit(mine).wait()
            publisher.dead(Topic.VIDEOS, b"key", b"value", [], error="why", stage="score", attempts=1)
        for delivery in taken:
            consumer.done(delivery)
    finally:
        consumer.close()
    # As KEDA looks at the backlog.
    admin = KafkaAdminClient(**client_options(broker))
    try:
        (offsets,) = admin.list_group_offsets({GROUP: None}).values()
        assert {partition.topic for partition, found in offsets.items() if found.offset > 0} >= {Topic.VIDEOS}
    finally:
        admin.close()
    become(WEB)
    assert [letter.header("error") for letter in read_topic(broker, Topic.DEAD)] == ["why"]


@pytest.mark.parametrize(("name", "topic"), [(WEB, Topic.VIDEOS), (WEB, Topic.VERDICTS), (WORKER, Topic.DEAD)])
def test_nobody_reads_what_is_not_theirs(broker: str, become: Any, name: str, topic: Topic) -> None:
    become(name)
    with pytest.raises(TransportError, match="Authorization"):
        list(read_topic(broker, topic))


def test_others_may_do_nothing(broker: str, become: Any) -> None:
    become(STRANGER)
    with pytest.raises(TransportError):
        ensure_topics(broker)
    with Publisher(broker) as publisher, pytest.raises(TransportError):
        publisher.submit(task()).wait()


def test_only_the_group_of_the_workers_is_open(broker: str, become: Any) -> None:
    become(WORKER)
    consumer = TaskConsumer(broker, capacities={VIDEO_TOPICS: 4}, group="another")
    try:
        with pytest.raises(TransportError, match="Authorization"):
            poll(consumer)
    finally:
        consumer.close()


def poll(consumer: TaskConsumer) -> None:
    """Until the broker refuses."""
    for _ in range(50):
        consumer.poll()


def test_a_worker_needs_to_be_allowed_to_create_topics_that_exist(broker: str, become: Any) -> None:
    """Kafka checks the right before it looks whether they exist."""
    become(UNABLE)
    with pytest.raises(TransportError, match="Authorization"):
        ensure_topics(broker)
