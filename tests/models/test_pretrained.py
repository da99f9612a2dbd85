"""Pretrained backbones: placed, cached, fetched or refused, never silently random."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch

from models.architectures import get_model, list_architectures
from models.local_files import WeightsUnavailableError
from tests.models.conftest import SMALL


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Empty caches, and a list of the hosts that were looked up anyway."""
    asked: list[str] = []

    def refuse(host: str, *_: object, **__: object) -> None:
        asked.append(host)
        raise socket.gaierror("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("UNMASK_CACHE", str(tmp_path / "unmask"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("UNMASK_OFFLINE", raising=False)
    return asked


@pytest.mark.parametrize("architecture", list_architectures())
def test_offline_names_the_file_to_place_and_contacts_no_host(
    architecture: str, no_network: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("UNMASK_OFFLINE", "1")
    monkeypatch.setattr("models.pretrained.try_to_load_from_cache", lambda *_: None)
    folder = tmp_path / "unmask" / "weights" / "backbones"
    with pytest.raises(WeightsUnavailableError, match="UNMASK_OFFLINE") as error:
        get_model(architecture)
    assert str(folder) in str(error.value)
    assert "pretrained=False" in str(error.value)
    assert no_network == []


def test_a_network_error_names_the_file_to_place(no_network: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "unmask" / "weights" / "backbones"
    with pytest.raises(WeightsUnavailableError, match="cannot be fetched") as error:
        get_model("xception")
    assert f"{folder / 'legacy_xception'}.tf_in1k.pth" in str(error.value)
    assert "UNMASK_OFFLINE" in str(error.value)
    assert no_network != []


def place(tmp_path: Path, weights: dict[str, torch.Tensor]) -> Path:
    folder = tmp_path / "unmask" / "weights" / "backbones"
    folder.mkdir(parents=True)
    file = folder / "test_resnet.r160_in1k.safetensors"
    safetensors.torch.save_file(weights, file)
    return file


def test_a_placed_file_is_used_without_the_network(no_network: list[str], tmp_path: Path) -> None:
    source = timm.create_model("test_resnet", pretrained=False)
    place(tmp_path, source.state_dict())
    model = get_model("xception", **SMALL["xception"] | {"backbone": "test_resnet"})
    assert torch.equal(model.backbone.net.conv1[0].weight, source.conv1[0].weight)
    assert no_network == []


@pytest.mark.parametrize("kind", ["another model", "one tensor missing", "no safetensors", "a pickle"])
def test_a_placed_file_with_other_contents_is_refused(no_network: list[str], tmp_path: Path, kind: str) -> None:
    weights = timm.create_model("test_resnet", pretrained=False).state_dict()
    if kind == "another model":
        weights = timm.create_model("test_efficientnet", pretrained=False).state_dict()
    elif kind == "one tensor missing":
        del weights["layer3.0.conv2.weight"]
    file = place(tmp_path, weights)
    if kind == "no safetensors":
        file.write_bytes(b"\x00" * 64)
    elif kind == "a pickle":
        file.unlink()
        torch.save(timm.create_model("test_resnet", pretrained=False), file.with_suffix(".pth"))
    with pytest.raises(WeightsUnavailableError, match="not the weights of test_resnet"):
        get_model("xception", **SMALL["xception"] | {"backbone": "test_resnet"})


def test_a_backbone_without_published_weights_is_refused(no_network: list[str]) -> None:
    with pytest.raises(WeightsUnavailableError, match="no pretrained weights for botnet50ts_256"):
        get_model("xception", **SMALL["xception"] | {"backbone": "botnet50ts_256"})
