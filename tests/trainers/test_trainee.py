from __future__ import annotations

import pytest
import torch

from models.architectures import get_model
from models.base import BaseModel
from tests.weights import SMALL_BACKBONE
from trainers.config import with_settings
from trainers.losses.config import ConsistencyConfig, DistilConfig, LossConfig, OrderedConfig
from trainers.recipes import probe
from trainers.schedules import drop_rates, learning_rates
from trainers.trainee import Trainee

STEPS = 20


def small_model() -> BaseModel:
    torch.manual_seed(0)
    return get_model("xception", pretrained=False, backbone=SMALL_BACKBONE, input_size=64)


def batch(known: bool = True) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {
        "images": torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8),
        "labels": torch.tensor([0, 1, 0, 1]),
        "masks": torch.rand(4, 4, 4),
        "mask_known": torch.tensor([True, known, True, known]),
    }


def test_the_mask_loss_uses_only_known_masks() -> None:
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


def test_settings_that_are_off_change_nothing() -> None:
    """The loss equals that of the detector's own step, bit for bit."""
    trainee = Trainee(small_model(), label_smoothing=0.1, mask_weight=0.0)
    given = batch()
    torch.manual_seed(2)
    own = trainee.model.training_step(
        {"images": trainee.normalize(given["images"]), "labels": given["labels"]}, label_smoothing=0.1
    )
    torch.manual_seed(2)
    result = trainee(given)
    assert torch.equal(result["loss"], own["loss"])
    assert {name for name in result if name.endswith("loss")} == {"loss", "class_loss", "mask_loss"}
    assert not list(trainee.auxiliary().parameters())


def prepared() -> dict[str, torch.Tensor]:
    """A batch with all inputs of the losses: item 0 has no label, item 2 no kind, item 3 no teacher."""
    torch.manual_seed(3)
    return batch() | {
        "fake_share": torch.tensor([0.0, 1.0, 0.3, 0.7]),
        "label_known": torch.tensor([False, True, True, True]),
        "thresholds": torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]),
        "kind_known": torch.tensor([True, True, False, True]),
        "degraded": torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8),
        "degraded_of": torch.tensor([1, 2]),
        "teacher_log_odds": torch.randn(4),
        "teacher_known": torch.tensor([True, True, True, False]),
        "teacher_features_0": torch.randn(4, 5),
        "teacher_features_1": torch.randn(4, 7),
    }


ALL_ON = LossConfig(
    class_weight=0.5,
    ordered=OrderedConfig(weight=0.3),
    consistency=ConsistencyConfig(weight=0.7, feature_weight=0.2, share=0.5),
    distil=DistilConfig(teachers=("a", "b"), weight=0.9, feature_weight=0.4, temperature=2.0),
)


def all_on() -> Trainee:
    model = small_model()
    model.set_drop_rates(dropout=0.0)
    return Trainee(model, label_smoothing=0.0, mask_weight=0.1, losses=ALL_ON, teacher_widths=(5, 7)).eval()


def test_the_loss_is_the_weighted_sum_of_its_parts() -> None:
    result = all_on()(prepared())
    weights = {
        "class_loss": 0.5,
        "mask_loss": 0.1,
        "ordered_loss": 0.3,
        "consistency_loss": 0.7,
        "feature_consistency_loss": 0.2,
        "distil_loss": 0.9,
        "distil_feature_loss": 0.4,
    }
    assert {name for name in result if name.endswith("_loss")} == set(weights)
    assert all(result[name] > 0 for name in weights)
    expected = sum(weight * result[name] for name, weight in weights.items())
    torch.testing.assert_close(result["loss"], expected)
    assert result["logits"].shape == (4, 2)


@pytest.mark.parametrize(
    ("loss", "name", "item"),
    [
        ("class_loss", "fake_share", 0),
        ("ordered_loss", "thresholds", 2),
        ("distil_loss", "teacher_log_odds", 3),
        ("distil_feature_loss", "teacher_features_1", 3),
    ],
)
def test_unknown_targets_of_an_image_are_ignored(loss: str, name: str, item: int) -> None:
    trainee = all_on()
    given, unknown, known = prepared(), prepared(), prepared()
    unknown[name][item] = 1 - given[name][item]
    known[name][1] = 0.5 - given[name][1]
    assert trainee(unknown)[loss] == trainee(given)[loss]
    assert trainee(known)[loss] != trainee(given)[loss]


def test_an_equal_copy_has_zero_consistency_loss() -> None:
    given = prepared()
    given["degraded"] = given["images"][given["degraded_of"]]
    result = all_on()(given)
    assert float(result["consistency_loss"]) == pytest.approx(0, abs=1e-6)
    assert float(result["feature_consistency_loss"]) == pytest.approx(0, abs=1e-5)


def test_auxiliary_layers_learn_and_are_not_saved_with_the_detector() -> None:
    trainee = all_on().train()
    trainee(prepared())["loss"].backward()
    layers = trainee.auxiliary()
    assert len(layers) == 3
    assert all(parameter.grad is not None for parameter in layers.parameters())
    assert all(parameter.grad is not None for parameter in trainee.model.parameters())
    assert set(trainee.model.state_dict()) == set(small_model().state_dict())


def test_auxiliary_layers_load_from_their_state() -> None:
    first, second = all_on(), all_on()
    with torch.no_grad():
        for parameter in first.auxiliary().parameters():
            parameter.add_(1.0)
    second.load_auxiliary_state(first.auxiliary_state() | {"best": 0.5})
    for a, b in zip(first.auxiliary().parameters(), second.auxiliary().parameters(), strict=True):
        assert torch.equal(a, b)
    # The state of a run from before the other layers existed.
    old = Trainee(small_model(), label_smoothing=0.0, mask_weight=0.1)
    old.load_auxiliary_state({"mask_layer": first.auxiliary_state()["mask_layer"], "best": 0.5, "trained_s": 1.0})


@pytest.mark.parametrize("kind", ["one_cycle", "constant"])
def test_each_group_keeps_its_own_maximum(kind: str) -> None:
    """OneCycleLR with one number would override the layer-wise rates."""
    config = with_settings(
        probe(), [f"schedule.kind={kind}", "samples=640", "schedule.warmup_steps=3", "schedule.decay_samples=160"]
    )
    model = small_model()
    optimizer = model.configure_optimizer(1e-3, layer_decay=0.8, head_lr_factor=2.0)
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
    optimizer = model.configure_optimizer(weight_decay=0.1, extra=extra)
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert decays[id(parameter)] == (0.1 if parameter.ndim > 1 else 0.0), name
    assert all(id(parameter) in decays for parameter in extra.parameters())


def test_drop_rates_move_from_initial_to_final_values() -> None:
    config = with_settings(probe(), ["schedule.final_dropout=0.1"]).schedule
    model = small_model()
    assert drop_rates(config, model, 0.0) == (0.3, None)
    assert drop_rates(config, model, 0.5) == (pytest.approx(0.2), None)
    assert drop_rates(config, model, 1.0) == (pytest.approx(0.1), None)
