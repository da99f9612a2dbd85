"""A broker that requires TLS, a user and a password."""

from __future__ import annotations

import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.admin import UserScramCredentialUpsertion
from pydantic import ValidationError
from typer.testing import CliRunner

from deploy.local.services import KafkaServer, ServiceError, free_port, kafka_jars
from pipeline.contracts import VIDEO_TOPICS, SourceClass, Topic
from pipeline.transport.consumer import TaskConsumer
from pipeline.transport.history import read_topic
from pipeline.transport.kafka import Publisher, TransportError, ensure_topics
from pipeline.transport.messages import VideoTask
from pipeline.transport.security import KafkaSecurity
from tests.conftest import required_service

USER, PASSWORD = "unmask", "a long secret"


@dataclass(frozen=True)
class Guarded:
    """Its secured listener, and the CA of its certificate."""

    bootstrap: str
    ca: Path


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    store, ca, port = folder / "broker.p12", folder / "ca.pem", free_port()
    keytool = ["keytool", "-keystore", str(store), "-storepass", "changeit", "-alias", "kafka"]
    make = [*keytool, "-genkeypair", "-keyalg", "EC", "-dname", "CN=127.0.0.1", "-ext", "SAN=ip:127.0.0.1"]
    with required_service():
        if shutil.which("keytool") is None:
            raise ServiceError("no keytool; it comes with Java")
        jars = kafka_jars()
    subprocess.run(make, check=True, capture_output=True)
    subprocess.run([*keytool, "-exportcert", "-rfc", "-file", str(ca)], check=True, capture_output=True)
    login = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    settings = {
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL",
        "sasl.enabled.mechanisms": "SCRAM-SHA-256,SCRAM-SHA-512",
        "listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config": login,
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": login,
        "ssl.keystore.type": "PKCS12",
        "ssl.keystore.location": str(store),
        "ssl.keystore.password": "changeit",
        "ssl.key.password": "changeit",
    }
    server = KafkaServer(folder / "kafka", jars, listeners=[f"SASL_SSL://127.0.0.1:{port}"], more=settings)
    with required_service():
        server.start()
    admin = KafkaAdminClient(bootstrap_servers=server.bootstrap)
    for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
        found = admin.alter_user_scram_credentials([UserScramCredentialUpsertion(USER, mechanism, PASSWORD)])
        assert found == {USER: None}
    admin.close()
    yield Guarded(f"127.0.0.1:{port}", ca)
    server.stop()


@pytest.fixture
def environment(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("UNMASK_KAFKA_SECURITY", "SASL_SSL")
    monkeypatch.setenv("UNMASK_KAFKA_USER", USER)
    monkeypatch.setenv("UNMASK_KAFKA_PASSWORD", PASSWORD)
    monkeypatch.setenv("UNMASK_KAFKA_CA", str(guarded.ca))
    return monkeypatch


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_tasks_arrive(guarded: Guarded, environment: pytest.MonkeyPatch, mechanism: str) -> None:
    environment.setenv("UNMASK_KAFKA_MECHANISM", mechanism)
    ensure_topics(guarded.bootstrap, partitions=1, replicas=1)
    task = VideoTask(
        video_id=f"test-{uuid.uuid4()}",
        uri="/a.mp4",
        source_class=SourceClass.UPLOAD,
        submitted_at=time.time(),
    )
    with Publisher(guarded.bootstrap) as publisher:
        publisher.submit(task).wait()
    assert [m.value for m in read_topic(guarded.bootstrap, Topic.VIDEOS)][-1] == task.to_json()
    consumer = TaskConsumer(guarded.bootstrap, capacities={VIDEO_TOPICS: 10}, group=f"group-{task.video_id}")
    try:
        taken: list[bytes | None] = []
        for _ in range(100):
            taken += [delivery.value for delivery in consumer.poll()]
            if task.to_json() in taken:
                break
        assert task.to_json() in taken
    finally:
        consumer.close()


def test_a_wrong_password_is_an_error(guarded: Guarded, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("UNMASK_KAFKA_PASSWORD", "guessed")
    with pytest.raises(TransportError, match="no Kafka at"):
        Publisher(guarded.bootstrap, patience_s=3)


def test_a_broker_with_an_unknown_certificate_is_refused(guarded: Guarded, environment: pytest.MonkeyPatch) -> None:
    environment.delenv("UNMASK_KAFKA_CA")
    with pytest.raises(TransportError, match="no Kafka at"):
        Publisher(guarded.bootstrap, patience_s=3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"SECURITY": "SASL_SSL"}, "UNMASK_KAFKA_PASSWORD"),
        ({"SECURITY": "TLS"}, "security"),
        ({"SECURITY": "SSL", "CA": "/nowhere.pem"}, "ca"),
        ({"SECURITY": "SSL", "CERT": __file__}, "go together"),
        ({"SECURITY": "SASL_SSL", "USER": "me", "PASSWORD": "very secret", "MECHANISM": "GSSAPI"}, "mechanism"),
    ],
)
def test_invalid_settings_are_reported_at_the_start(
    settings: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.cli import build

    for name, value in settings.items():
        monkeypatch.setenv(f"UNMASK_KAFKA_{name}", value)
    with pytest.raises(ValidationError):
        KafkaSecurity()
    done = CliRunner().invoke(
        build(["dead"]), ["dead", "list", "--kafka", "127.0.0.1:1", "--redis", "redis://127.0.0.1:1/0"]
    )
    assert done.exit_code == 2
    assert message in done.output
    assert "very secret" not in done.output


def test_empty_settings_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SECURITY", "MECHANISM", "USER", "PASSWORD", "CA", "CERT", "KEY"):
        monkeypatch.setenv(f"UNMASK_KAFKA_{name}", "")
    assert KafkaSecurity().options() == {"security_protocol": "PLAINTEXT"}


def test_a_password_is_not_in_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_KAFKA_PASSWORD", "very secret")
    assert "very secret" not in repr(KafkaSecurity())
