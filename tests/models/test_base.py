"""BaseModel and the registry: configs, steps, parameter groups, checkpoints, pretrained weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models import base, checkpoint
from models.architectures import get_model, load_detector
from models.architectures.xception import XceptionConfig
from models.base import BaseModel
from models.checkpoint import Calibration, CheckpointError, read_checkpoint
from models.config import ConfigError
from models.precision import Precision
from models.spec import BoxMargin, InputSpec
from models.zoo import ZooError
from tests.models.conftest import SMALL, BuildSmall, images_for

every_architecture = pytest.mark.parametrize("architecture", sorted(SMALL))


def same_weights(one: BaseModel, other: BaseModel) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def batch_for(model: BaseModel) -> dict[str, torch.Tensor]:
    return {"images": images_for(model, 4), "labels": torch.tensor([0, 1, 1, 0])}


# Configs


@given(
    width=st.integers(1, 512),
    depth=st.integers(1, 4),
    pool=st.sampled_from(["avg", "max", "gem", "attention"]),
    dropout=st.floats(0.0, 0.99),
)
def test_a_config_survives_json(width: int, depth: int, pool: str, dropout: float) -> None:
    config = XceptionConfig.from_options(
        {"neck_width": width, "neck_depth": depth, "pooling": pool, "dropout_rate": dropout}
    )
    assert XceptionConfig.from_options(config.to_dict()) == config


def test_lists_become_tuples(small: BuildSmall) -> None:
    model = small("two_stream", frequency_scales=[1, 2])
    assert model.config.to_dict()["frequency_scales"] == [1, 2]
    assert len(model.frequency.scales) == 2  # type: ignore[union-attr, arg-type]


# Forward and steps


def test_training_step_takes_labels_and_label_distributions(small: BuildSmall) -> None:
    model = small("xception")
    batch = batch_for(model)
    step = model.training_step(batch)
    assert step["logits"].shape == (4, 2)
    soft = model.training_step({**batch, "labels": torch.nn.functional.one_hot(batch["labels"]).float()})
    torch.testing.assert_close(step["loss"], soft["loss"])


def test_label_smoothing_spreads_the_label_over_all_classes(small: BuildSmall) -> None:
    model = small("xception")
    batch = batch_for(model)
    step = model.training_step(batch, label_smoothing=0.2)
    log_p = step["logits"].log_softmax(1)
    target = torch.nn.functional.one_hot(batch["labels"]) * 0.8 + 0.1
    torch.testing.assert_close(step["loss"], -(target * log_p).sum(1).mean())


def test_validation_step_disables_dropout_and_restores_the_mode(small: BuildSmall) -> None:
    model = small("xception").train()
    batch, before = batch_for(model), {k: v.clone() for k, v in model.state_dict().items()}
    first, second = model.validation_step(batch), model.validation_step(batch)
    assert model.training
    assert not first["loss"].requires_grad
    assert torch.equal(first["probabilities"], second["probabilities"])
    torch.testing.assert_close(first["probabilities"].sum(1), torch.ones(4))
    right = first["probabilities"].argmax(1) == batch["labels"]
    assert first["accuracy"].item() == pytest.approx(right.float().mean().item())
    picked = first["probabilities"][torch.arange(4), batch["labels"]]
    assert first["loss"].item() == pytest.approx(-picked.log().mean().item(), rel=1e-4)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": None}, "labels missing"),
        ({"images": torch.zeros(4, 64, 64, 3)}, r"normalised floats \[B, 3, H, W\]"),
        ({"images": torch.zeros(4, 3, 64, 64, dtype=torch.uint8)}, "uint8"),
        ({"labels": torch.zeros(3, dtype=torch.long)}, "4 images need as many labels, got 3"),
    ],
)
def test_a_malformed_batch_is_refused(small: BuildSmall, change: dict[str, torch.Tensor | None], message: str) -> None:
    model = small("xception")
    batch = {k: v for k, v in (batch_for(model) | change).items() if v is not None}
    with pytest.raises(ValueError, match=message):
        model.training_step(batch)


@pytest.mark.parametrize("dtype", [torch.bfloat16, None])
def test_mixed_precision_uses_the_fast_dtype_of_the_device(
    small: BuildSmall, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype | None
) -> None:
    def pretend(device: torch.device) -> Precision:
        return Precision(device, dtype, torch.channels_last, needs_scaler=False)

    monkeypatch.setattr(base, "precision_for", pretend)
    model = small("xception", mixed_precision=True)
    seen: list[torch.dtype] = []
    model.neck.register_forward_hook(lambda *call: seen.append(call[2].dtype))  # type: ignore[union-attr]
    images = images_for(model)
    assert model(images).dtype == torch.float32
    model.mixed_precision = False
    model(images)
    assert seen == [dtype or torch.float32, torch.float32]


def test_autocast_of_the_caller_stays_on(small: BuildSmall) -> None:
    model = small("xception", mixed_precision=False)
    seen: list[torch.dtype] = []
    model.neck.register_forward_hook(lambda *call: seen.append(call[2].dtype))  # type: ignore[union-attr]
    with torch.autocast("cpu", torch.bfloat16):
        model(images_for(model))
    assert seen == [torch.bfloat16]


@pytest.mark.parametrize("rates", [{"dropout": 1.0}, {"drop_path": -0.1}])
def test_invalid_drop_rates_are_refused(small: BuildSmall, rates: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="at least 0 and below 1"):
        small("swin_transformer").set_drop_rates(**rates)


# Parameter groups


def trained(model: BaseModel) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


@every_architecture
def test_param_groups_contain_every_parameter_once(small: BuildSmall, architecture: str) -> None:
    model = small(architecture)
    groups = model.param_groups(lr=1e-3, weight_decay=0.05, layer_decay=0.75)
    held = [id(p) for group in groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)


@every_architecture
def test_learning_rates_fall_with_depth(small: BuildSmall, architecture: str) -> None:
    model = small(architecture)
    groups = model.param_groups(lr=1e-3, weight_decay=0.05, layer_decay=0.75)
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    ids = model.layer_ids()
    top = max(ids.values())
    for name, parameter in trained(model):
        assert rates[id(parameter)] == pytest.approx(1e-3 * 0.75 ** (top - ids[name])), name
        assert (ids[name] == top) == (not name.startswith("backbone.")), name
    assert min(ids.values()) == 0
    assert {group["lr"] for group in model.param_groups(1e-3, 0.05, layer_decay=1.0)} == {1e-3}


@every_architecture
def test_norms_biases_and_positions_do_not_decay(small: BuildSmall, architecture: str) -> None:
    model = small(architecture)
    decay = {
        id(p): group["weight_decay"]
        for group in model.param_groups(1e-3, weight_decay=0.05, layer_decay=0.75)
        for p in group["params"]
    }
    for name, parameter in trained(model):
        spared = parameter.ndim <= 1 or "positions." in name or "relative_position_bias_table" in name
        assert decay[id(parameter)] == (0.0 if spared else 0.05), name


def test_frozen_parameters_are_in_no_group(small: BuildSmall) -> None:
    model = small("xception")
    model.backbone.requires_grad_(False)
    groups = model.param_groups(1e-3, 0.05, 0.75)
    held = sum(len(group["params"]) for group in groups)
    assert held == sum(1 for p in model.parameters() if p.requires_grad)


def test_one_cycle_keeps_the_ratios_of_the_layers(small: BuildSmall) -> None:
    model = small("xception")
    optimizer = model.configure_optimizer(lr=1e-3, layer_decay=0.5)
    peaks = [group["lr"] for group in optimizer.param_groups]
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=peaks, total_steps=10)
    assert min(peaks) < max(peaks) == 1e-3
    for _ in range(9):
        rates = [group["lr"] for group in optimizer.param_groups]
        assert [rate / rates[-1] for rate in rates] == pytest.approx([peak / peaks[-1] for peak in peaks])
        optimizer.step()
        scheduler.step()


# Checkpoints


@every_architecture
def test_a_saved_detector_loads_bit_for_bit(small: BuildSmall, architecture: str, tmp_path: Path) -> None:
    model = small(architecture, num_classes=3, dropout_rate=0.1)
    model.input_spec = InputSpec(model.input_spec.size, model.input_spec.mean, model.input_spec.std, BoxMargin(0.3))
    sha256 = model.save_checkpoint(tmp_path / "detector.pth", epoch=2, calibration=Calibration(1.2, 0.1))
    loaded = load_detector(tmp_path / "detector.pth")
    assert loaded.sha256 == sha256
    assert not loaded.model.training
    assert loaded.model.config == model.config
    assert loaded.model.input_spec == loaded.info.input_spec == model.input_spec
    assert loaded.info.calibration == Calibration(1.2, 0.1)
    assert same_weights(loaded.model, model)
    assert torch.equal(loaded.model(images_for(model)), model(images_for(model)))
    reloaded = get_model(architecture, pretrained=tmp_path / "detector.pth", num_classes=3)
    assert reloaded.training
    assert reloaded.config.dropout_rate == 0.3
    assert same_weights(reloaded, model)


def test_a_checkpoint_loads_at_another_input_size(small: BuildSmall, tmp_path: Path) -> None:
    model = small("cnn_transformer")
    model.save_checkpoint(tmp_path / "a.pth", epoch=1)
    larger = get_model("cnn_transformer", pretrained=tmp_path / "a.pth", input_size=160)
    assert larger.input_spec.size == larger.config.input_size == 160
    assert larger(images_for(larger)).shape == (2, 2)
    larger.save_checkpoint(tmp_path / "b.pth", epoch=1)
    assert same_weights(load_detector(tmp_path / "b.pth").model, larger)


def test_weights_stored_in_fp16_are_loaded_into_fp32(small: BuildSmall, tmp_path: Path) -> None:
    model = small("xception")
    model.save_checkpoint(tmp_path / "full.pth", epoch=1)
    saved = read_checkpoint(tmp_path / "full.pth")
    half = {k: v.half() if v.is_floating_point() else v for k, v in saved.weights.items()}
    checkpoint.save_checkpoint(tmp_path / "half.pth", weights=half, info=saved.info)
    loaded = load_detector(tmp_path / "half.pth").model
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(loaded.get_parameter(name), parameter.half().float(), atol=0, rtol=0)


def test_a_resumed_run_equals_the_uninterrupted_one(small: BuildSmall, tmp_path: Path) -> None:
    def train(model: BaseModel, optimizer: torch.optim.Optimizer, scheduler: Any, steps: int) -> None:
        model.train()
        for _ in range(steps):
            loss = model.training_step(batch_for(model))["loss"]
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            scheduler.step()

    def start() -> tuple[BaseModel, torch.optim.Optimizer, Any]:
        model = small("xception")
        model.set_drop_rates(dropout=0.0)
        optimizer = model.configure_optimizer()
        peaks = [group["lr"] for group in optimizer.param_groups]
        return model, optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, peaks, total_steps=8)

    whole = start()
    train(*whole, steps=4)
    half = start()
    train(*half, steps=2)
    half[0].save_checkpoint(tmp_path / "run.pth", 1, half[1], scheduler=half[2], step=2, rng={"seed": 7})
    model, optimizer, scheduler = start()
    resume = model.load_checkpoint(tmp_path / "run.pth")
    optimizer.load_state_dict(resume.state["optimizer"])
    scheduler.load_state_dict(resume.state["scheduler"])
    assert (resume.info.epoch, resume.info.step, resume.state["rng"]) == (1, 2, {"seed": 7})
    train(model, optimizer, scheduler, steps=2)
    assert same_weights(model, whole[0])


def test_the_detector_has_averaged_weights_and_resuming_uses_raw_ones(small: BuildSmall, tmp_path: Path) -> None:
    model = small("xception")
    average = {k: v * 0.5 if v.is_floating_point() else v for k, v in model.state_dict().items()}
    model.save_checkpoint(tmp_path / "run.pth", 1, ema=average)
    served = load_detector(tmp_path / "run.pth").model
    assert all(torch.equal(v, average[k]) for k, v in served.state_dict().items())
    resumed = small("xception", dropout_rate=0.5)
    resume = resumed.load_checkpoint(tmp_path / "run.pth")
    assert same_weights(resumed, model)
    assert all(torch.equal(v, average[k]) for k, v in resume.state["ema"].items())


def test_weights_that_do_not_fit_change_nothing(small: BuildSmall, tmp_path: Path) -> None:
    small("xception", neck_width=8).save_checkpoint(tmp_path / "narrow.pth", epoch=1)
    model = small("xception")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(
        CheckpointError, match=r"do not fit this xception: .*has shape \[8.*\] instead of \[16.*saved with neck_width=8"
    ):
        model.load_checkpoint(tmp_path / "narrow.pth")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_checkpoint_of_another_architecture_is_refused(small: BuildSmall, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    small("xception").save_checkpoint(path, epoch=1)
    with pytest.raises(CheckpointError, match="holds a xception"):
        small("two_stream").load_checkpoint(path)
    with pytest.raises(CheckpointError, match="holds a xception, not a two_stream"):
        get_model("two_stream", pretrained=path)
    with pytest.raises(CheckpointError, match="saved with num_classes=2: build"):
        get_model("xception", pretrained=path, num_classes=3)


def test_a_missing_detector_is_named() -> None:
    with pytest.raises(ZooError, match=r"nowhere\.pth"):
        load_detector("nowhere.pth")
