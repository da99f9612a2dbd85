"""Mixing within pairs: mixed values, unchanged values, and balance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainers.losses.config import MixupConfig
from trainers.losses.mixup import mix_pairs

# Alpha 5: no part near 0, which would round to 0.
ALWAYS = MixupConfig(share=1.0, alpha=5)


def batch(pairs: int = 3, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    count = 2 * pairs
    masks = torch.rand(count, 2, 2, generator=generator)
    masks[::2] = 0
    return {
        "images": torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=generator),
        "labels": torch.tensor([0, 1] * pairs),
        "mask_known": torch.ones(count, dtype=torch.bool),
        "masks": masks,
        "fake_share": torch.tensor([0.0, 1.0] * pairs),
        "thresholds": torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 0.0]] * pairs),
    }


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), alpha=st.floats(0.1, 5))
def test_images_labels_and_masks_are_mixed_in_the_same_parts(seed: int, alpha: float) -> None:
    before = batch(seed=seed % 1000)
    after = mix_pairs(before, MixupConfig(share=1.0, alpha=alpha), np.random.default_rng(seed))
    shares = after["fake_share"]
    assert ((shares >= 0) & (shares <= 1)).all()
    assert (shares[::2] <= 0.5 + 1e-6).all()
    torch.testing.assert_close(shares[::2] + shares[1::2], torch.ones(3))
    for i, part in enumerate(shares):
        real, fake = (before["images"][i // 2 * 2 + j].float() for j in (0, 1))
        expected = real + part * (fake - real)
        assert (after["images"][i].float() - expected).abs().max() <= 0.51
        torch.testing.assert_close(after["masks"][i], part * before["masks"][i // 2 * 2 + 1])
        torch.testing.assert_close(after["thresholds"][i], part * torch.tensor([1.0, 1.0, 0.0]))


@pytest.mark.parametrize("change", ["both_real", "both_fake", "unlabelled", "not_aligned"])
def test_only_aligned_pairs_of_a_real_and_a_fake_are_mixed(change: str) -> None:
    before = batch()
    match change:
        case "both_real":
            before["labels"][3] = 0
        case "both_fake":
            before["labels"][2] = 1
        case "unlabelled":
            before["labels"][2:4] = -1
        case "not_aligned":
            before["mask_known"][3] = False
    after = mix_pairs(before, ALWAYS, np.random.default_rng(0))
    assert after["mixed"].tolist() == [True, True, False, False, True, True]
    for name in ("images", "masks", "fake_share", "thresholds"):
        assert torch.equal(after[name][2:4], before[name][2:4]), name
    assert not torch.equal(after["images"][:2], before["images"][:2])


def test_the_share_of_pairs_is_kept() -> None:
    rng = np.random.default_rng(0)
    mixed = [mix_pairs(batch(50), MixupConfig(share=0.3), rng)["mixed"].float().mean() for _ in range(20)]
    assert float(torch.stack(mixed).mean()) == pytest.approx(0.3, abs=0.04)


def test_equal_seeds_mix_equally_and_do_not_change_the_batch() -> None:
    before = batch()
    kept = {name: value.clone() for name, value in before.items()}
    first, second = (mix_pairs(before, ALWAYS, np.random.default_rng(7)) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(before[name], kept[name]) for name in before)
