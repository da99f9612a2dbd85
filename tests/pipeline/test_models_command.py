"""`unmask models list|show|pull`, through the command line."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from models import zoo
from models.architectures import get_model, list_architectures
from models.bases import Base, register_base, unregister_base
from models.checkpoint import CheckpointInfo, Thresholds, save_checkpoint
from models.spec import InputSpec
from pipeline.commands.models import app
from pipeline.detectors import load
from tests.weights import small_weights

YUNET = zoo.find_entry("yunet")
CONTENTS = b"placeholder of a network" * 100
# The pinned entry with other contents, so that the tests need no network.
ENTRY = replace(YUNET, sha256=hashlib.sha256(CONTENTS).hexdigest(), size_bytes=len(CONTENTS), uri="file:///nowhere/x")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNMASK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(zoo, "list_entries", lambda: (ENTRY,))
    return tmp_path / "cache/weights"


@pytest.fixture
def checkpoint(tmp_path: Path) -> tuple[Path, str]:
    info = CheckpointInfo(
        architecture="xception",
        config={"pooling": "gem"},
        input_spec=InputSpec(size=299),
        name="xception [gem]",
        thresholds=Thresholds(0.01, (0.7,) * 8, (0.25,) * 8),
        metrics={"auc": 0.875, "eer": float("nan")},
    )
    path = tmp_path / "best.pth"
    return path, save_checkpoint(path, weights={"a": torch.zeros(3, 4), "b": torch.zeros(2)}, info=info)


def call(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def test_list_shows_all_with_correct_values() -> None:
    code, output, _ = call("list", "--json", "-")
    assert code == 0
    listed = json.loads(output)
    assert [row["architecture"] for row in listed["architectures"]] == list_architectures()
    xception = next(row for row in listed["architectures"] if row["architecture"] == "xception")
    model = get_model("xception", pretrained=False)
    assert xception["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert (xception["backbone"], xception["input_size"]) == (model.config.backbone, model.input_spec.size)
    (weights,) = listed["weights"]
    assert (weights["name"], weights["path"], weights["problem"]) == ("yunet", None, None)


def test_list_for_people(cache: Path) -> None:
    code, output, _ = call("list")
    assert code == 0
    for text in (*list_architectures(), "legacy_xception", "yunet", "Apache-2.0", "unmask models pull yunet"):
        assert text in output


def test_list_shows_paths_and_errors_of_weights(cache: Path) -> None:
    cache.mkdir(parents=True)
    file = cache / ENTRY.filename
    file.write_bytes(CONTENTS)
    assert json.loads(call("list", "--json", "-")[1])["weights"][0]["path"] == str(file)
    file.write_bytes(b"damaged")
    row = json.loads(call("list", "--json", "-")[1])["weights"][0]
    assert row["path"] is None
    assert "pull yunet" in row["problem"]


def test_show_an_architecture() -> None:
    code, output, _ = call("show", "xception")
    assert code == 0
    assert "pooling = avg  (avg | max | gem | attention)" in output
    described = json.loads(call("show", "xception", "--json", "-")[1])
    config = get_model("xception", pretrained=False).config
    assert {name: option["default"] for name, option in described["options"].items()} == config.to_dict()


@pytest.mark.parametrize("name", list_architectures())
def test_every_architecture_can_be_shown(name: str) -> None:
    assert json.loads(call("show", name, "--json", "-")[1])["architecture"] == name


def test_show_named_weights() -> None:
    code, output, _ = call("show", "yunet")
    assert code == 0
    for text in (ENTRY.sha256, ENTRY.uri, "Apache-2.0"):
        assert text in output


def test_show_a_checkpoint(checkpoint: tuple[Path, str]) -> None:
    path, sha256 = checkpoint
    code, output, _ = call("show", str(path))
    assert code == 0
    for text in (sha256, "xception [gem]", "pooling: gem", "auc: 0.875", "eer: -", "tensors: 2", "values: 14"):
        assert text in output
    described = json.loads(call("show", str(path), "--json", "-")[1])
    assert described["sha256"] == sha256
    assert described["thresholds"]["fpr"] == 0.01
    assert described["input_spec_hash"] == InputSpec(size=299).hash
    assert described["metrics"] == {"auc": 0.875, "eer": None}


def test_show_a_named_detector_with_its_checkpoint(
    checkpoint: tuple[Path, str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, sha256 = checkpoint
    entry = replace(
        ENTRY, name="house", kind="detector", filename=path.name, sha256=sha256, size_bytes=path.stat().st_size
    )
    monkeypatch.setattr(zoo, "list_entries", lambda: (entry,))
    assert "checkpoint" not in json.loads(call("show", "house", "--json", "-")[1])
    assert call("pull", "house", "--from", str(path))[0] == 0
    assert json.loads(call("show", "house", "--json", "-")[1])["checkpoint"]["name"] == "xception [gem]"


def test_pull_from_a_file(tmp_path: Path, cache: Path) -> None:
    placed = tmp_path / "placed.onnx"
    placed.write_bytes(CONTENTS)
    code, output, _ = call("pull", "yunet", "--from", str(placed))
    assert code == 0
    assert str(cache / ENTRY.filename) in output
    assert (cache / ENTRY.filename).read_bytes() == CONTENTS
    assert json.loads(call("pull", "yunet", "--json", "-")[1])["path"] == str(cache / ENTRY.filename)


def test_a_failed_pull_says_what_to_do(cache: Path) -> None:
    code, _, error = call("pull", "yunet")
    assert code == 1
    for text in ("cannot be fetched", str(cache / ENTRY.filename), ENTRY.sha256):
        assert text in error


def test_unknown_names_list_what_exists(tmp_path: Path) -> None:
    code, _, error = call("show", "xceptoin")
    assert code == 2
    assert "cnn_transformer, cross_attention, swin_transformer, two_stream, xception" in error
    assert "yunet" in error
    code, _, error = call("pull", "yumet")
    assert code == 2
    assert "available: yunet" in error


def test_show_refuses_a_file_that_is_not_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no weights at all")
    code, _, error = call("show", str(tmp_path / "notes.txt"))
    assert code == 2
    assert "a text file, not an Unmask checkpoint" in error


@pytest.mark.parametrize("module", ["pipeline.commands.models", "pipeline.commands.doctor"])
def test_commands_are_light_to_import(module: str) -> None:
    script = (
        f"import sys, {module}; heavy = {{'torch', 'numpy', 'rich.table', 'pydantic', 'av'}} & set(sys.modules); "
        "print(*heavy)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


@pytest.fixture
def tiny_base() -> Iterator[Base]:
    state = {"w": torch.arange(64.0).reshape(8, 8)}
    yield register_base(Base("tiny", "test_vit", "5" * 64, lambda: state, "pip install tiny"))
    unregister_base("tiny")


@pytest.fixture
def large(tiny_base: Base, tmp_path: Path) -> Path:
    info = CheckpointInfo("xception", {"backbone": "test_vit.r160_in1k"}, InputSpec(size=64), name="large")
    weights = {"backbone.net.w": tiny_base.read()["w"].half(), "head": torch.ones(2)}
    save_checkpoint(tmp_path / "large.safetensors", weights=weights, info=info)
    return tmp_path / "large.safetensors"


def test_a_difference_is_made_and_built_again(
    large: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packaged = tmp_path / "packaged"
    packaged.mkdir()
    code, output, _ = call("difference", str(large), "--out", str(packaged / "large.difference"), "--json", "-")
    assert code == 0
    made = json.loads(output)
    assert made["base"] == "tiny"
    assert made["whole"]["sha256"] == hashlib.sha256(large.read_bytes()).hexdigest()
    entry = replace(
        ENTRY,
        name="large",
        kind="detector",
        uri="",
        filename="large.safetensors",
        difference="large.difference",
        install="pip install tiny",
        **made["whole"],
    )
    monkeypatch.setattr(zoo, "list_entries", lambda: (entry,))
    monkeypatch.setattr(zoo, "packaged_dir", lambda: packaged)
    # The table may break lines anywhere.
    listed = re.sub(r"[│\s]+", "", call("list")[1])
    assert "no:`unmaskmodelsbuildlarge`(after`pipinstalltiny`)" in listed
    code, output, _ = call("build", "large", "--json", "-")
    assert code == 0
    assert json.loads(output)["path"] == str(cache / "large.safetensors")
    assert (cache / "large.safetensors").read_bytes() == large.read_bytes()
    assert json.loads(call("show", "large", "--json", "-")[1])["delivery"] == "built"


def test_a_failed_build_says_why(large: Path) -> None:
    code, _, error = call("build", "yunet")
    assert code == 1
    assert "unmask models pull yunet" in error
    assert call("build", "nowhere")[0] == 2


def test_a_difference_needs_a_base(large: Path, checkpoint: tuple[Path, str], tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    code, _, error = call("difference", str(checkpoint[0]), "--out", out)
    assert code == 2
    assert "no base holds the backbone" in error
    assert call("difference", str(large), "--out", out, "--base", "nowhere")[0] == 2
    assert not Path(out).exists()


def test_a_graph_is_made_where_scans_find_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_CACHE", str(tmp_path / "cache"))
    weights = tmp_path / "small.safetensors"
    sha256 = small_weights(weights)
    result = CliRunner().invoke(app, ["graph", str(weights), "--json", "-"])
    assert result.exit_code == 0, result.output
    described = json.loads(result.stdout)
    assert described["weights_sha256"] == sha256
    assert hashlib.sha256(Path(described["path"]).read_bytes()).hexdigest() == described["sha256"]
    assert load(architecture=None, weights=weights, untrained=False).graph_files[0] == Path(described["path"])
    beside = weights.with_suffix(".graph")
    result = CliRunner().invoke(app, ["graph", str(weights), "--out", str(beside)])
    assert result.exit_code == 0, result.output
    assert sha256 in result.stdout
    assert load(architecture=None, weights=weights, untrained=False).graph_files[0] == beside


@pytest.mark.parametrize(
    "arguments",
    [("graph", "W", "--out", "W"), ("export", "W", "--to", "onnx", "--out", "W"), ("show", "W", "--json", "W"),
     ("import", "W", "--layout", "deepfakebench-xception", "--out", "W"), ("difference", "W", "--out", "W"),
     ("graph", "W", "--out", "O", "--json", "O")],
    ids=" ".join,
)  # fmt: skip
def test_outputs_replace_neither_inputs_nor_each_other(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    weights, out = tmp_path / "small.safetensors", tmp_path / "out"
    sha256 = small_weights(weights)
    named = [{"W": str(weights), "O": str(out)}.get(argument, argument) for argument in arguments]
    result = CliRunner().invoke(app, named)
    assert result.exit_code == 2, result.output
    assert "would replace an input" in result.output or "are the same file" in result.output
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == sha256
    assert not out.exists()


def test_the_face_detectors_graph_needs_a_name(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["graph", "mtcnn"])
    assert result.exit_code == 2
    assert "name a file with --out" in result.output


def test_a_graph_that_cannot_be_made_or_written_is_an_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["graph", "nowhere"])
    assert (result.exit_code, "nowhere" in result.stderr) == (2, True)
    result = CliRunner().invoke(app, ["graph", "mtcnn", "--out", "/dev/null/mtcnn.graph"])
    assert (result.exit_code, "--out: " in result.stderr) == (2, True)
