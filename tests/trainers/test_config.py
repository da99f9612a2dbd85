from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.architectures import get_model, list_architectures
from trainers.config import SettingError, TrainConfig, from_json, to_json, with_settings
from trainers.recipes import RECIPES, find_recipe
from trainers.schedules import constant_then_decay


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_stored_and_read(name: str) -> None:
    config = find_recipe(name)
    assert config.recipe == name
    assert from_json(TrainConfig, to_json(config)) == config


def test_every_architecture_has_a_recipe_with_valid_options() -> None:
    assert set(list_architectures()) <= set(RECIPES)
    for name in RECIPES:
        config = find_recipe(name)
        with torch.device("meta"):
            get_model(config.architecture, pretrained=False, **config.model)


def test_settings_are_typed_and_nested() -> None:
    config = with_settings(
        find_recipe("probe"),
        [
            "optim.lr=1e-3",
            "samples=1000",
            "data.pairs.shares.dfdc=0.9",
            "data.augment.h264_crf=(23, 40)",
            "model.input_size=192",
            "schedule.final_dropout=0.1",
            "compile=true",
            "data.manifest=/a b/c.csv",
        ],
    )
    assert config.optim.lr == 1e-3
    assert config.data.pairs.shares["dfdc"] == 0.9
    assert config.data.pairs.shares["self_blend"] == find_recipe("probe").data.pairs.shares["self_blend"]
    assert config.data.augment.h264_crf == (23.0, 40.0)
    assert config.model["input_size"] == 192
    assert config.schedule.final_dropout == 0.1
    assert config.compile is True
    assert config.data.manifest == "/a b/c.csv"
    assert from_json(TrainConfig, to_json(config)) == config


def test_earlier_names_of_settings_still_work() -> None:
    config = with_settings(find_recipe("probe"), ["data.couples.shares.dfdc=0.9", "data.couples.coupled=false"])
    assert config == with_settings(find_recipe("probe"), ["data.pairs.shares.dfdc=0.9", "data.pairs.paired=false"])
    stored = json.loads(to_json(config))
    pairs = stored["data"].pop("pairs")
    pairs["coupled"] = pairs.pop("paired")
    stored["data"]["couples"] = pairs
    assert from_json(TrainConfig, json.dumps(stored)) == config


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optim.lr", "key=value"),
        ("optim.rate=1", "no setting 'optim.rate'; available here: lr, "),
        ("optim.lr.x=1", "has no parts"),
        ("optim.lr=fast", "optim.lr must be of type float"),
        ("samples=1.5", "samples must be of type int"),
        ("samples=true", "samples must be of type int"),
        ("schedule.kind=cosine", "must be one of 'one_cycle', 'constant'"),
        ("batch_size=7", "must be even"),
        ("samples=8", "at least one step"),
        ("data.augment.small=3", "must be a list of 2 values"),
    ],
)
def test_a_bad_setting_is_named(setting: str, message: str) -> None:
    with pytest.raises(SettingError, match=message.replace(".", r"\.")):
        with_settings(find_recipe("probe"), [setting])


def test_losses_are_off_until_they_are_set() -> None:
    config = find_recipe("probe")
    stored = json.loads(to_json(config))
    del stored["losses"]
    # A run stored before the additional losses existed.
    assert from_json(TrainConfig, json.dumps(stored)) == config
    settings = ["losses.ordered.weight=0.2", "losses.mixup.share=0.3", "losses.distil.teachers=unmask-small"]
    changed = with_settings(config, [*settings, "losses.consistency.jpeg_quality=(20, 60)"])
    assert changed.losses.distil.teachers == ("unmask-small",)
    assert from_json(TrainConfig, to_json(changed)) == changed
    several = with_settings(config, ["losses.distil.teachers=['a.safetensors', 'b.safetensors']"])
    assert several.losses.distil.teachers == ("a.safetensors", "b.safetensors")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("losses.class_weight=-1", "at least 0"),
        ("losses.ordered.weight=-1", "at least 0"),
        ("losses.mixup.share=1.5", "within 0..1"),
        ("losses.mixup.alpha=0", "above 0"),
        ("losses.consistency.small=(0.9, 0.2)", "must rise"),
        ("losses.distil.temperature=0", "above 0"),
        ("losses.distil.cache=x", "needs losses.distil.teachers"),
    ],
)
def test_a_loss_out_of_range_is_refused(setting: str, message: str) -> None:
    with pytest.raises(SettingError, match=message.replace(".", r"\.")):
        with_settings(find_recipe("probe"), [setting])


@pytest.mark.parametrize("text", ["", "[]", '{"recipe": "x"', '{"recipe": "x", "architecture": "y", "colour": 1}'])
def test_an_invalid_stored_config_is_refused(text: str) -> None:
    with pytest.raises(SettingError):
        from_json(TrainConfig, text)


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(SettingError, match="swin_transformer, two_stream, xception"):
        find_recipe("resnet")


@settings(deadline=None)
@given(total=st.integers(2, 500), warmup=st.integers(0, 50), decay=st.integers(0, 200))
def test_the_constant_schedule_rises_stays_and_falls(total: int, warmup: int, decay: int) -> None:
    rates = [
        constant_then_decay(step, warmup_steps=warmup, decay_steps=decay, total_steps=total)
        for step in range(total + 1)
    ]
    assert all(0 <= rate <= 1 for rate in rates)
    assert rates[-1] == (0 if decay else min(1.0, (total + 1) / warmup if warmup else 1.0))
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
