from __future__ import annotations

import numpy as np
import pytest

from pipeline.faces.crop import resized
from tests.trainers.crops import face, forged
from trainers.augment.outline import template_landmarks
from trainers.augment.policy import NO_AUGMENTATION, AugmentConfig, augment

SIDE = 96
LANDMARKS = template_landmarks(SIDE)


@pytest.mark.parametrize("seed", range(20))
def test_both_members_of_a_pair_get_the_same_degradation(seed: int) -> None:
    """Equal regions of fake and real stay equal: only the forgery separates them."""
    real = face(1, SIDE)
    config = AugmentConfig(h264_share=0, jpeg_share=0)  # codecs spread a change over their blocks
    a, _ = augment(real, LANDMARKS, 64, seed, config)
    b, _ = augment(real.copy(), LANDMARKS, 64, seed, config)
    np.testing.assert_array_equal(a, b)
    fake = real.copy()
    fake[40:60, 40:60] = forged(real, 0)[40:60, 40:60]
    mask = np.zeros((SIDE, SIDE), np.float32)
    mask[40:60, 40:60] = 1
    c, moved = augment(fake, LANDMARKS, 64, seed, config, mask)
    assert moved is not None
    far = cv2_dilated(moved) == 0
    np.testing.assert_array_equal(a[far], c[far])


def cv2_dilated(mask: np.ndarray) -> np.ndarray:
    import cv2

    return np.asarray(cv2.dilate((mask > 0).astype(np.uint8), np.ones((15, 15))))


def test_zero_shares_change_nothing() -> None:
    image = face(2, SIDE)
    plain, _ = augment(image, LANDMARKS, 64, 7, NO_AUGMENTATION)
    np.testing.assert_array_equal(plain, resized(image, 64, "area"))


def test_different_seeds_give_different_crops() -> None:
    image = face(2, SIDE)
    results = {augment(image, LANDMARKS, 64, seed, AugmentConfig())[0].tobytes() for seed in range(10)}
    assert len(results) == 10


def test_the_mask_moves_with_the_picture() -> None:
    """A white square on black, and its mask, end at the same place."""
    image, mask = np.zeros((SIDE, SIDE, 3), np.uint8), np.zeros((SIDE, SIDE), np.float32)
    image[20:50, 50:80], mask[20:50, 50:80] = 255, 1
    config = AugmentConfig(
        colour_share=0, grey_share=0, cutout_share=0, blur_share=0, noise_share=0, jpeg_share=0, h264_share=0
    )
    for seed in range(12):
        moved, moved_mask = augment(image, LANDMARKS, 64, seed, config, mask)
        assert moved_mask is not None
        assert np.abs(moved[..., 0] / 255 - moved_mask).mean() < 0.02


def test_pictures_of_any_size_are_degraded() -> None:
    for side in (48, 97, 224):
        for seed in range(6):
            assert augment(face(0, side), template_landmarks(side), 80, seed, AugmentConfig())[0].shape == (80, 80, 3)
