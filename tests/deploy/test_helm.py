"""The Helm chart: what it renders is valid, as Helm, Kubernetes' schemas and Prometheus' own tool see it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.local import chart_tools
from tests.deploy.helm_chart import (
    CHART,
    EXAMPLES,
    INSTALLER,
    LEAST,
    VALUES,
    everything,
    example,
    merged,
    of_kind,
    run,
    tool,
)
from tests.deploy.helm_chart import template as rendered
from tests.deploy.images import ROOT, absent

pytestmark = pytest.mark.slow


def conform(text: str, version: str) -> tuple[int, str]:
    """Validate objects by the schemas of a version of Kubernetes, KEDA, the Prometheus operator and Strimzi."""
    folders = chart_tools.kubernetes_schemas(version), chart_tools.resource_schemas()
    if not all(folder.is_dir() for folder in folders):
        absent("schemas", INSTALLER)
    locations = (
        f"{folders[0]}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json",
        f"{folders[1]}/{{{{.Group}}}}/{{{{.ResourceKind}}}}_{{{{.ResourceAPIVersion}}}}.json",
    )
    options = [option for each in locations for option in ("-schema-location", each)]
    done = run([tool("kubeconform"), "-strict", "-summary", "-kubernetes-version", version, *options, "-"], given=text)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("name", VALUES)
def test_helm_finds_no_fault_in_the_chart(name: str) -> None:
    version = chart_tools.KUBERNETES[-1]
    done = run([tool("helm"), "lint", "--strict", CHART, "--kube-version", version, "--values", VALUES[name]])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout


@pytest.mark.parametrize("version", chart_tools.KUBERNETES)
@pytest.mark.parametrize("name", VALUES)
def test_each_object_follows_its_schema(name: str, version: str) -> None:
    done = rendered(VALUES[name])
    assert done.returncode == 0, done.stderr
    code, said = conform(done.stdout, version)
    assert code == 0, said
    assert f"Valid: {len(example(name))}, Invalid: 0, Errors: 0, Skipped: 0" in said


def test_with_every_switch_on_each_object_follows_its_schema() -> None:
    code, said = conform(yaml.safe_dump_all(everything()), chart_tools.KUBERNETES[-1])
    assert code == 0, said


def test_a_packaged_chart_is_the_same(tmp_path: Path) -> None:
    """Alerts and dashboard are links in the repository, and files in the package."""
    assert run([tool("helm"), "package", CHART, "--destination", tmp_path]).returncode == 0
    (package,) = tmp_path.iterdir()
    assert rendered(VALUES["large"], chart=package).stdout == rendered(VALUES["large"]).stdout


def test_objects_of_kafka_follow_their_schema() -> None:
    code, said = conform((EXAMPLES / "strimzi.yaml").read_text(), chart_tools.KUBERNETES[-1])
    assert code == 0, said
    assert "Valid: 7, Invalid: 0, Errors: 0, Skipped: 0" in said


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("Deployment", ("spec", "template", "spec", "containers", 0, "livnessProbe"), {}),
        ("NetworkPolicy", ("spec", "ingres"), []),
        ("CronJob", ("spec", "concurrencyPolicy"), 1),
        ("ScaledObject", ("spec", "triggers", 0, "metdata"), {}),
        ("ScaledObject", ("spec", "maxReplicaCount"), "many"),
        ("TriggerAuthentication", ("spec", "secretTargetRef", 0, "secret"), "x"),
        ("PodMonitor", ("spec", "podMetricsEndpoints", 0, "prot"), "http"),
        ("PrometheusRule", ("spec", "groups", 0, "rules", 0, "form"), "2m"),
    ],
)
def test_the_schemas_notice_a_fault(kind: str, path: tuple[str | int, ...], value: Any) -> None:
    found = json.loads(json.dumps(next(iter(of_kind(example("large"), kind).values()))))
    assert conform(yaml.safe_dump(found), chart_tools.KUBERNETES[-1])[0] == 0
    place = found
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert conform(yaml.safe_dump(found), chart_tools.KUBERNETES[-1])[0] != 0


@pytest.mark.parametrize("kind", ["KafkaTopic", "KafkaUser"])
def test_the_schemas_of_kafka_notice_a_fault(kind: str) -> None:
    found = next(each for each in yaml.safe_load_all((EXAMPLES / "strimzi.yaml").read_text()) if each["kind"] == kind)
    found["spec"]["replicaz"] = 3
    assert conform(yaml.safe_dump(found), chart_tools.KUBERNETES[-1])[0] != 0


def test_alerts_are_those_of_the_repository(tmp_path: Path) -> None:
    (rule,) = of_kind(example("large"), "PrometheusRule").values()
    source = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yml").read_text())
    assert rule["spec"] == source
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump(rule["spec"]))
    done = run([tool("promtool"), "check", "rules", path])
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(source['groups'][0]['rules'])} rules found" in done.stdout


def test_the_dashboard_is_that_of_the_repository() -> None:
    found = of_kind(example("large"), "ConfigMap")["unmask-dashboard"]
    source = ROOT / "deploy" / "grafana" / "dashboards" / "unmask.json"
    assert found["data"] == {"unmask.json": source.read_text()}
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_metrics_have_the_jobs_that_alerts_look_for() -> None:
    found = of_kind(example("large"), "PodMonitor")
    jobs = {each["replacement"] for monitor in found.values()
            for each in monitor["spec"]["podMetricsEndpoints"][0]["relabelings"]}  # fmt: skip
    (pattern,) = set(re.findall(r'job=~"([^"]+)"', (ROOT / "deploy" / "prometheus" / "rules.yml").read_text()))
    assert jobs == {"unmask-worker", "unmask-web"}
    assert all(re.fullmatch(pattern, job) for job in jobs)
    web = found["unmask-web"]["spec"]["podMetricsEndpoints"][0]
    assert (web["path"], web["authorization"]["credentials"]["name"]) == ("/v1/metrics", "unmask-metrics")
    assert found["unmask-web"]["metadata"]["labels"]["release"] == "prometheus"


def test_the_query_that_scales_is_of_an_exported_metric(tmp_path: Path) -> None:
    import promql_parser

    from tests.deploy.test_monitoring import exported, named

    queries = [
        trigger["metadata"]["query"]
        for scaled in of_kind(example("large"), "ScaledObject").values()
        for trigger in scaled["spec"]["triggers"]
        if trigger["type"] == "prometheus"
    ]
    for query in queries:
        promql_parser.parse(query)
    asked = set().union(*map(named, queries))
    assert asked == {"unmask_oldest_waiting_seconds", "unmask_segments_total"} <= exported()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"worker": {}}, "additional properties 'worker' not allowed"),
        ({"workers": {"cpu": {"replica": 2}}}, "additional properties 'replica' not allowed"),
        ({"workers": {"cpu": {"resources": {"limits": {"cpu": "two"}}}}}, "does not match pattern"),
        ({"workers": {"cpu": {"seccomp": {"type": "Unconfined"}}}}, "must be one of"),
        ({"workers": {"cpu": {"sandbox": "off"}}}, "must be one of"),
        ({"securityContext": {"uid": 0}}, "minimum"),
        ({"networkPolicy": {"workerEgress": [{}]}}, "minProperties"),
        ({"kafka": {"bootstrap": ""}}, "kafka.bootstrap is empty"),
        ({"kafka": {"bootstrap": "kafka"}}, "does not match pattern"),
        ({"redis": {"url": ""}}, "redis.url and redis.urlSecret.name are empty"),
        ({"redis": {"urlSecret": {"name": "redis"}}}, "are both set"),
        ({"redis": {"url": "redis://:password@redis:6379/0"}}, "put the URL into a Secret"),
        ({"redis": {"url": "redis://redis:6379/0?password=x"}}, "put the URL into a Secret"),
        ({"redis": {"url": "rediss://redis:6380/0"}}, "redis.url has the port 6380"),
        ({"kafka": {"bootstrap": "a:9092,b:9093"}}, "kafka.bootstrap has the port 9093"),
        ({"uriAllow": ["https://me:password@host/"]}, "uriAllow has a user or a password"),
        ({"videos": {"mountPath": "/data"}}, "/data: /data, /tmp and /cache are folders of the pods"),
        ({"videos": {"mountPath": "/x"}, "registry": {"mountPath": "/x"}}, "are the same folder"),
        ({"workers": {"cpu": {"podLabels": {"app.kubernetes.io/component": "web"}}}}, "is set by this chart"),
        ({"workers": {"cpu": {"gpus": 1, "env": {"UNMASK_DEVICE": "cpu"}}}}, "UNMASK_DEVICE is set by gpus"),
        ({"web": {"maxUploadMib": 4096}}, "is more than tmpSize of workers.cpu (2048 MiB)"),
        ({"workers": {"cpu": {"tmpSize": "4Gi"}}}, "tmpSize (4096 MiB) is in memory"),
        ({"web": {"store": "sftp://me:password@host/uploads"}}, "web.store has a user or a password"),
        ({"kafka": {"security": "SASL_SSL"}}, "set kafka.user and kafka.passwordSecret.name"),
        ({"workers": {"cpu": {"replicas": 9}}}, "up to 9 workers (of cpu), but the topics have 8 partitions"),
        (
            {"workers": {"cpu": {"replicas": 4}, "cuda": {"enabled": True, "autoscaling": {"enabled": True, "maxReplicas": 5}}}},  # noqa: E501
            "up to 9 workers (of cpu, cuda)",
        ),
        ({"workers": {"cpu": {"autoscaling": {"enabled": True, "minReplicas": 9}}}}, "is more than maxReplicas"),
        (
            {"workers": {"cpu": {"autoscaling": {"enabled": True, "lag": {"segments": 0, "videos": 0, "archive": 0}}}}},
            "autoscaling.lag has no topic",
        ),
        ({"workers": {"cpu": {"drainS": 45}}}, "drainS (45) must be less than graceS (45)"),
        ({"workers": {"cpu": {"update": {"maxSurge": 0}}}}, "no worker could be replaced"),
        ({"workers": {"cpu": {"seccomp": {"type": "Localhost"}}}}, "seccomp.localhostProfile"),
        ({"workers": {"cpu": {"env": {"UNMASK_DRAIN_S": "9"}}}}, "UNMASK_DRAIN_S is set by another value"),
        ({"web": {"env": {"UNMASK_KAFKA_USER": "me"}}}, "UNMASK_KAFKA_USER is set by another value"),
        ({"web": {"env": {"AWS_SECRET_ACCESS_KEY": "x"}}}, "web.env: AWS_SECRET_ACCESS_KEY looks like a secret"),
        ({"web": {"env": {"HTTPS_PROXY": "http://me:password@proxy"}}}, "web.env: HTTPS_PROXY looks like a secret"),
        ({"web": {"ingress": {"enabled": True}}}, "web.ingress.host is empty"),
        ({"web": {"ingress": {"tlsSecret": "tls"}}}, "web.secure is not"),
        ({"web": {"oidc": {"issuer": "https://login.example.org"}}}, "clientId, roles and publicUrl are needed"),
        ({"retrain": {"enabled": True}}, "retrain.image is empty"),
        ({"registry": {"uri": "s3://a/b", "existingClaim": "c"}}, "registry.existingClaim are both set"),
    ],
)  # fmt: skip
def test_wrong_values_are_refused_and_the_error_says_why(change: dict[str, Any], said: str) -> None:
    done = rendered(merged(LEAST, change))
    assert done.returncode != 0
    assert said in done.stderr
