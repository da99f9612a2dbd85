"""The Compose files, without a Docker engine: against the specification and Unmask's settings."""

from __future__ import annotations

import functools
import inspect
import itertools
import json
import re
import shlex
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.commands import worker
from pipeline.settings import Settings
from tests.deploy.images import DOCKER, DOCKERFILES, ROOT, absent, stages
from web.commands import serve

COMPOSE, GPU = ROOT / "docker-compose.yml", DOCKER / "compose.gpu.yml"
OURS = ("worker", "web", "submit", "demo")
# Pages for people of this machine.
PAGES = ("web", "grafana", "jaeger")
# Variables of traces that OpenTelemetry's SDK reads, or `pipeline.tracing`.
TRACES = {"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"}


@functools.cache
def compose(path: Path = COMPOSE) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


def services() -> dict[str, dict[str, Any]]:
    return compose()["services"]


def variables(path: Path) -> dict[str, str]:
    """Variables that a Compose file takes from .env, with their defaults."""
    return dict(re.findall(r"\$\{(\w+):-([^}]*)\}", path.read_text()))


def known_settings() -> set[str]:
    """Variables that a worker or the service reads."""
    options = [
        option for command in (worker.run, serve.run)
        for parameter in inspect.signature(command, eval_str=True).parameters.values()
        for option in getattr(parameter.annotation, "__metadata__", ())
    ]  # fmt: skip
    return {f"UNMASK_{name.upper()}" for name in Settings.model_fields} | {
        option.envvar for option in options if option.envvar
    }


@pytest.mark.parametrize("path", [COMPOSE, GPU], ids=lambda path: path.name)
def test_compose_files_follow_the_specification(path):
    try:
        # Found by its metadata: importing the package takes longer than all tests of this file.
        package = metadata.distribution("check-jsonschema")
    except metadata.PackageNotFoundError:
        absent("check-jsonschema")
    from jsonschema import Draft202012Validator

    schema = Path(str(package.locate_file("check_jsonschema/builtin_schemas/vendor/compose-spec.json"))).read_text()
    validator = Draft202012Validator(json.loads(schema))
    assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(compose(path))] == []


def test_services_refer_only_to_what_exists():
    for service in services().values():
        assert set(service.get("depends_on", ())) <= services().keys()
        assert set(service["networks"]) <= compose()["networks"].keys()
        for volume in service.get("volumes", ()):
            if isinstance(volume, str):
                assert volume.split(":")[0] in compose()["volumes"]
            elif volume["type"] == "volume":
                assert volume["source"] in compose()["volumes"]
        if "build" in service:
            assert (ROOT / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    assert compose(GPU)["services"].keys() <= services().keys()
    assert (ROOT / compose(GPU)["services"]["worker"]["build"]["dockerfile"]).is_file()


def test_images_are_pinned_and_kafka_has_the_tested_version():
    for service in services().values():
        name, _, tag = service["image"].partition(":")
        assert tag
        assert tag != "latest"
        if "build" not in service:
            assert re.match(r"v?\d+\.\d+\.\d+", tag), name
        else:
            assert service["pull_policy"] == "build"
    pom = (ROOT / "deploy" / "local" / "kafka" / "pom.xml").read_text()
    assert (
        services()["kafka"]["image"]
        == "apache/kafka:" + re.search(r"kafka_[\d.]+</artifactId>\s*<version>(.*?)<", pom)[1]
    )


def test_only_pages_have_network_access_and_only_from_this_machine():
    for name, service in services().items():
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", ()))
        open_ = [
            network for network in service["networks"] if not (compose()["networks"][network] or {}).get("internal")
        ]
        assert open_ == (["outside"] if name in PAGES else [])
        assert bool(service.get("ports")) is (name in PAGES)
        assert "network_mode" not in service


def test_workers_fetch_uploads_from_the_service():
    web, given = services()["web"]["environment"], variables(COMPOSE)
    port = services()["web"]["command"][-1]
    assert web["UNMASK_SERVE_URL"] == f"http://web:{port}"
    assert str(web["UNMASK_HTTP_PORT"]) == port == services()["web"]["ports"][0].rpartition(":")[2]
    assert f"{web['UNMASK_SERVE_URL']}/v1/tasks" in given["UNMASK_URI_ALLOW"].split(",")
    (data,) = (volume for volume in services()["web"]["volumes"] if volume["type"] == "volume")
    assert data["target"] == web["UNMASK_SERVE_FOLDER"]
    for path in DOCKERFILES:
        assert any(
            f"--owner unmask --group unmask --mode 700 {data['target']}" in run for run in stages(path)[-1].all("RUN")
        )


def test_services_have_no_privileges():
    for service in services().values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["read_only"] is True
        assert not service.keys() & {"privileged", "cap_add", "devices", "pid", "ipc", "userns_mode"}
    for name in OURS:
        service = services()[name]
        assert service["init"] is True
        binds = [volume for volume in service["volumes"] if volume["type"] == "bind"]
        assert all(volume["read_only"] and not volume["bind"]["create_host_path"] for volume in binds)
        assert len(service["volumes"]) - len(binds) == (name == "web")
        assert all(int(value) >= 1000 for value in re.findall(r":-(\d+)", service["user"]))


def test_kafka_log_is_on_its_volume():
    kafka = services()["kafka"]
    assert f"kafka:{kafka['environment']['KAFKA_LOG_DIRS']}" in kafka["volumes"]
    # What it writes elsewhere: its root is read-only. Java's codecs load libraries from /tmp.
    mounts = dict(mount.split(":") for mount in kafka["tmpfs"])
    assert mounts.keys() == {"/opt/kafka/config", "/opt/kafka/logs", "/tmp"}
    assert "exec" in mounts["/tmp"].split(",")
    assert len(kafka["environment"]["CLUSTER_ID"]) == 22  # 16 bytes in base64, as Kafka requires


def test_redis_loses_no_verdict():
    arguments = shlex.split(services()["redis"]["command"])
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "always"
    assert options["--maxmemory-policy"] == "noeviction"
    assert "redis:/data" in services()["redis"]["volumes"]


def test_workers_wait_for_services_and_can_be_scaled():
    service = services()["worker"]
    assert service["depends_on"] == {name: {"condition": "service_healthy"} for name in ("kafka", "redis")}
    assert all(services()[name]["healthcheck"]["test"] for name in service["depends_on"])
    assert not service.keys() & {"container_name", "ports", "hostname"}
    assert service["healthcheck"]["test"] == ["CMD", "unmask-health", "/readyz"]
    assert service["environment"]["UNMASK_HTTP_HOST"] == "0.0.0.0"
    assert services()["submit"]["volumes"] == service["volumes"]
    given, videos = variables(COMPOSE), service["volumes"][0]
    assert f"file://{videos['target']}" in given["UNMASK_URI_ALLOW"].split(",")
    # Docker kills it only after its drain.
    assert float(given["UNMASK_STOP_GRACE"].removesuffix("s")) > float(given["UNMASK_DRAIN_S"])


def test_every_variable_that_is_set_is_read():
    for name in OURS:
        assert services()[name].get("environment", {}).keys() <= known_settings() | TRACES
    for path in DOCKERFILES:
        (environment,) = stages(path)[-1].all("ENV")
        assert set(re.findall(r"\bUNMASK_\w+(?==)", environment)) <= known_settings()


def test_gpu_workers_compile_into_an_executable_mount():
    worker = compose(GPU)["services"]["worker"]
    (mount,) = (mount.split(":") for mount in worker["tmpfs"])
    assert "exec" in mount[1].split(",")
    assert all(folder.startswith(f"{mount[0]}/") for folder in worker["environment"].values())


def test_env_example_is_complete_correct_and_explained():
    lines = (ROOT / ".env.example").read_text().splitlines()
    listed = {}
    for above, line in itertools.pairwise(lines):
        if found := re.fullmatch(r"#?([A-Z_]+)=(.+)", line):
            listed[found[1]] = found[2]
            assert re.match(r"# |#?[A-Z_]+=", above), f"{line}: no comment explains it"
    taken = variables(COMPOSE) | variables(GPU)
    environments = [services()[name].get("environment", {}) for name in OURS]
    assert listed.keys() == set(taken).union(*environments)
    # A line that is commented out holds the default, if there is one.
    # Where services differ, the worker's.
    fixed = {name: str(value) for environment in reversed(environments) for name, value in environment.items()}
    defaults = {name: value for name, value in (fixed | taken).items() if value not in ("", "None")}
    assert {name: listed[name] for name in defaults} == defaults


def test_the_demo_needs_nothing_else_and_finds_the_clips_of_the_image():
    demo = services()["demo"]
    assert demo["profiles"] == ["demo"]
    assert (demo["depends_on"], demo["volumes"]) == ({}, [])
    assert demo["entrypoint"] == ["unmask", "scan"]
    (folder,) = demo["command"]
    final = stages(ROOT / demo["build"]["dockerfile"])[-1]
    assert f"--from=clips /clips {folder}" in final.all("COPY")


def test_traces_go_to_the_collector_and_on_to_where_they_are_seen():
    collector, jaeger = services()["collector"], services()["jaeger"]
    assert collector["profiles"] == jaeger["profiles"] == ["tracing"]
    (mount,) = collector["volumes"]
    (argument,) = collector["command"]
    inside = Path(argument.removeprefix("--config="))
    config = yaml.safe_load((ROOT / mount["source"] / inside.relative_to(mount["target"])).read_text())
    port = config["receivers"]["otlp"]["protocols"]["http"]["endpoint"].rpartition(":")[2]
    example = (ROOT / ".env.example").read_text()
    assert f"OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:{port}\n" in example
    pipeline = config["service"]["pipelines"]["traces"]
    for kind in ("receivers", "processors", "exporters"):
        assert set(pipeline[kind]) == config[kind].keys()
    # As the collector's documentation asks: the limit first.
    assert pipeline["processors"][0] == "memory_limiter"
    (exporter,) = config["exporters"].values()
    assert exporter["endpoint"].partition("//")[2].partition(":")[0] == "jaeger"
    assert jaeger["environment"]["JAEGER_LISTEN_HOST"] == "0.0.0.0"


def test_every_process_of_ours_can_export_traces():
    for name in ("worker", "web", "submit"):
        assert services()[name]["environment"].keys() >= TRACES
    # Without a value in .env they are not set: no traces.
    assert {services()["worker"]["environment"][name] for name in TRACES} == {None}
