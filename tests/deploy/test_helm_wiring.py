"""The Helm chart: who may reach whom, what scales, and what belongs together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from pipeline.contracts import Topic
from pipeline.sources import SourceError
from pipeline.transport.consumer import GROUP
from pipeline.transport.kafka import _config
from pipeline.worker.access import UriAllow
from tests.deploy.helm_chart import (
    EXAMPLES,
    LEAST,
    NAMESPACE,
    VALUES,
    containers,
    environment,
    everything,
    example,
    merged,
    of_kind,
    pods,
    render,
)
from trainers.commands import retrain

pytestmark = pytest.mark.slow


def test_workers_may_fetch_uploads_and_what_is_allowed() -> None:
    found = of_kind(render(merged(LEAST, {"uriAllow": ["file:///videos"]})), "Deployment")
    worker = environment(containers(found["unmask-worker-cpu"]["spec"]["template"])[0])
    web = environment(containers(found["unmask-web"]["spec"]["template"])[0])
    allow = UriAllow.parse(worker["UNMASK_URI_ALLOW"])
    assert web["UNMASK_SERVE_URL"] == f"http://unmask-web.{NAMESPACE}.svc:8400"
    allow.check(f"{web['UNMASK_SERVE_URL']}/v1/tasks/abc")
    allow.check("file:///videos/a.mp4")
    with pytest.raises(SourceError):
        allow.check("http://other/v1/tasks/abc")
    assert web["UNMASK_URI_ALLOW"] == "file:///videos"


def selects(selector: Mapping[str, Any], labels_: Mapping[str, str]) -> bool:
    return selector.get("matchLabels", {}).items() <= labels_.items()


@pytest.mark.parametrize("name", VALUES)
def test_every_pod_is_cut_off_but_for_what_is_opened(name: str) -> None:
    policies = of_kind(example(name), "NetworkPolicy").values()
    every = [each["spec"] for each in policies if "ingress" not in each["spec"] and "egress" not in each["spec"]]
    assert len(every) == 1
    for pod_name, pod in pods(example(name)):
        of_pod = [each["spec"] for each in policies if selects(each["spec"]["podSelector"], pod["metadata"]["labels"])]
        assert len(of_pod) == 2, pod_name
        assert all(each["policyTypes"] == ["Ingress", "Egress"] for each in of_pod)
        opened = next(each for each in of_pod if each not in every)
        for rule in opened["ingress"]:
            assert rule["from"], "from everywhere"
            assert rule["ports"], "at every port"
        assert all(rule["to"] and rule["ports"] for rule in opened["egress"])


@pytest.mark.parametrize("name", VALUES)
def test_selectors_of_services_budgets_and_monitors_match_pods(name: str) -> None:
    labels_ = [pod["metadata"]["labels"] for _, pod in pods(example(name))]
    for kind in ("PodDisruptionBudget", "PodMonitor"):
        for each in of_kind(example(name), kind).values():
            assert any(selects(each["spec"]["selector"], found) for found in labels_)
    for deployment in of_kind(example(name), "Deployment").values():
        matching = [found for found in labels_ if selects(deployment["spec"]["selector"], found)]
        assert len(matching) == 1
    (service,) = of_kind(example(name), "Service").values()
    assert len([found for found in labels_ if service["spec"]["selector"].items() <= found.items()]) == 1


def test_workers_scale_by_backlog_and_age_in_few_steps() -> None:
    values = yaml.safe_load(VALUES["large"].read_text())
    scaled = of_kind(example("large"), "ScaledObject")
    assert scaled.keys() == {"unmask-worker-cuda"}
    spec = scaled["unmask-worker-cuda"]["spec"]
    deployments = of_kind(example("large"), "Deployment")
    assert "replicas" not in deployments[spec["scaleTargetRef"]["name"]]["spec"]
    assert (
        spec["maxReplicaCount"] + deployments["unmask-worker-cpu"]["spec"]["replicas"] <= values["kafka"]["partitions"]
    )
    kafka = [each["metadata"] for each in spec["triggers"] if each["type"] == "kafka"]
    assert {each["topic"] for each in kafka} == {Topic.SEGMENTS, Topic.VIDEOS, Topic.ARCHIVE}
    assert {each["consumerGroup"] for each in kafka} == {GROUP}
    assert {each["offsetResetPolicy"] for each in kafka} == {"earliest"}
    assert {each["sasl"] for each in kafka} == {"scram_sha512"}
    prometheus = {each["name"]: each["metadata"] for each in spec["triggers"] if each["type"] == "prometheus"}
    assert {name: each["threshold"] for name, each in prometheus.items()} == {"age": "60", "shed": "1"}
    assert all(f'namespace="{NAMESPACE}"' in each["query"] for each in prometheus.values())
    behaviour = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    for direction in ("scaleUp", "scaleDown"):
        assert behaviour[direction]["stabilizationWindowSeconds"] >= 60
        (policy,) = behaviour[direction]["policies"]
        assert policy["periodSeconds"] >= 120
    (authentication,) = of_kind(example("large"), "TriggerAuthentication").values()
    assert {each["parameter"] for each in authentication["spec"]["secretTargetRef"]} == {"password", "ca"}
    # KEDA takes the user's name from the container.
    (name,) = authentication["spec"]["env"]
    (container,) = containers(deployments["unmask-worker-cuda"]["spec"]["template"])
    assert (name["containerName"], environment(container)[name["name"]]) == (container["name"], "unmask-worker")


def test_a_class_may_turn_off_what_the_defaults_turn_on() -> None:
    change = {"workers": {"cpu": {"replicas": 0, "budget": {"enabled": False}}}}
    found = render(merged(LEAST, change))
    assert of_kind(found, "Deployment")["unmask-worker-cpu"]["spec"]["replicas"] == 0
    assert of_kind(found, "PodDisruptionBudget").keys() == {"unmask-web"}
    found = render(merged(LEAST, {"workers": {"cpu": {"enabled": False}, "a10": {"gpus": 1, "tag": "cuda"}}}))
    assert of_kind(found, "Deployment").keys() == {"unmask-worker-a10", "unmask-web"}


def test_the_service_is_one_and_never_two() -> None:
    web = of_kind(example("large"), "Deployment")["unmask-web"]["spec"]
    assert (web["replicas"], web["strategy"]) == (1, {"type": "Recreate"})
    claim = of_kind(example("large"), "PersistentVolumeClaim")["unmask-web"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    # Its readiness does not depend on Kafka: workers fetch from it, and clients hand in videos meanwhile.
    assert containers(web["template"])[0]["readinessProbe"]["httpGet"]["path"] == "/healthz"


def test_retraining_runs_alone_beside_the_service() -> None:
    assert of_kind(render(LEAST), "CronJob") == {}
    spec = of_kind(everything(), "CronJob")["unmask-retrain"]["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    pod = spec["jobTemplate"]["spec"]["template"]
    (near,) = pod["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    web = of_kind(everything(), "Deployment")["unmask-web"]["spec"]["template"]
    assert near["topologyKey"] == "kubernetes.io/hostname"
    assert selects(near["labelSelector"], web["metadata"]["labels"])
    claims = {each["name"]: each["persistentVolumeClaim"]["claimName"] for each in pod["spec"]["volumes"]
              if "persistentVolumeClaim" in each}  # fmt: skip
    assert claims["data"] in {each.get("persistentVolumeClaim", {}).get("claimName") for each in web["spec"]["volumes"]}
    # Faces of people are not kept.
    assert "emptyDir" in next(each for each in pod["spec"]["volumes"] if each["name"] == "decisions")
    rules = spec["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert {"operator": "In", "values": [2, retrain.EXIT_REFUSED]} in [rule.get("onExitCodes") for rule in rules]


def test_topics_for_strimzi_are_those_that_workers_would_create() -> None:
    objects = list(yaml.safe_load_all((EXAMPLES / "strimzi.yaml").read_text()))
    topics = of_kind(objects, "KafkaTopic")
    assert topics.keys() == set(Topic)
    for topic in Topic:
        config = {name: str(value) for name, value in topics[topic]["spec"]["config"].items()}
        assert _config(topic).items() <= config.items()
        assert config["cleanup.policy"] == ("compact" if topic is Topic.VERDICTS else "delete")
    for name in ("gpu", "large"):
        kafka = yaml.safe_load(VALUES[name].read_text())["kafka"]
        for topic in (Topic.SEGMENTS, Topic.VIDEOS, Topic.ARCHIVE):
            assert topics[topic]["spec"]["partitions"] == kafka["partitions"]
        assert kafka["user"] in of_kind(objects, "KafkaUser")
        assert yaml.safe_load(VALUES[name].read_text())["web"]["kafka"]["user"] in of_kind(objects, "KafkaUser")
