"""Images, without a Docker engine: the content of their files and the behaviour of their scripts.

`make images` builds and runs one; it takes minutes and needs root, so it is not a test.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.docker import health
from deploy.docker.serving_requirements import EXTRAS, WITHOUT
from models.zoo import default_detector
from tests.deploy.images import DOCKER, DOCKERFILES, ROOT, absent, copied, stages

every_dockerfile = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.suffix[1:])


# Dockerfiles


@every_dockerfile
def test_hadolint_finds_nothing(path):
    where = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    hadolint = shutil.which("hadolint", path=where) or absent("hadolint")
    done = subprocess.run([hadolint, path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@every_dockerfile
def test_base_images_are_pinned_and_equal_for_build_and_run(path):
    builder, *between, final = stages(path)
    assert builder.base == final.base
    assert {stage.base for stage in between} <= {builder.name}
    assert re.fullmatch(r"python:3\.\d+-slim-[a-z]+", final.base)


@every_dockerfile
def test_the_image_has_the_environment_but_not_the_source_tree(path):
    builder, *clips, final = stages(path)
    assert builder.name == "builder"
    assert final.all("COPY") == [
        "--from=builder /opt/unmask /opt/unmask",
        *["--from=clips /clips /opt/unmask/demo" for _ in clips],
        "--chmod=755 deploy/docker/health.py /usr/local/bin/unmask-health",
    ]
    assert not builder.all("ADD") + final.all("ADD")


@every_dockerfile
def test_the_image_runs_a_worker_without_privileges(path):
    final = stages(path)[-1]
    order = [name for name, _ in final.steps]
    (user,) = final.all("USER")
    uid, gid = map(int, user.split(":"))  # a number: Kubernetes cannot check whether a name is root
    assert min(uid, gid) >= 1000
    assert f"--uid {uid} " in final.all("RUN")[0]
    assert order.index("USER") > max(at for at, name in enumerate(order) if name in ("RUN", "COPY"))
    assert [json.loads(rest) for rest in (*final.all("ENTRYPOINT"), *final.all("CMD"))] == [["unmask"], ["worker"]]
    (check,) = final.all("HEALTHCHECK")
    assert json.loads(check.split("CMD ")[1]) == ["unmask-health", "/healthz"]
    assert float(re.search(r"--timeout=(\d+)s", check)[1]) > health.TIMEOUT_S


@every_dockerfile
def test_no_variable_of_an_image_looks_like_a_secret(path):
    for stage in stages(path):
        named = " ".join(stage.all("ARG") + stage.all("ENV"))
        assert not re.search(r"(?i)\w*(token|passw|secret|credential|api_?key)\w*=", named)


def test_both_images_install_in_the_same_way():
    cpu, cuda = (stages(path)[0] for path in DOCKERFILES)
    assert [(name, rest.replace("requirements.lock", "cuda.lock")) for name, rest in cpu.steps] == list(cuda.steps)


# The build context


@functools.cache
def context_rules() -> list[tuple[bool, re.Pattern[str]]]:
    """(whether it includes, pattern); the last match decides."""
    rules = []
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = re.escape(line.removeprefix("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        pattern = re.sub(r"\\\[(.*?)\\\]", r"[\1]", pattern)
        # A pattern that matches a folder matches everything in it.
        rules.append((line.startswith("!"), re.compile(f"{pattern}(/.*)?")))
    return rules


def in_context(path: str) -> bool:
    decisions = [includes for includes, pattern in context_rules() if pattern.fullmatch(path)]
    return decisions[-1] if decisions else True


@every_dockerfile
def test_copied_files_exist_and_are_in_the_context(path):
    sources = {source for stage in stages(path) for rest in stage.all("COPY") if "--from" not in rest
               for source in copied(rest)}  # fmt: skip
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(wheel["packages"]) <= sources
    for source in sources:
        assert (ROOT / source).exists()
        assert in_context(source)


def test_an_image_holds_the_default_weights_and_no_others() -> None:
    paths = [path.relative_to(ROOT) for path in (ROOT / "models" / "weights").iterdir()]
    in_image = {path.name for path in paths if in_context(str(path))}
    assert {name for name in in_image if name.endswith(".safetensors")} == {f"{default_detector()}.safetensors"}
    assert {f"{default_detector()}.graph", "mtcnn.graph", "covers.npz"} <= in_image


@pytest.mark.parametrize(
    "path",
    [".env", ".git/config", ".venv/bin/python", "demo/original.mp4", "tests/conftest.py", "videos/private.mp4",
     "requirements.lock", "models/__pycache__/base.cpython-311.pyc", "pipeline/video/old.pyc"],
)  # fmt: skip
def test_other_files_are_not_in_the_context(path):
    assert not in_context(path)


# Locks


def locked(path: Path) -> dict[tuple[str, str], frozenset[str]]:
    """Hashes by (name, version)."""
    found: dict[tuple[str, str], set[str]] = {}
    for line in path.read_text().splitlines():
        if pin := re.match(r"([a-z0-9.-]+)==([^ ]+)", line):
            current = found.setdefault((pin[1], pin[2]), set())
        elif digest := re.match(r" +--hash=(sha256:[0-9a-f]{64})", line):
            current.add(digest[1])
    return {pin: frozenset(hashes) for pin, hashes in found.items()}


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("lock", ["requirements.lock", "cuda.lock", "build.lock", "demo.lock"])
def test_the_images_install_the_tested_versions(lock):
    tested, installed = locked(ROOT / "requirements.lock"), locked(DOCKER / lock)
    assert installed
    assert all(installed.values())
    assert installed.items() <= tested.items()  # else: make lock


def test_the_images_lock_has_no_test_or_training_dependencies(project):
    installed = {name for name, _ in locked(DOCKER / "cuda.lock")}
    extras = project["project"]["optional-dependencies"]
    needed = names(project["project"]["dependencies"]).union(*(names(extras[each]) for each in EXTRAS))
    assert needed <= installed  # else: make lock
    # These two come with run-time dependencies.
    only_here = (names(extras["dev"]) | names(extras["train"])) - needed - {"packaging", "pyyaml"}
    assert not only_here & installed
    assert names(project["build-system"]["requires"]) <= {name for name, _ in locked(DOCKER / "build.lock")}


def test_the_cpu_image_has_everything_but_torch_and_what_depends_on_it(project):
    installed, with_torch = ({name for name, _ in locked(DOCKER / lock)} for lock in ("requirements.lock", "cuda.lock"))
    assert installed < with_torch
    extras = project["project"]["optional-dependencies"]
    needed = names(project["project"]["dependencies"]).union(*(names(extras[each]) for each in EXTRAS))
    assert needed - installed == names(sorted(WITHOUT))
    assert not any(re.match("torch|nvidia-|cuda-|triton", name) for name in installed)


# Calls of pip by install.sh: a stub `python` records its arguments and requirements


@pytest.fixture
def pip_log(tmp_path: Path) -> Path:
    log = tmp_path / "pip.log"
    stub = tmp_path / "bin" / "python"
    stub.parent.mkdir()
    stub.write_text(f"""#!/bin/sh
[ "$2" = pip ] || exit 0
echo "pip $*" >>{log}
while [ $# -gt 0 ]; do
    [ "$1" != -r ] || cat "$2" >>{log}
    shift
done
""")
    stub.chmod(0o755)
    return log


def install(pip_log: Path, lock: Path) -> list[tuple[list[str], set[str]]]:
    """(arguments, names with versions) of each call of pip."""
    environment = {"PATH": f"{pip_log.parent}/bin:/usr/bin:/bin"}
    subprocess.run([DOCKER / "install.sh", "dependencies", lock, pip_log.parent / "venv"], env=environment, check=True)
    calls = []
    for call in pip_log.read_text().split("pip -m ")[1:]:
        arguments, _, requirements = call.partition("\n")
        calls.append((arguments.split(), set(re.findall(r"^[a-z0-9.-]+==[^ \n]+", requirements, re.M))))
    return calls


@pytest.mark.parametrize("lock", ["requirements.lock", "cuda.lock"])
def test_dependencies_come_from_the_lock_as_hashed_wheels(pip_log, lock):
    ((arguments, requirements),) = install(pip_log, DOCKER / lock)
    assert {"--require-hashes", "--no-deps", "--only-binary"} <= set(arguments)
    assert requirements == {"==".join(pin) for pin in locked(DOCKER / lock)}


# The health check


@pytest.fixture
def port() -> Iterator[int]:
    """Port of a server that is healthy but not ready."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/healthz" else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        # A short poll interval, so that the tests do not wait for the shutdown.
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("arguments", "code"), [([], 0), (["/healthz"], 0), (["/readyz"], 1)])
def test_health_check_reports_the_workers_answer(port, arguments, code, monkeypatch, capsys):
    monkeypatch.setenv("UNMASK_HTTP_PORT", str(port))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setattr(sys, "argv", ["unmask-health", *arguments])
    assert health.main() == code
    assert ("503" in capsys.readouterr().out) == bool(code)


def test_a_missing_worker_is_not_healthy(monkeypatch, capsys):
    monkeypatch.setenv("UNMASK_HTTP_PORT", "9")
    monkeypatch.setattr(sys, "argv", ["unmask-health"])
    assert health.main() == 1
    assert "refused" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("lock", ["requirements", "cuda", "demo", "build"])
def test_images_install_wheels_alone(lock, tmp_path):
    """The builder stages take no source distribution; whether a package has a wheel, only the registry knows."""
    uv = Path(sys.executable).with_name("uv")
    image = ("--python-platform", "x86_64-unknown-linux-gnu", "--python-version", "3.11", "--target", str(tmp_path))
    wheels = ("--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", str(ROOT / f"deploy/docker/{lock}.lock"))
    done = subprocess.run(
        [uv, "pip", "install", "--dry-run", *image, *wheels], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
