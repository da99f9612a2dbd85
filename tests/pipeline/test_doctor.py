"""`unmask doctor`: correct on this machine, and clear about what is missing on others."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from pipeline import doctor
from pipeline.commands.doctor import run
from pipeline.doctor import Finding, can_scan, examine

app = typer.Typer()
app.command()(run)


@pytest.fixture(autouse=True)
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_CACHE", str(tmp_path))


def only(monkeypatch: pytest.MonkeyPatch, name: str) -> Callable[[], dict[str, Finding]]:
    """Run one check alone."""
    chosen = tuple(row for row in doctor.EXAMINATIONS if row[0] == name)
    assert chosen
    monkeypatch.setattr(doctor, "EXAMINATIONS", chosen)
    return lambda: {finding.name: finding for finding in examine()}


def test_this_machine_can_scan() -> None:
    result = CliRunner().invoke(app, ["--json", "-"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.output)
    assert report["can_scan"]
    found = {finding["name"]: finding for finding in report["findings"]}
    assert found["torch"]["value"] == torch.__version__.split("+")[0]
    assert "h264" in found["codecs"]["value"]
    assert found["decode child"]["status"] == "ok"
    assert "decoded 2 frames" in found["decode child"]["value"]
    assert found["face detector"]["value"].startswith("mtcnn")
    assert found["yunet"]["status"] == "optional"
    assert "unmask models pull yunet" in found["yunet"]["advice"]
    assert all(finding["advice"] for finding in found.values() if finding["status"] != "ok")


def test_output_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    findings = [Finding("torch", "ok", "2.9"), Finding("[av]", "missing", "not installed", "pip install av")]
    monkeypatch.setattr(doctor, "examine", lambda: findings)
    result = CliRunner().invoke(app)
    assert result.exit_code == 1
    for text in ("torch", "2.9", "MISSING", "[av]", "pip install av", "Not ready to scan"):
        assert text in result.output
    monkeypatch.setattr(doctor, "examine", lambda: findings[:1])
    result = CliRunner().invoke(app)
    assert result.exit_code == 0
    assert "Ready to scan" in result.output


@pytest.mark.parametrize(
    ("examination", "module", "advice"),
    [
        ("codecs", "av", "pip install av"),
        ("face detector", "pipeline.faces.mtcnn", "reinstall"),
        ("decode child", "av", "child processes"),
        ("machine", "psutil", "pip install psutil"),
        ("compute", "pipeline.scoring.backends", "pip install openvino"),
    ],
)
def test_a_part_that_cannot_be_imported_is_missing(
    monkeypatch: pytest.MonkeyPatch, examination: str, module: str, advice: str
) -> None:
    look = only(monkeypatch, examination)
    monkeypatch.setitem(sys.modules, module, None)
    finding = look()[examination]
    assert finding.status == "missing"
    assert module in finding.value
    assert advice in finding.advice
    assert not can_scan([finding])


def test_a_decode_child_that_does_not_start_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    look = only(monkeypatch, "decode child")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("no more processes")

    monkeypatch.setattr("pipeline.video.sandbox.DecodeServer.open", refuse)
    finding = look()["decode child"]
    assert finding.status == "missing"
    assert "no more processes" in finding.value


@pytest.mark.parametrize(("absent", "status"), [("h264", "missing"), ("libdav1d libaom-av1", "optional")])
def test_absent_codecs_are_named(monkeypatch: pytest.MonkeyPatch, absent: str, status: str) -> None:
    from av.codec.codec import Codec, UnknownCodecError

    def codec(name: str, mode: str) -> Codec:
        if name in absent.split():
            raise UnknownCodecError(name)
        return Codec(name, mode)

    look = only(monkeypatch, "codecs")
    monkeypatch.setattr("av.codec.codec.Codec", codec)
    finding = look()["absent codecs"]
    assert finding.status == status
    assert finding.value == ("h264" if status == "missing" else "av1")


@pytest.mark.parametrize(("distribution", "status"), [("timm", "optional"), ("openvino", "missing")])
def test_absent_libraries_are_named(monkeypatch: pytest.MonkeyPatch, distribution: str, status: str) -> None:
    look = only(monkeypatch, "versions")
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == distribution else real(name))
    finding = look()[distribution]
    assert finding.status == status
    assert f"pip install {distribution}" in finding.advice


def test_container_cores_differ_from_host_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    look = only(monkeypatch, "machine")
    monkeypatch.setattr("models.cores.available_cores", lambda: 3)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert look()["cores"].value.startswith("3 of the 64")


@pytest.mark.parametrize(("flag", "precision"), [("avx512_bf16", "bf16: CPU with"), ("avx2", "f32: CPU without")])
def test_precision_follows_the_chip(monkeypatch: pytest.MonkeyPatch, flag: str, precision: str) -> None:
    look = only(monkeypatch, "compute")
    monkeypatch.setattr("models.device_choice.choose_device", lambda: "cpu")
    monkeypatch.setattr("models.devices.cpu_flags", lambda: frozenset({flag}))
    assert look()["precision"].value.startswith(precision)


def test_torch_on_the_cpu_probes_its_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    from models.precision import Capability

    look = only(monkeypatch, "compute")
    monkeypatch.setattr("pipeline.scoring.backends.backend_names", lambda _: ("torch",))
    monkeypatch.setattr("models.device_choice.choose_device", lambda: "cpu")
    monkeypatch.setattr("models.precision.probe", lambda _: Capability("cpu", True, False, "because"))
    assert look()["precision"].value == "bfloat16: because"


@pytest.mark.parametrize("named", [None, "nowhere"])
def test_research_data_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str | None) -> None:
    look = only(monkeypatch, "weights")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UNMASK_DATA", raising=False)
    if named:
        monkeypatch.setenv("UNMASK_DATA", str(tmp_path / named))
    finding = look()["research data"]
    assert finding.status == "optional"
    assert "UNMASK_DATA" in finding.advice


def test_a_cache_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    look = only(monkeypatch, "weights")
    assert look()["cache"].status == "ok"
    monkeypatch.setenv("UNMASK_CACHE", "/proc/nowhere")
    finding = look()["cache"]
    assert (finding.status, "/proc/nowhere" in finding.value) == ("optional", True)
    assert "UNMASK_CACHE" in finding.advice


def test_damaged_weights_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look = only(monkeypatch, "weights")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/yunet_n_dynamic.onnx").write_bytes(b"damaged")
    finding = look()["yunet"]
    assert finding.value == "damaged"
    assert "unmask models pull yunet" in finding.advice


def test_json_goes_to_a_file_next_to_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: [Finding("av", "ok", "18")])
    out = tmp_path / "doctor.json"
    result = CliRunner().invoke(app, ["--json", str(out)])
    assert result.exit_code == 0
    assert "Ready to scan" in result.output
    assert json.loads(out.read_text())["findings"][0]["name"] == "av"
    result = CliRunner().invoke(app, ["--json", "/dev/null/doctor.json"])
    assert result.exit_code == 2
    assert "/dev/null" in result.stderr


@pytest.mark.parametrize("name", ["unmask-small.graph", "unmask-small.safetensors"])
def test_damaged_default_weights_are_missing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan that names no weights could not start."""
    from models import zoo
    from pipeline import detectors

    folder = tmp_path / "weights"
    shutil.copytree(zoo.packaged_dir(), folder)
    (folder / name).write_bytes((folder / name).read_bytes()[:100_000])
    for module in (zoo, detectors):
        monkeypatch.setattr(module, "packaged_dir", lambda: folder)
    monkeypatch.setattr(detectors, "torch_installed", lambda: False)
    finding = only(monkeypatch, "weights")()["unmask-small"]
    assert finding.status == "missing"
    assert "reinstall" in finding.advice
    assert not doctor.can_scan([finding])
