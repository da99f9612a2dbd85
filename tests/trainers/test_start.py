"""The first weights of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.architectures import get_model
from models.spec import LandmarkTemplate
from tests.weights import SMALL_BACKBONE
from trainers.config import TrainConfig, with_settings
from trainers.recipes import probe
from trainers.start import RunError, first_model

OTHERS = ("swin_transformer", "two_stream", "cnn_transformer", "cross_attention")


@pytest.fixture(scope="module")
def xception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = get_model("xception", pretrained=False, backbone=SMALL_BACKBONE, input_size=64)
    model.input_spec = replace(model.input_spec, geometry=LandmarkTemplate())
    path = tmp_path_factory.mktemp("start") / "xception.safetensors"
    model.save_checkpoint(path, epoch=1, name="xception")
    return path


def config(architecture: str, start: Path, *settings: str) -> TrainConfig:
    size = ("model={'input_size': 64}", f"architecture={architecture}", f"start={start}")
    return with_settings(probe(), [*size, *settings])


@pytest.mark.parametrize("architecture", OTHERS)
def test_a_start_of_another_architecture_gives_its_backbone_and_crops(architecture: str, xception: Path) -> None:
    model, origin = first_model(config(architecture, xception))
    source, _ = first_model(config("xception", xception))
    ours, theirs = model.backbone.state_dict(), source.backbone.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert model.architecture == architecture
    assert model.config.backbone == SMALL_BACKBONE
    assert model.input_spec == source.input_spec
    assert origin.startswith(f"random weights over the backbone of {xception} (sha256 ")


def test_its_crops_may_have_another_size(xception: Path) -> None:
    model, _ = first_model(config("two_stream", xception, "model={'input_size': 96}"))
    assert model.input_spec.size == 96
    assert model.input_spec.geometry == LandmarkTemplate()


def test_another_backbone_is_refused(xception: Path) -> None:
    other = "model={'backbone': 'tf_efficientnet_lite0', 'input_size': 64}"
    with pytest.raises(RunError, match="over the same backbone"):
        first_model(config("two_stream", xception, other))
