"""DeepfakeBench detectors import with the same logits, or are refused with the keys that differ."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typer.testing import CliRunner

from models.architectures import get_model, load_detector
from models.checkpoint import CheckpointError, save_checkpoint
from models.interop import LAYOUTS, import_detector
from models.spec import LandmarkTemplate
from pipeline.commands.models import app
from tests.models.conftest import BuildSmall, images_for

LAYOUT = "deepfakebench-xception"
State = dict[str, Tensor]


class Separable(nn.Module):
    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_in, 3, padding=1, groups=channels_in, bias=False)
        self.pointwise = nn.Conv2d(channels_in, channels_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.conv1(x))


class Block(nn.Module):
    """Separable convolutions of these widths, each after a ReLU but maybe the first; a stride of 2 by max pooling."""

    def __init__(self, widths: list[int], *, stride: int = 1, starts_with_relu: bool = True) -> None:
        super().__init__()
        if stride != 1 or widths[0] != widths[-1]:
            self.skip = nn.Conv2d(widths[0], widths[-1], 1, stride=stride, bias=False)
            self.skipbn = nn.BatchNorm2d(widths[-1])
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.ReLU(), Separable(before, after), nn.BatchNorm2d(after)]
        pool = [nn.MaxPool2d(3, stride, 1)] if stride != 1 else []
        self.rep = nn.Sequential(*layers[0 if starts_with_relu else 1 :], *pool)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.skipbn(self.skip(x)) if hasattr(self, "skip") else x
        return self.rep(x) + skip


class DeepfakeBenchXception(nn.Module):
    """Key names and forward pass of DeepfakeBench's network, reimplemented."""

    def __init__(self, *, with_dropout: bool = False) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 32, 3, stride=2, bias=False), nn.BatchNorm2d(32)
        self.conv2, self.bn2 = nn.Conv2d(32, 64, 3, bias=False), nn.BatchNorm2d(64)
        self.block1 = Block([64, 128, 128], stride=2, starts_with_relu=False)
        self.block2 = Block([128, 256, 256], stride=2)
        self.block3 = Block([256, 728, 728], stride=2)
        for number in range(4, 12):
            self.add_module(f"block{number}", Block([728] * 4))
        self.block12 = Block([728, 728, 1024], stride=2)
        self.conv3, self.bn3 = Separable(1024, 1536), nn.BatchNorm2d(1536)
        self.conv4, self.bn4 = Separable(1536, 2048), nn.BatchNorm2d(2048)
        linear = nn.Linear(2048, 2)
        self.last_linear = nn.Sequential(nn.Dropout(0.5), linear) if with_dropout else linear
        self.adjust_channel = nn.Sequential(nn.Conv2d(2048, 512, 1), nn.BatchNorm2d(512), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        for number in range(1, 13):
            x = self.get_submodule(f"block{number}")(x)
        x = F.relu(self.bn3(self.conv3(x)))
        x = F.relu(self.bn4(self.conv4(x)))
        logits: Tensor = self.last_linear(x.mean((2, 3)))
        return logits


def randomised(net: nn.Module) -> nn.Module:
    """Weights that keep the signal through all layers, and norms with nontrivial statistics."""
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.3, 0.9),
                (module.bias, -0.3, 0.3),
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 2.0),
            ):
                assert tensor is not None
                nn.init.uniform_(tensor, low, high, generator=generator)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.1, generator=generator)
            nn.init.uniform_(module.bias, -1, 1, generator=generator)
    return net.eval()


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    return randomised(DeepfakeBenchXception())


@pytest.fixture(scope="module")
def state(theirs: nn.Module) -> State:
    """As their trainer saves it: a detector with the network as `backbone`."""
    return {f"backbone.{name}": tensor for name, tensor in theirs.state_dict().items()}


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(3, 3, 16, 16, generator=generator)
    fine = torch.rand(3, 3, 256, 256, generator=generator)
    return 1.6 * F.interpolate(coarse, (256, 256), mode="bilinear") + 0.4 * fine - 1


def refusal(tmp_path: Path, contents: object) -> str:
    torch.save(contents, tmp_path / "theirs.pth")
    with pytest.raises(CheckpointError) as error:
        import_detector(tmp_path / "theirs.pth", LAYOUT)
    return str(error.value)


def test_the_imported_detector_has_their_logits(
    theirs: nn.Module, state: State, images: Tensor, tmp_path: Path
) -> None:
    torch.save(state, tmp_path / "ckpt_best.pth")
    arguments = ["import", str(tmp_path / "ckpt_best.pth"), "--layout", LAYOUT]
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "ours.safetensors")])
    assert done.exit_code == 0, done.output
    assert "inconclusive" in done.output
    ours = load_detector(tmp_path / "ours.safetensors")
    with torch.inference_mode():
        expected, found = theirs(images), ours.model(images)
    assert expected.std(0).min() > 0.01
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    spec = ours.model.input_spec
    assert (spec.size, spec.mean, spec.std) == (256, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert isinstance(spec.geometry, LandmarkTemplate)
    assert ours.info.architecture == "xception"
    assert ours.info.thresholds is None
    sha256 = hashlib.sha256((tmp_path / "ckpt_best.pth").read_bytes()).hexdigest()
    assert ours.info.versions == {LAYOUT: f"sha256 {sha256}"}


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state: {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}, "epoch": 3},
        lambda state: {name: tensor for name, tensor in state.items() if "adjust_channel" not in name},
        lambda state: {name.removeprefix("backbone."): tensor.half() for name, tensor in state.items()},
        lambda state: {name.replace("last_linear", "last_linear.1"): tensor for name, tensor in state.items()},
    ],
    ids=["nested and parallel", "without what is not used", "network alone, in fp16", "trained with dropout"],
)
def test_other_wrappings_of_the_same_weights(wrapped: Callable[[State], object], state: State, tmp_path: Path) -> None:
    torch.save(wrapped(state), tmp_path / "theirs.pth")
    weights = import_detector(tmp_path / "theirs.pth", LAYOUT).model.state_dict()
    for ours, their in {
        "backbone.net.block12.rep.4.pointwise.weight": "backbone.block12.rep.4.pointwise.weight",
        "backbone.net.bn4.running_var": "backbone.bn4.running_var",
        "head.linear.bias": "backbone.last_linear.bias",
    }.items():
        torch.testing.assert_close(weights[ours], state[their], atol=1e-3, rtol=1e-3)


def test_a_dropout_classifier_has_the_key_of_their_network() -> None:
    assert {"last_linear.1.weight", "last_linear.1.bias"} <= DeepfakeBenchXception(
        with_dropout=True
    ).state_dict().keys()


def test_mismatched_keys_are_named(state: State, tmp_path: Path) -> None:
    # Only names and shapes count here: one number for each tensor keeps the files small.
    state = {name: torch.zeros(()).expand(tensor.shape) for name, tensor in state.items()}
    partial = {name: tensor for name, tensor in state.items() if "block7.rep.1" not in name}
    assert "backbone.block7.rep.1.conv1.weight is missing" in refusal(tmp_path, partial)
    foreign = state | {"backbone.id_head.weight": torch.zeros(3)}
    assert "1 keys differ: backbone.id_head.weight is unknown" in refusal(tmp_path, foreign)
    other = state | {"backbone.last_linear.weight": torch.zeros(2, 512)}
    assert "backbone.last_linear.weight has shape [2, 512] instead of [2, 2048]" in refusal(tmp_path, other)
    twice = state | {"bn4.weight": torch.zeros(2048)}
    assert "bn4.weight duplicates backbone.bn4.weight" in refusal(tmp_path, twice)
    nothing_of_it = refusal(tmp_path, {"fc.weight": torch.zeros(2, 2)})
    assert f"{len(state) - 7 + 1} keys differ: fc.weight is unknown; backbone.conv1.weight is missing" in nothing_of_it


@pytest.mark.parametrize(
    ("contents", "message"),
    [([torch.zeros(2)], "holds a list"), ({}, "holds a dict"), ({"epoch": 3}, "epoch: not tensors")],
)
def test_other_contents_than_a_state_dict_are_refused(contents: object, message: str, tmp_path: Path) -> None:
    assert message in refusal(tmp_path, contents)


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("it_ran",)


def test_code_in_the_file_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "tensors alone" in refusal(tmp_path, {"state_dict": Runs()})
    (tmp_path / "theirs.pth").write_bytes(pickle.dumps(Runs(), protocol=2))
    with pytest.raises(CheckpointError, match="tensors alone"):
        import_detector(tmp_path / "theirs.pth", LAYOUT)
    assert not Path("it_ran").exists()
    with pytest.raises(CheckpointError, match="cannot be read"):
        import_detector(tmp_path / "absent.pth", LAYOUT)


def test_an_unknown_layout_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=", ".join(LAYOUTS)):
        import_detector(tmp_path / "x.pth", "keras")


def test_the_plain_xception_is_backbone_pooling_and_classifier(small: BuildSmall) -> None:
    model = small("xception", neck_width=0, last_norm=False)
    assert {name.partition(".")[0] for name in model.state_dict()} == {"backbone", "head"}
    images = images_for(model)
    with torch.inference_mode():
        pooled = model.backbone(images)[-1].mean((2, 3))
        torch.testing.assert_close(model(images), model.head(pooled))
        with model.without("last_stage"):
            torch.testing.assert_close(model(images), model.head.linear.bias.expand(2, -1))


def test_neck_and_norm_can_be_left_out_separately(small: BuildSmall, tmp_path: Path) -> None:
    for options in ({"neck_width": 0}, {"last_norm": False}):
        model = small("xception", **options)
        model.save_checkpoint(tmp_path / "some.safetensors", epoch=1)
        images = images_for(model)
        with torch.inference_mode():
            reloaded = load_detector(tmp_path / "some.safetensors").model
            assert torch.equal(reloaded(images), model(images))


def test_checkpoints_older_than_these_options_load(small: BuildSmall, tmp_path: Path) -> None:
    model = small("xception")
    model.save_checkpoint(tmp_path / "now.safetensors", epoch=1)
    info = load_detector(tmp_path / "now.safetensors").info
    old = replace(info, config={name: value for name, value in info.config.items() if name != "last_norm"})
    save_checkpoint(tmp_path / "old.safetensors", weights=model.state_dict(), info=old)
    images = images_for(model)
    with torch.inference_mode():
        assert torch.equal(load_detector(tmp_path / "old.safetensors").model(images), model(images))
    assert get_model("xception", tmp_path / "old.safetensors").config == model.config
