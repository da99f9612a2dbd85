from __future__ import annotations

import numpy as np
import pytest

from pipeline.types import Image
from tests.trainers.crops import face, forged
from trainers.augment.blending import BlendConfig, self_blend, transplant
from trainers.augment.outline import REGIONS, region_mask, template_landmarks

SIDE = 112
LANDMARKS = template_landmarks(SIDE)


@pytest.fixture(scope="module")
def image() -> Image:
    return face(0, SIDE)


@pytest.mark.parametrize("seed", range(12))
def test_a_self_blend_differs_from_its_real_only_inside_its_mask(image: Image, seed: int) -> None:
    blend = self_blend(image, LANDMARKS, np.random.default_rng(seed))
    outside = blend.mask < 1e-3
    np.testing.assert_array_equal(blend.fake[outside], blend.real[outside])
    assert np.abs(blend.fake.astype(int) - blend.real)[blend.mask > 0.2].mean() > 0.2
    assert 0 < blend.mask.max() <= 1.0 + 1e-5
    assert any(abs(float(blend.mask.max()) - ratio) < 0.02 for ratio in BlendConfig().ratios)


def test_a_self_blend_is_a_function_of_its_generator(image: Image) -> None:
    first, second = (self_blend(image, LANDMARKS, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first.fake, second.fake)
    other = self_blend(image, LANDMARKS, np.random.default_rng(6))
    assert (other.fake != first.fake).any()


def test_the_real_is_unchanged_in_half_of_the_blends(image: Image) -> None:
    """The other half has other colours: colour alone must not reveal the class."""
    same = [bool((self_blend(image, LANDMARKS, np.random.default_rng(i)).real == image).all()) for i in range(60)]
    assert 15 < sum(same) < 50


def test_a_transplant_is_the_fake_inside_and_the_real_outside(image: Image) -> None:
    fake = forged(image, 0)
    for seed in range(8):
        blend = transplant(image, fake, LANDMARKS, np.random.default_rng(seed))
        np.testing.assert_array_equal(blend.fake[blend.mask < 1e-3], image[blend.mask < 1e-3])
        whole = blend.mask > 1 - 1e-4
        assert np.abs(blend.fake[whole].astype(int) - fake[whole]).max(initial=0) <= 1


@pytest.mark.parametrize("region", REGIONS)
def test_regions_are_at_the_right_place(region: str) -> None:
    mask = region_mask(LANDMARKS, region, (SIDE, SIDE))  # type: ignore[arg-type]
    eyes = [mask[round(float(y)), round(float(x))] for x, y in LANDMARKS[:2]]
    mouth = mask[round(float(LANDMARKS[3:, 1].mean())), SIDE // 2]
    assert all(eyes) == (region != "lower")
    assert bool(mouth) == (region != "eyes")
    assert 0.03 < mask.mean() < 0.9


def test_a_region_follows_a_turned_head() -> None:
    turned = (LANDMARKS - SIDE / 2) * np.float32([0.5, 1.0]) + np.float32([SIDE / 2 + 15, SIDE / 2])
    straight, narrow = (region_mask(points, "face", (SIDE, SIDE)) for points in (LANDMARKS, turned))
    assert narrow.sum() < 0.65 * straight.sum()
    assert np.nonzero(narrow)[1].mean() > np.nonzero(straight)[1].mean() + 5
