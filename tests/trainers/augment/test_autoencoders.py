from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.trainers.crops import face
from trainers.augment.autoencoders import (
    SPECS,
    Autoencoder,
    AutoencodersMissingError,
    AutoencoderSpec,
    Budget,
    load_autoencoders,
    save_autoencoder,
    train_autoencoder,
)

SMALL = AutoencoderSpec("small", "bilinear", 32, 1, 12, "l1", 8)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_input_and_output_have_the_size_of_the_spec(spec: AutoencoderSpec) -> None:
    rendered = Autoencoder(spec).eval().render(face(0))
    assert rendered.shape == (spec.size_px, spec.size_px, 3)
    assert rendered.dtype == np.uint8


def test_training_reduces_the_error() -> None:
    reals = [face(seed) for seed in range(4)]
    wanted = cv2.resize(face(9), (32, 32), interpolation=cv2.INTER_AREA).astype(float)
    errors = []
    for steps in (1, 80):
        net, _ = train_autoencoder(SMALL, reals, Budget(steps=steps), clock=lambda: 0.0)
        errors.append(np.abs(net.render(face(9)) - wanted).mean())
    assert errors[1] < 0.7 * errors[0]


def test_training_ends_when_the_budget_is_spent() -> None:
    ticks = iter(range(1000))
    net, _ = train_autoencoder(SMALL, [face(0)], Budget(seconds=5), clock=lambda: float(next(ticks)))
    assert next(ticks) <= 8
    assert not net.training


def test_a_saved_autoencoder_gives_the_same_output_for_any_threads(tmp_path: Path) -> None:
    net = Autoencoder(SMALL).eval()
    save_autoencoder(net, tmp_path)
    (loaded,) = load_autoencoders(str(tmp_path))
    assert loaded.spec == SMALL
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        np.testing.assert_array_equal(loaded.render(face(1)), net.render(face(1)))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\x08\0\0\0\0\0\0\0{}      "])
def test_an_invalid_file_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(AutoencodersMissingError, match=r"x\.safetensors"):
        load_autoencoders(str(tmp_path))
