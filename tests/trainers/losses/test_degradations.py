"""Degradations on tensors against OpenCV's on images."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.types import Image
from tests import media
from trainers.augment import degrade
from trainers.losses.config import ConsistencyConfig
from trainers.losses.degradations import blurred, degraded, noised, quantised, shrunk


def picture(side: int) -> Image:
    return np.asarray(cv2.resize(media.face_picture(), (side, side), interpolation=cv2.INTER_AREA))


def tensor(*images: Image) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def image(values: Tensor) -> Image:
    return np.asarray(values.permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy())


def distance(a: Image, b: Image) -> float:
    return float(np.abs(a.astype(np.float32) - b.astype(np.float32)).mean())


@pytest.mark.parametrize("side", [64, 75])
def test_quantisation_matches_jpeg(side: int) -> None:
    original = picture(side)
    qualities = (10, 30, 60, 90)
    found = quantised(tensor(*[original] * 4).float(), np.array(qualities))
    for quality, one in zip(qualities, found, strict=True):
        expected = degrade.jpeg(original, quality)
        assert distance(original, expected) > 4
        # With another filter for chroma it is above 1.9.
        assert distance(image(one), expected) < 1.5, quality


def test_blur_is_gaussian() -> None:
    original = picture(64)
    sigmas = (0.6, 1.5, 3.0)
    found = blurred(tensor(*[original] * 3).float(), np.array(sigmas))
    for sigma, one in zip(sigmas, found, strict=True):
        assert distance(image(one), degrade.blur(original, sigma)) < 0.3


def test_shrinking_uses_area_and_enlarging_is_linear() -> None:
    original = picture(64)
    found = shrunk(tensor(original, original).float(), np.array([0.25, 0.5]))
    for factor, one in zip((0.25, 0.5), found, strict=True):
        assert distance(image(one), degrade.resize(original, factor)) < 0.6


def test_noise_has_its_deviation_and_its_seed() -> None:
    grey = torch.full((2, 3, 64, 64), 128.0)
    first = noised(grey, np.array([3.0, 12.0]), seed=1)
    assert torch.equal(first, noised(grey, np.array([3.0, 12.0]), seed=1))
    assert [float(one.std()) for one in first] == pytest.approx([3.0, 12.0], rel=0.05)


def test_every_copy_is_degraded_and_equal_seeds_draw_equally() -> None:
    pixels = tensor(*[picture(64)] * 16)
    kept = pixels.clone()
    first, second = (degraded(pixels, ConsistencyConfig(), np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(pixels, kept)
    assert first.dtype is torch.uint8
    assert first.shape == pixels.shape
    changes = [distance(image(a), image(b)) for a, b in zip(first, pixels, strict=True)]
    assert min(changes) > 0.5
    assert len({round(change, 3) for change in changes}) > 8


def test_a_wide_blur_of_a_small_image_works() -> None:
    config = ConsistencyConfig(blur_sigma_px=(40, 40))
    assert degraded(tensor(*[picture(32)] * 8), config, np.random.default_rng(0)).shape == (8, 3, 32, 32)
