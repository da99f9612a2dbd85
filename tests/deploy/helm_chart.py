"""The Helm chart, rendered by Helm itself, as parsed objects."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from deploy.local import chart_tools
from tests.deploy.images import ROOT, absent

CHART = ROOT / "deploy" / "helm" / "unmask"
EXAMPLES = ROOT / "deploy" / "helm" / "examples"
VALUES = {name: EXAMPLES / f"values-{name}.yaml" for name in ("small", "gpu", "large")}
NAMESPACE = "videos"
# What has no default, and nothing else.
LEAST = {"kafka": {"bootstrap": "kafka:9092"}, "redis": {"url": "redis://redis:6379/0"}}
# Every switch of the chart that sets a variable.
ALL_SET = {
    "kafka": {
        "security": "SASL_SSL", "user": "me", "passwordSecret": {"name": "p"}, "caSecret": {"name": "ca"},
        "certSecret": {"name": "cert"},
    },
    "registry": {"existingClaim": "registry"},
    "uriAllow": ["file:///videos"],
    "workers": {"cuda": {"enabled": True, "weights": {"name": "unmask-small"}}},
    "web": {
        "store": "s3://bucket/prefix", "webhookAllow": ["https://hooks.example.org"],
        "oidc": {
            "issuer": "https://login.example.org", "clientId": "unmask", "clientSecret": {"name": "oidc"},
            "roles": "groups=desk:review", "publicUrl": "https://unmask.example.org",
        },
    },
    "retrain": {
        "enabled": True, "image": {"repository": "train", "tag": "1"}, "runsClaim": "runs", "gpus": 1,
        "base": {"existingClaim": "base", "manifest": "all.parquet"},
    },
}  # fmt: skip
INSTALLER = "deploy/local/packages.sh --charts"


def tool(name: str) -> str:
    """The path of a program; without it the test is skipped, or fails in CI."""
    path = chart_tools.program(name)
    if not path.exists():
        absent(name, INSTALLER)
    return str(path)


def run(command: Sequence[str | Path], given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(list(map(str, command)), input=given, capture_output=True, text=True, check=False)


def template(values: Mapping[str, Any] | Path, *, chart: Path = CHART) -> subprocess.CompletedProcess[str]:
    """`helm template` with a file of values, or with values."""
    version = chart_tools.KUBERNETES[-1]
    command = [tool("helm"), "template", "unmask", chart, "--namespace", NAMESPACE, "--kube-version", version]
    if isinstance(values, Path):
        return run([*command, "--values", values])
    return run([*command, "--values", "-"], given=json.dumps(values))


def render(values: Mapping[str, Any] | Path) -> list[dict[str, Any]]:
    """The objects that values give."""
    done = template(values)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


@functools.cache
def example(name: str) -> list[dict[str, Any]]:
    """The objects of one of the examples."""
    return render(VALUES[name])


def of_kind(objects: Sequence[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    """Objects of a kind, by name."""
    return {each["metadata"]["name"]: each for each in objects if each["kind"] == kind}


def pods(objects: Sequence[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and template (metadata, spec) of each kind of pod."""
    for each in objects:
        if each["kind"] == "Deployment":
            yield each["metadata"]["name"], each["spec"]["template"]
        elif each["kind"] == "CronJob":
            yield each["metadata"]["name"], each["spec"]["jobTemplate"]["spec"]["template"]


def containers(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All containers of a pod's template."""
    return [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]


def environment(container: Mapping[str, Any]) -> dict[str, Any]:
    """Variables with their value, or where it comes from."""
    found = {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}
    assert len(found) == len(container["env"]), "a variable is set twice"
    return found


def merged(*values: Mapping[str, Any]) -> dict[str, Any]:
    """Values over earlier ones, at every depth."""
    found: dict[str, Any] = {}
    for each in values:
        for key, value in each.items():
            both = isinstance(value, Mapping) and isinstance(found.get(key), Mapping)
            found[key] = merged(found[key], value) if both else value
    return found


@functools.cache
def everything() -> list[dict[str, Any]]:
    """The objects where every switch is on."""
    return render(merged(LEAST, ALL_SET))
