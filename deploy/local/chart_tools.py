"""Builds what checks the Helm chart, each once: `packages.sh --charts` runs it.

Programs come from Go's module proxy by `go install`, schemas of Kubernetes from PyPI, of KEDA and the Prometheus
operator from their Go modules, of Strimzi from Maven. Everything is in ~/.cache/unmask/tools, named by its version;
`bin` in it has links to the programs.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import yaml

HERE = Path(__file__).parent
# Name, then the Go package and its version.
PROGRAMS: Final = {
    "helm": "helm.sh/helm/v3/cmd/helm@v3.22.0",
    "kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0",
    "promtool": "github.com/prometheus/prometheus/cmd/promtool@v0.316.0",
}
# Go modules with definitions of resources, and these.
DEFINITIONS: Final = {
    "github.com/kedacore/keda/v2@v2.21.0": (
        "config/crd/bases/keda.sh_scaledobjects.yaml",
        "config/crd/bases/keda.sh_triggerauthentications.yaml",
    ),
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": (
        "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    ),
}
STRIMZI: Final = HERE / "strimzi" / "pom.xml"
STRIMZI_CLASSES: Final = ("topic.KafkaTopic", "user.KafkaUser")
# The oldest version that the chart allows, and the newest one that the schemas know.
KUBERNETES: Final = ("1.31.0", "1.37.0")
_LOCK: Final = HERE / "kubernetes.lock"
# What is converted by other code goes to another folder.
_SELF: Final = Path(__file__).read_text()
# Earlier ones cannot fetch a newer toolchain by themselves.
_GO_MIN: Final = (1, 21)
_TIMEOUT_S: Final = 3000.0


class ToolError(Exception):
    """Something could not be fetched or built; the message has its output."""


def folder() -> Path:
    """Where everything is kept; not in `UNMASK_CACHE`, which tests set to a folder of their own."""
    return Path.home() / ".cache" / "unmask" / "tools"


def program(name: str) -> Path:
    """The path of a program, which may not be built yet."""
    return folder() / f"{name}-{PROGRAMS[name].rpartition('@')[2]}"


def kubernetes_schemas(version: str) -> Path:
    """The folder with schemas of one version of Kubernetes, which may not exist yet."""
    return folder() / f"kubernetes-{version}-{_hash(_LOCK.read_text(), _SELF)}"


def resource_schemas() -> Path:
    """The folder with schemas of KEDA, the Prometheus operator and Strimzi, which may not exist yet."""
    return folder() / f"resources-{_hash(STRIMZI.read_text(), _SELF)}"


def schema_of(definition: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema that refuses unknown fields, of an `openAPIV3Schema`.

    As the API server reads it: fields are closed unless `x-kubernetes-preserve-unknown-fields` or
    `additionalProperties` opens them, and `x-kubernetes-int-or-string` is either.
    """
    found: dict[str, Any] = {}
    for key, value in definition.items():
        if key in ("properties", "patternProperties") and isinstance(value, dict):
            found[key] = {name: schema_of(each) for name, each in value.items()}
        elif key in ("items", "additionalProperties", "not") and isinstance(value, dict):
            found[key] = schema_of(value)
        elif key in ("allOf", "anyOf", "oneOf"):
            # Within these, fields are only constrained: they are declared outside.
            found[key] = value
        elif not key.startswith("x-kubernetes-") and key not in ("nullable", "description", "format", "example"):
            found[key] = value
    if definition.get("x-kubernetes-int-or-string"):
        found = {"type": ["integer", "string"]}
    opened = definition.get("x-kubernetes-preserve-unknown-fields") or definition.get("x-kubernetes-embedded-resource")
    if "properties" in found and "additionalProperties" not in found and not opened:
        found["additionalProperties"] = False
    if definition.get("nullable") and isinstance(found.get("type"), str):
        found["type"] = [found["type"], "null"]
    return found


def write_schemas(definition: Path, out: Path) -> None:
    """Write a schema for each version of a CustomResourceDefinition: GROUP/KIND_VERSION.json, in lower case."""
    for document in yaml.safe_load_all(definition.read_text()):
        if not document or document.get("kind") != "CustomResourceDefinition":
            continue
        group, kind = document["spec"]["group"], document["spec"]["names"]["kind"].lower()
        (out / group).mkdir(parents=True, exist_ok=True)
        for version in document["spec"]["versions"]:
            schema = schema_of(version["schema"]["openAPIV3Schema"])
            # Kubernetes itself declares these of every resource.
            schema["properties"] |= {
                "apiVersion": {"const": f"{group}/{version['name']}"},
                "kind": {"const": document["spec"]["names"]["kind"]},
                "metadata": {"type": "object"},
            }
            (out / group / f"{kind}_{version['name']}.json").write_text(json.dumps(schema))


def _build_program(name: str, out: Path) -> None:
    go = _go()
    bin_folder = out.with_name(f"{out.name}.bin")
    try:
        _run([str(go), "install", "-ldflags=-s -w", PROGRAMS[name]], {**_go_environment(go), "GOBIN": str(bin_folder)})
        (bin_folder / name).rename(out)
    finally:
        shutil.rmtree(bin_folder, ignore_errors=True)


def _build_kubernetes(version: str, out: Path) -> None:
    package = out.with_name(f"{out.name}.package")
    try:
        _pip(_LOCK, package)
        out.mkdir()
        source = package / "kubernetes_validate" / "kubernetes-json-schema" / f"v{version}-local-strict"
        for path in source.glob("*.json"):
            schema = json.loads(path.read_text())
            # Their ids would make kubeconform look for what they refer to on a server.
            schema.pop("$id", None)
            text = json.dumps(schema).replace('"/api/_definitions.json', '"_definitions.json')
            (out / path.name).write_text(text)
    finally:
        shutil.rmtree(package, ignore_errors=True)


def _build_resources(out: Path) -> None:
    go = _go()
    out.mkdir()
    for module, files in DEFINITIONS.items():
        answer = json.loads(_run([str(go), "mod", "download", "-json", module], _go_environment(go)))
        for name in files:
            write_schemas(Path(answer["Dir"]) / name, out)
    jars = out.with_name(f"{out.name}.jars")
    try:
        _run(["mvn", "-q", "-B", "-f", str(STRIMZI), "dependency:copy-dependencies", f"-DoutputDirectory={jars}"])
        files_of = {name: jars / f"{name}.yaml" for name in STRIMZI_CLASSES}
        classes = [f"io.strimzi.api.kafka.model.{name}={path}" for name, path in files_of.items()]
        _run(["java", "-cp", f"{jars}/*", "io.strimzi.crdgenerator.CrdGenerator", "--yaml", *classes])
        for path in files_of.values():
            write_schemas(path, out)
    finally:
        shutil.rmtree(jars, ignore_errors=True)


def _link(name: str) -> None:
    """Let `bin/NAME` be the program of this version."""
    link = folder() / "bin" / name
    link.parent.mkdir(parents=True, exist_ok=True)
    fresh = link.with_name(f"{name}.{os.getpid()}")
    fresh.symlink_to(Path("..") / program(name).name)
    fresh.replace(link)


def _go() -> Path:
    """A Go that can fetch the toolchain of a module; from PyPI where the machine has none."""
    found = shutil.which("go")
    if found is not None:
        version = re.search(r"go(\d+)\.(\d+)", _run([found, "version"]))
        if version is not None and (int(version[1]), int(version[2])) >= _GO_MIN:
            return Path(found)
    lock = HERE / "go.lock"
    home = folder() / f"go-{_hash(lock.read_text())}"
    _once(home, partial(_pip, lock))
    # The program itself: what pip puts into `bin` is a script of one Python.
    return home / "go" / "bin" / "go"


def _go_environment(go: Path) -> dict[str, str]:
    # A module that needs a newer Go gets it from the proxy.
    return {
        "GOTOOLCHAIN": "auto",
        "GOFLAGS": "-mod=mod",
        "GO111MODULE": "on",
        "GOWORK": "off",
        "PATH": _path(go.parent),
    }


def _path(first: Path) -> str:
    return f"{first}{os.pathsep}{os.environ.get('PATH', '')}"


def _pip(lock: Path, out: Path) -> None:
    """Install a lock's packages into a folder, by uv where it is next to this Python."""
    uv = Path(sys.executable).with_name("uv")
    pip = [str(uv), "pip"] if uv.is_file() else [sys.executable, "-m", "pip"]
    _run([*pip, "install", "--quiet", "--no-deps", "--require-hashes", "--target", str(out), "-r", str(lock)])


def _once(out: Path, build: Callable[[Path], None]) -> None:
    """Build `out` unless it exists; renamed when complete, so that two processes may do it at once."""
    if out.exists():
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = out.with_name(f"{out.name}.{os.getpid()}")
    try:
        build(fresh)
        fresh.rename(out)
    except OSError:
        if not out.exists():
            raise
    finally:
        if fresh.is_dir():
            shutil.rmtree(fresh, ignore_errors=True)


def _run(command: list[str], environment: dict[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env={**os.environ, **(environment or {})},
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolError(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        raise ToolError(f"{' '.join(command)}: {(done.stdout + done.stderr)[-1500:]}")
    return done.stdout


def _hash(*texts: str) -> str:
    return hashlib.sha256(repr(texts).encode()).hexdigest()[:12]


def main() -> int:
    """Build what is missing; returns the exit code."""
    steps: list[tuple[Path, Callable[[Path], None]]] = [
        *((kubernetes_schemas(version), partial(_build_kubernetes, version)) for version in KUBERNETES),
        (resource_schemas(), _build_resources),
        *((program(name), partial(_build_program, name)) for name in PROGRAMS),
    ]
    try:
        for out, build in steps:
            if not out.exists():
                sys.stdout.write(f"Building {out}\n")
                sys.stdout.flush()
                _once(out, build)
        for name in PROGRAMS:
            _link(name)
    except (ToolError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
