"""What a release has: SBOMs of wheel and images, and the workflow that builds, signs and publishes."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.images import DOCKER, ROOT, absent

WORKFLOW = ROOT / ".github" / "workflows" / "release.yml"
# Jobs that run the project's code, and those that can sign.
RUNS_CODE, SIGNS = {"checks", "files"}, {"images", "release"}


@pytest.fixture(scope="module")
def sbom_tool() -> None:
    try:
        import cyclonedx  # noqa: F401
    except ModuleNotFoundError:
        absent("cyclonedx-python-lib")


def run(*arguments: str | Path, epoch: str = "1795500000") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploy.release.sbom", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "SOURCE_DATE_EPOCH": epoch},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def errors_of(text: str) -> object:
    """What CycloneDX's schema says against a document."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)


def locked(path: Path) -> dict[str, tuple[str, set[str]]]:
    """Version and hashes by name, of packages for Linux and Python 3.11: read by other code than the tool's."""
    found: dict[str, tuple[str, set[str]]] = {}
    current: set[str] = set()
    for line in path.read_text().splitlines():
        if pin := re.match(r"([a-z0-9.-]+)==([^ ]+)(?: ; (.*?))? \\", line):
            current = set()
            if not re.search(r"win32|< '3\.11\.|>= '3\.1[2-9]'|darwin|== 'Windows'", pin[3] or ""):
                found[pin[1]] = pin[2], current
        elif digest := re.match(r" +--hash=sha256:([0-9a-f]{64})", line):
            current.add(digest[1])
    return found


@pytest.mark.usefixtures("sbom_tool")
@pytest.mark.parametrize("lock", ["requirements.lock", "cuda.lock"])
def test_each_package_of_an_image_has_version_hashes_and_licence(lock: str, tmp_path: Path) -> None:
    out = tmp_path / "sbom.cdx.json"
    done = run("image", DOCKER / lock, "--name", "unmask:test", "--out", out)
    assert done.returncode == 0, done.stderr
    text = out.read_text()
    assert errors_of(text) is None
    described = json.loads(text)
    root = described["metadata"]["component"]
    assert (root["name"], root["version"], root["type"]) == ("unmask", "test", "container")
    components = {each["name"]: each for each in described["components"]}
    assert len(components) == len(described["components"])
    for each in components.values():
        assert each["purl"] == f"pkg:pypi/{each['name']}@{each['version']}"
        (licence,) = each["licenses"]
        assert licence.get("expression") or licence["license"].get("id") or licence["license"]["name"]
    assert {
        name: (each["version"], {digest["content"] for digest in each["hashes"]}) for name, each in components.items()
    } == locked(DOCKER / lock)
    bundled = {each["name"]: each["licenses"][0]["license"]["id"] for each in components["av"]["components"]}
    assert bundled["libx264"] == "GPL-2.0-or-later"
    (depends,) = (each for each in described["dependencies"] if each["ref"] == "unmask:test")
    assert len(depends["dependsOn"]) == len(components)
    again = tmp_path / "again.cdx.json"
    assert run("image", DOCKER / lock, "--name", "unmask:test", "--out", again).returncode == 0
    assert again.read_text() == text


@pytest.mark.usefixtures("sbom_tool")
def test_a_wheel_is_described_by_its_hash_its_weights_and_what_it_requires(tmp_path: Path) -> None:
    wheel, out = tmp_path / "unmask-9.9-py3-none-any.whl", tmp_path / "sbom.cdx.json"
    fields = (
        "Metadata-Version: 2.4\nName: unmask\nVersion: 9.9\nLicense-Expression: Apache-2.0 AND MIT\n"
        "Requires-Dist: av>=18\nRequires-Dist: ray>=2; extra == 'ray'\n"
    )
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("unmask-9.9.dist-info/METADATA", fields)
        file.writestr("models/weights/small.safetensors", b"weights")
    done = run("wheel", wheel, "--out", out)
    assert done.returncode == 0, done.stderr
    assert errors_of(out.read_text()) is None
    described = json.loads(out.read_text())
    root = described["metadata"]["component"]
    assert root["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(wheel.read_bytes()).hexdigest()}]
    assert root["licenses"] == [{"expression": "Apache-2.0 AND MIT"}]
    weights, required = sorted(described["components"], key=lambda each: each["type"], reverse=True)
    assert (weights["name"], weights["type"]) == ("small", "machine-learning-model")
    assert weights["hashes"][0]["content"] == hashlib.sha256(b"weights").hexdigest()
    assert (required["name"], required["properties"][0]["value"]) == ("av", "av>=18")


@pytest.mark.usefixtures("sbom_tool")
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("numpy>=1.0 --hash=sha256:" + "0" * 64, "expected one version"),
        ("numpy==2.0.0", "hashes by sha256"),
        ("numpy==0.0.1 --hash=sha256:" + "0" * 64, "the lock has 0.0.1"),
        ("not-installed-anywhere==1 --hash=sha256:" + "0" * 64, "is not installed"),
        ("# nothing", "no packages"),
    ],
    ids=["not pinned", "no hash", "another version", "not installed", "empty"],
)
def test_what_cannot_be_described_is_an_error(text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "bad.lock").write_text(text + "\n")
    done = run("image", tmp_path / "bad.lock", "--name", "unmask:test", "--out", tmp_path / "sbom.json")
    assert done.returncode == 2
    assert why in done.stderr
    assert not (tmp_path / "sbom.json").exists()


@pytest.mark.usefixtures("sbom_tool")
def test_a_file_that_is_not_a_wheel_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bad.whl").write_bytes(b"no wheel")
    done = run("wheel", tmp_path / "bad.whl", "--out", tmp_path / "sbom.json")
    assert (done.returncode, "not a wheel" in done.stderr) == (2, True)


# The workflow


@functools.cache
def workflow() -> dict[str, Any]:
    # YAML 1.1 reads the key `on` as true.
    found = yaml.safe_load(WORKFLOW.read_text())
    return {("on" if key is True else key): value for key, value in found.items()}


def steps(job: str) -> list[dict[str, Any]]:
    return workflow()["jobs"][job]["steps"]


def test_the_workflow_follows_githubs_schema() -> None:
    try:
        package = metadata.distribution("check-jsonschema")
    except metadata.PackageNotFoundError:
        absent("check-jsonschema")
    from jsonschema import Draft7Validator

    schema = Path(str(package.locate_file("check_jsonschema/builtin_schemas/vendor/github-workflows.json"))).read_text()
    validator = Draft7Validator(json.loads(schema))
    assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(workflow())] == []


def test_actions_are_pinned_by_commit() -> None:
    used = re.findall(r"uses: (.*)", WORKFLOW.read_text())
    assert used
    for each in used:
        assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each)
    # One commit for each.
    assert len({each.partition("@")[0] for each in used}) == len(set(used))
    assert re.search(r"@v\d+\.\d+\.\d+$", workflow()["env"]["COSIGN"])


def test_jobs_have_no_more_permissions_than_they_need() -> None:
    assert workflow()["permissions"] == {}
    jobs = workflow()["jobs"]
    assert set(jobs) == RUNS_CODE | SIGNS
    for name, job in jobs.items():
        assert job["timeout-minutes"] <= 120
        if name in RUNS_CODE:
            assert job["permissions"] == {"contents": "read"}
        else:
            assert "id-token" in job["permissions"]
    assert jobs["images"]["permissions"]["contents"] == "read"
    assert "packages" not in jobs["release"]["permissions"]
    # What signs the files runs nothing of the repository.
    assert not any("checkout" in step.get("uses", "") for step in steps("release"))
    assert not any(re.search(r"\bmake\b|python|\./", step["run"]) for step in steps("images") if "run" in step)


def test_no_text_of_the_event_becomes_part_of_a_script() -> None:
    for name in workflow()["jobs"]:
        for step in steps(name):
            assert "${{" not in step.get("run", "")
            if "actions/checkout" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False


def test_only_tags_of_versions_release_and_each_step_waits_for_the_one_before() -> None:
    assert workflow()["on"] == {"push": {"tags": ["v[0-9]+.[0-9]+.[0-9]+*"]}}
    jobs = workflow()["jobs"]
    assert jobs["files"]["needs"] == "checks"
    assert jobs["images"]["needs"] == "files"
    assert jobs["release"]["needs"] == ["files", "images"]
    assert "!failure()" in jobs["release"]["if"]


def test_what_is_signed_is_what_make_sbom_writes_and_users_verify() -> None:
    makefile, docs = (ROOT / "Makefile").read_text(), (ROOT / "docs" / "releases.md").read_text()
    written = set(re.findall(r"--out dist/(sbom-[a-z]+\.cdx\.json)", makefile))
    assert written == {"sbom-wheel.cdx.json", "sbom-cpu.cdx.json", "sbom-cuda.cdx.json"}
    for name in written:
        assert name in docs
    for kind in workflow()["jobs"]["images"]["strategy"]["matrix"]["kind"]:
        assert f"sbom-{kind}.cdx.json" in written
        assert (DOCKER / f"Dockerfile.{kind}").is_file()
    (sign,) = (step["run"] for step in steps("release") if "sign-blob" in step.get("run", ""))
    assert "for file in unmask-* sbom-* SHA256SUMS" in sign
    # The identity that users ask for is this file, at a tag of a version.
    assert rf"/\.github/workflows/{re.escape(WORKFLOW.name)}@refs/tags/v".replace("\\\\", "\\") in docs
