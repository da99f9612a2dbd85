from __future__ import annotations

import pytest
import torch

from models.architectures import get_model
from models.base import BaseModel
from trainers.config import OptimConfig, with_settings
from trainers.optim import create_optimizer
from trainers.recipes import probe
from trainers.schedules import drop_rates, learning_rates
from trainers.trainee import Trainee

STEPS = 20


def small_model() -> BaseModel:
    torch.manual_seed(0)
    return get_model("xception", pretrained=False, backbone="tf_efficientnet_lite0", input_size=64)


def batch(known: bool = True) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {
        "images": torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8),
        "labels": torch.tensor([0, 1, 0, 1]),
        "masks": torch.rand(4, 4, 4),
        "mask_known": torch.tensor([True, known, True, known]),
    }


def test_the_mask_loss_counts_known_masks_only() -> None:
    trainee = Trainee(small_model(), label_smoothing=0.0, mask_weight=0.5).eval()
    some, other = batch(known=False), batch(known=False)
    other["masks"][1] = 1 - other["masks"][1]
    assert trainee(some)["mask_loss"] == trainee(other)["mask_loss"]
    result = trainee(batch())
    assert result["mask_loss"] != trainee(some)["mask_loss"]
    torch.testing.assert_close(result["loss"], result["class_loss"] + 0.5 * result["mask_loss"])


def test_without_weight_there_is_no_mask_layer() -> None:
    trainee = Trainee(small_model(), label_smoothing=0.0, mask_weight=0.0)
    assert trainee.mask_layer is None
    assert trainee(batch())["mask_loss"] == 0


def test_the_mask_teaches_the_backbone() -> None:
    trainee = Trainee(small_model(), label_smoothing=0.0, mask_weight=1.0)
    trainee(batch())["loss"].backward()
    assert trainee.mask_layer is not None
    assert trainee.mask_layer.weight.grad is not None
    assert not any(name.startswith("mask") for name in trainee.model.state_dict())


@pytest.mark.parametrize("kind", ["one_cycle", "constant"])
def test_each_group_keeps_its_own_maximum(kind: str) -> None:
    """OneCycleLR with one number would flatten the layer-wise rates."""
    config = with_settings(
        probe(), [f"schedule.kind={kind}", "samples=640", "schedule.warmup_steps=3", "schedule.decay_samples=160"]
    )
    model = small_model()
    optimizer = create_optimizer(model, OptimConfig(lr=1e-3, layer_decay=0.8, head_lr_factor=2.0))
    wanted = [group["lr"] for group in optimizer.param_groups]
    assert len(set(wanted)) > 5
    assert max(wanted) == pytest.approx(2e-3)
    schedule = learning_rates(optimizer, config)
    seen = [[group["lr"] for group in optimizer.param_groups]]
    for _ in range(config.total_steps):
        optimizer.step()
        schedule.step()
        seen.append([group["lr"] for group in optimizer.param_groups])
    highest = [max(rates) for rates in zip(*seen, strict=True)]
    assert highest == pytest.approx(wanted, rel=0.02)
    assert max(seen[-1]) < 1e-3 * max(wanted)


def test_norms_and_biases_do_not_decay_and_the_extra_layer_learns() -> None:
    model = small_model()
    extra = torch.nn.Conv2d(3, 1, 1)
    optimizer = create_optimizer(model, OptimConfig(weight_decay=0.1), extra)
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert decays[id(parameter)] == (0.1 if parameter.ndim > 1 else 0.0), name
    assert all(id(parameter) in decays for parameter in extra.parameters())


def test_drop_rates_move_from_the_model_s_to_the_final_ones() -> None:
    config = with_settings(probe(), ["schedule.final_dropout=0.1"]).schedule
    model = small_model()
    assert drop_rates(config, model, 0.0) == (0.3, None)
    assert drop_rates(config, model, 0.5) == (pytest.approx(0.2), None)
    assert drop_rates(config, model, 1.0) == (pytest.approx(0.1), None)
