"""Scan and worker in an environment of deploy/docker/requirements.lock: torch is not installed in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.zoo import default_detector
from pipeline.contracts import Outcome, Verdict
from tests import media
from tests.conftest import required_service
from tests.e2e.service import Platform, until

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
WITHOUT = ("torch", "torchvision", "timm", "facenet_pytorch", "safetensors", "huggingface_hub")


def run(*command: str | Path, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **changes},
        cwd=ROOT.parent,  # the packages of this checkout must not be found
        capture_output=True,
        text=True,
        timeout=220,
        check=False,
    )


@pytest.fixture(scope="module")
def unmask(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command `unmask` in an environment of its own, installed from its wheel."""
    folder = tmp_path_factory.mktemp("torch_free")
    environment = folder / "environment"
    there = {"VIRTUAL_ENV": str(environment)}
    lock = ROOT / "deploy/docker/requirements.lock"
    steps: list[tuple[tuple[str | Path, ...], dict[str, str]]] = [
        ((BIN / "uv", "venv", "--python", sys.executable, environment), {}),
        ((BIN / "uv", "pip", "install", "--require-hashes", "-r", lock), there),
        ((BIN / "python", "-m", "hatchling", "build", "-t", "wheel", "-d", folder / "dist"), {}),
        (
            (BIN / "uv", "pip", "install", "--no-deps", "--offline", folder / "dist/unmask-0.1.0-py3-none-any.whl"),
            there,
        ),
    ]
    for command, changes in steps:
        done = subprocess.run(
            [str(part) for part in command],
            env={**os.environ, **changes},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=220,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    return environment / "bin" / "unmask"


def test_torch_is_not_there(unmask: Path) -> None:
    code = (
        f"import importlib.util as u; print([name for name in {WITHOUT} if u.find_spec(name)]); "
        "import models; print(models.__file__)"
    )
    found, where = run(unmask.with_name("python"), "-c", code).stdout.splitlines()
    assert found == "[]"
    assert Path(where).is_relative_to(unmask.parents[1])


def test_a_clip_gets_the_same_verdict(unmask: Path, one_face: Path) -> None:
    """As from the environment that has torch."""
    records = []
    for command in (unmask, BIN / "unmask"):
        done = run(command, "scan", one_face, "--jsonl", "-")
        assert done.returncode == 0, done.stderr
        records.append(Verdict.model_validate_json(done.stdout.splitlines()[0]))
    assert records[0].outcome is Outcome.SCORED
    assert records[0].probability == pytest.approx(records[1].probability, abs=1e-6)
    assert records[0].provenance == records[1].provenance


def test_other_weights_need_their_graph(unmask: Path, one_face: Path, tmp_path: Path) -> None:
    name = "unmask-two-stream"
    scan = ("scan", one_face, "--weights", name, "--jsonl", "-")
    there = {"UNMASK_CACHE": str(tmp_path / "cache"), "COLUMNS": "400"}
    done = run(unmask, *scan, **there)
    assert done.returncode == 2
    assert "models graph" in done.stderr
    findings = {
        each["name"]: each for each in json.loads(run(unmask, "doctor", "--json", "-", **there).stdout)["findings"]
    }
    assert findings[name]["status"] == "optional"
    assert "models graph" in findings[name]["advice"]
    made = run(BIN / "unmask", "models", "graph", name, **there)
    assert made.returncode == 0, made.stderr
    records = []
    for command in (unmask, BIN / "unmask"):
        done = run(command, *scan, **there)
        assert done.returncode == 0, done.stderr
        records.append(Verdict.model_validate_json(done.stdout.splitlines()[0]))
    assert records[0].outcome is Outcome.SCORED
    assert records[0].probability == pytest.approx(records[1].probability, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("scan", "--untrained", "CLIP"), "random weights need torch"),
        (("scan", "--backend", "torch", "CLIP"), "needs torch"),
        (("scan", "--device", "cuda", "CLIP"), "torch is not installed"),
        (("train", "base"), "torch is not installed"),
        (("models", "graph", "unmask-small"), "torch is not installed"),
    ],
)
def test_what_needs_torch_says_so(unmask: Path, one_face: Path, arguments: tuple[str, ...], message: str) -> None:
    done = run(unmask, *(str(one_face) if each == "CLIP" else each for each in arguments), COLUMNS="400")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_other_commands_work(unmask: Path) -> None:
    shown = run(unmask, "models", "show", default_detector(), "--json", "-")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["checkpoint"]["values"] > 3e6
    assert default_detector() in run(unmask, "models", "list").stdout
    doctor = run(unmask, "doctor", "--json", "-")
    assert doctor.returncode == 0, doctor.stdout
    assert run(unmask, "--help").returncode == 0


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with required_service():
        platform = Platform(tmp_path / "platform", options=("--workers", "2"))
        platform.__enter__()
    try:
        yield platform
    finally:
        platform.__exit__()


def test_a_worker_serves(unmask: Path, platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    media.make_clip(tmp_path / "videos" / "face.mp4", seconds=2)
    worker = platform.start_worker(unmask=unmask)
    until(lambda: worker.ready)
    sent = platform.unmask("submit", str(tmp_path / "videos"), "--watch")
    assert sent.returncode == 0, sent.stderr
    ((record,),) = platform.records().values()
    verdict = Verdict.model_validate_json(record.value)
    assert verdict.outcome is Outcome.SCORED
    assert "openvino" in verdict.provenance.software
    assert worker.leave() == 0
