"""The mean of checkpoints is a detector with the same format."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from models.architectures import get_model, load_detector
from models.base import BaseModel
from models.checkpoint import CheckpointError
from pipeline.cli import build
from trainers.average import average

SMALL = {"backbone": "test_resnet.r160_in1k", "input_size": 64}


def small(seed: int, **changes: object) -> BaseModel:
    torch.manual_seed(seed)
    return get_model("xception", pretrained=False, **(SMALL | changes))


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{seed}.safetensors" for seed in (1, 2, 3)]
    for seed, path in enumerate(paths):
        small(seed).save_checkpoint(path, epoch=1, metrics={"selection": 0.9})
    return paths


def test_every_tensor_is_the_mean_of_its_counterparts(parts: list[Path], tmp_path: Path) -> None:
    sha256 = average(parts, tmp_path / "mean.safetensors")
    found = load_detector(tmp_path / "mean.safetensors")
    assert found.sha256 == sha256
    assert (found.info.metrics, found.info.thresholds) == ({}, None)
    states = [load_detector(path).model.state_dict() for path in parts]
    for name, tensor in found.model.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, torch.stack([state[name] for state in states]).mean(0))
    scores = found.model.eval()(torch.rand(2, 3, 64, 64))
    assert scores.isfinite().all()


def test_the_mean_of_a_checkpoint_with_itself_is_the_same(parts: list[Path], tmp_path: Path) -> None:
    average([parts[0], parts[0]], tmp_path / "mean.safetensors")
    before, after = (load_detector(p).model.state_dict() for p in (parts[0], tmp_path / "mean.safetensors"))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_mismatched_checkpoints_are_refused(parts: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    small(0, input_size=96).save_checkpoint(other, epoch=1)
    with pytest.raises(CheckpointError, match="architecture, config or input spec differ"):
        average([parts[0], other], tmp_path / "mean.safetensors")
    with pytest.raises(CheckpointError, match="at least two"):
        average(parts[:1], tmp_path / "mean.safetensors")
    assert not (tmp_path / "mean.safetensors").exists()


def test_the_command(parts: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "mean.safetensors"
    done = CliRunner().invoke(build(["average"]), ["average", *map(str, parts), "--out", str(out)])
    assert done.exit_code == 0
    assert out.exists()
    failed = CliRunner().invoke(build(["average"]), ["average", str(parts[0]), "--out", str(out)])
    assert failed.exit_code == 2
