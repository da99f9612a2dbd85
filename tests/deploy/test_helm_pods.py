"""The Helm chart: pods that may do as little as possible, with variables that Unmask reads."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from pipeline.transport.security import KafkaSecurity
from tests.deploy.helm_chart import (
    LEAST,
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
from tests.deploy.images import DOCKERFILES, stages
from tests.deploy.test_compose import known_settings
from trainers.commands import labels, retrain
from web.commands import serve
from web.oidc_options import _Variables

pytestmark = pytest.mark.slow

# Variables of others, which the chart sets: compose.gpu.yml has them, too.
NOT_OURS = {"TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"}
# Of a machine or a test, not of a service in a cluster; and those that only `env` sets, where defaults are not enough.
LEFT_OUT = {"UNMASK_DATA", "UNMASK_OFFLINE", "UNMASK_SERVE_MEDIA", "UNMASK_C2PA_TRUST"}
TUNING = {
    "UNMASK_BACKEND", "UNMASK_DETECTOR", "UNMASK_LIVE_MAX_AGE_S", "UNMASK_LOOKS", "UNMASK_MAX_ATTEMPTS",
    "UNMASK_MAX_FETCH_BYTES", "UNMASK_MAX_FILE_BYTES", "UNMASK_MIN_COVERAGE", "UNMASK_SERVE_DRIFT_DAYS",
    "UNMASK_SERVE_DRIFT_REFERENCE", "UNMASK_SHADOW_CROPS", "UNMASK_SHADOW_S", "UNMASK_SPLIT_S",
    "UNMASK_STREAM_IDLE_S", "UNMASK_STUCK_S", "UNMASK_TTL_S", "UNMASK_URI_CHAINS", "UNMASK_WORKERS",
}  # fmt: skip


@pytest.mark.parametrize("name", [*VALUES, "everything"])
def test_pods_are_restricted(name: str) -> None:
    """The Pod Security Standard "restricted", a read-only root, and no token of the cluster."""
    objects = everything() if name == "everything" else example(name)
    accounts = of_kind(objects, "ServiceAccount")
    seen = 0
    for _, pod in pods(objects):
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert accounts[spec["serviceAccountName"]]["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] >= 1000
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}
        assert {kind for volume in spec["volumes"] for kind in volume} <= {
            "name", "emptyDir", "persistentVolumeClaim", "secret",
        }  # fmt: skip
        (tmp,) = (volume["emptyDir"] for volume in spec["volumes"] if volume["name"] == "tmp")
        assert tmp["medium"] == "Memory"
        assert all("sizeLimit" in volume["emptyDir"] for volume in spec["volumes"] if "emptyDir" in volume)
        for container in containers(pod):
            seen += 1
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "privileged": False,
                "readOnlyRootFilesystem": True,
                "runAsNonRoot": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]
            assert not container["image"].endswith(":latest")
            mounts = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
            # Retraining promotes to the registry.
            assert mounts <= {"/tmp", "/cache", "/data", "/decisions", "/runs", "/registry"}
            assert "/registry" not in mounts or container["name"] == "retrain"
            names = {volume["name"] for volume in spec["volumes"]}
            assert {mount["name"] for mount in container["volumeMounts"]} <= names
    assert seen >= 2


def test_a_profile_of_the_node_can_take_the_place_of_the_runtime() -> None:
    profile = {"type": "Localhost", "localhostProfile": "unmask.json"}
    found = render(merged(LEAST, {"workerDefaults": {"seccomp": profile}}))
    worker = of_kind(found, "Deployment")["unmask-worker-cpu"]["spec"]["template"]["spec"]
    assert worker["securityContext"]["seccompProfile"] == profile


@pytest.mark.parametrize("name", VALUES)
def test_a_worker_has_time_to_finish_and_to_start(name: str) -> None:
    for deployment, pod in pods(example(name)):
        if "worker" not in deployment:
            continue
        (container,) = containers(pod)
        drain_s = int(environment(container)["UNMASK_DRAIN_S"])
        # It also commits, and leaves the group.
        assert pod["spec"]["terminationGracePeriodSeconds"] >= drain_s + 10
        assert container["startupProbe"]["httpGet"]["path"] == "/readyz"
        assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
        port = next(each["containerPort"] for each in container["ports"] if each["name"] == "http")
        assert str(port) == environment(container)["UNMASK_HTTP_PORT"]


def test_every_variable_that_is_set_is_read() -> None:
    readers = {
        "worker": known_settings(), "web": known_settings(), "export": known_settings() | options(labels.export),
        "retrain": known_settings() | options(retrain.run) | {"UNMASK_RUNS"},
    }  # fmt: skip
    fields = {f"UNMASK_KAFKA_{field.upper()}" for field in KafkaSecurity.model_fields}
    fields |= {f"UNMASK_OIDC_{field.upper()}" for field in _Variables.model_fields}
    for _, pod in pods(everything()):
        for container in containers(pod):
            allowed = readers[container["name"]] | fields | NOT_OURS
            assert environment(container).keys() <= allowed, container["name"]


def test_every_setting_is_set_or_left_to_env() -> None:
    ours = {
        name for _, pod in pods(everything()) for container in containers(pod) for name in environment(container)
    } - NOT_OURS  # fmt: skip
    settings = known_settings() | {f"UNMASK_KAFKA_{field.upper()}" for field in KafkaSecurity.model_fields}
    settings |= {f"UNMASK_OIDC_{field.upper()}" for field in _Variables.model_fields}
    assert settings - ours == LEFT_OUT | TUNING


def options(command: Any) -> set[str]:
    """Variables of a command's options."""
    found = inspect.signature(command, eval_str=True).parameters.values()
    return {
        option.envvar for each in found for option in getattr(each.annotation, "__metadata__", ())
        if getattr(option, "envvar", None)
    }  # fmt: skip


def test_the_service_is_started_with_options_that_it_has() -> None:
    more = {"secure": True, "proxy": ["10.0.0.0/8"], "automatic": ["real"], "keepDays": {"upload": 90}}
    found = render(merged(LEAST, {"web": more}))
    known = {f"--{name.replace('_', '-')}" for name in inspect.signature(serve.run).parameters}
    (web,) = containers(of_kind(found, "Deployment")["unmask-web"]["spec"]["template"])
    assert {argument.partition("=")[0] for argument in web["args"][1:]} <= known
    assert {"--secure", "--proxy=10.0.0.0/8", "--automatic=real", "--keep-days=upload=90"} <= set(web["args"])
    known = {f"--{name.replace('_', '-')}" for name in inspect.signature(retrain.run).parameters}
    job = of_kind(everything(), "CronJob")["unmask-retrain"]["spec"]["jobTemplate"]["spec"]["template"]
    arguments = job["spec"]["containers"][0]["args"]
    assert {argument.partition("=")[0] for argument in arguments if argument.startswith("--")} <= known


def test_paths_are_those_of_the_images() -> None:
    """The images are made for these: a folder that they prepare, a user, a cache."""
    found = render(LEAST)
    for path in DOCKERFILES:
        final = stages(path)[-1]
        (user,) = final.all("USER")
        for _, pod in pods(found):
            security = pod["spec"]["securityContext"]
            assert f"{security['runAsUser']}:{security['runAsGroup']}" == user
            for container in containers(pod):
                assert f"UNMASK_CACHE={environment(container)['UNMASK_CACHE']}" in final.all("ENV")[0].split()
        (web,) = containers(of_kind(found, "Deployment")["unmask-web"]["spec"]["template"])
        assert any(f"--mode 700 {environment(web)['UNMASK_SERVE_FOLDER']}" in step for step in final.all("RUN"))


def test_passwords_come_from_secrets_alone() -> None:
    for _, pod in pods(everything()):
        for container in containers(pod):
            for variable, value in environment(container).items():
                if re.search("PASSWORD|SECRET", variable):
                    assert isinstance(value, dict), variable
                    assert value["secretKeyRef"]["name"]
    assert of_kind(everything(), "Secret") == {}


def test_gpu_workers_have_gpus() -> None:
    worker = of_kind(example("gpu"), "Deployment")["unmask-worker-cuda"]["spec"]["template"]
    (container,) = containers(worker)
    assert container["image"] == "unmask:cuda"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert environment(container)["UNMASK_DEVICE"] == "cuda"
    assert worker["spec"]["runtimeClassName"] == "nvidia"
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in worker["spec"]["tolerations"]
