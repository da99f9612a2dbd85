"""Allowed and forbidden differences between the members of a pair."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.types import Floats, Image
from tests.trainers.crops import face, forged
from trainers.augment.cutouts import PARTS, choose_part, part_mask
from trainers.augment.outline import template_landmarks
from trainers.augment.policy import NO_AUGMENTATION, AugmentConfig, augment_pair, has_degraded_copy
from trainers.augment.quality import ApartConfig, StrongConfig, draw_damage, strongly_degraded

SIDE = 96
LANDMARKS = template_landmarks(SIDE)
# A single kind, whose strength can be measured on the picture.
BLUR = ApartConfig(share=1, blur_share=1, size_share=0, noise_share=0, compression_share=0)


def pair(
    real: Image, fake: Image | None, seed: int, config: AugmentConfig, mask: Floats | None = None
) -> tuple[Image, Image, Floats | None]:
    (first, second), moved = augment_pair(real, fake, (LANDMARKS, LANDMARKS), 64, (seed, seed), config, mask)
    return first, second, moved


def sharpness(image: Image) -> float:
    return float(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_32F).var())


def test_each_member_is_the_blurrier_one_equally_often() -> None:
    """The same picture twice: only quality differs, and quality is independent of the place in the pair."""
    picture = face(1, SIDE)
    config = replace(NO_AUGMENTATION, apart=BLUR)
    ratios = []
    for seed in range(200):
        first, second, _ = pair(picture, picture, seed, config)
        ratios.append(sharpness(first) / sharpness(second))
    assert all(ratio != 1 for ratio in ratios)
    assert 75 <= sum(ratio < 1 for ratio in ratios) <= 125
    always_real = replace(NO_AUGMENTATION, apart=replace(BLUR, real_share=1))
    first, second, _ = pair(picture, picture, 3, always_real)
    assert sharpness(first) < sharpness(second)


def test_members_that_differ_in_quality_share_colours_and_geometry() -> None:
    """A dark half and a bright half: blur does not change their mean colours or the position of the edge."""
    picture = np.full((SIDE, SIDE, 3), 70, np.uint8)
    picture[:, SIDE // 2 :] = (190, 150, 120)
    config = AugmentConfig(
        colour_share=1, rotation_share=1, cutout_share=0, small_share=0, h264_share=0, jpeg_share=0, noise_share=0,
        blur_share=0, apart=BLUR,
    )  # fmt: skip
    for seed in range(10):
        first, second, _ = pair(picture, picture, seed, config)
        np.testing.assert_allclose(first.mean((0, 1)), second.mean((0, 1)), atol=2.5)
        bright = [image[..., 0] > (float(image.max()) + float(image.min())) / 2 for image in (first, second)]
        assert (bright[0] != bright[1]).mean() < 0.06


def test_only_a_share_of_the_pairs_differs() -> None:
    picture = face(2, SIDE)
    config = replace(NO_AUGMENTATION, apart=replace(BLUR, share=0.3))
    pairs = [pair(picture, picture, seed, config) for seed in range(200)]
    assert 35 <= sum(bool((first != second).any()) for first, second, _ in pairs) <= 85


@given(seed=st.integers(0, 1 << 40))
@settings(max_examples=60, deadline=None)
def test_the_first_damage_is_the_stronger_one_in_each_kind(seed: int) -> None:
    more, less = draw_damage(np.random.default_rng(seed), ApartConfig())
    strengths = [(getattr(more, name), getattr(less, name)) for name in ("blur", "size", "noise", "compression")]
    assert all(0 <= weak <= strong <= 1 for strong, weak in strengths)
    assert any(weak < strong for strong, weak in strengths)


@pytest.mark.parametrize("codec_share", [0.0, 1.0])
def test_damage_keeps_size_and_picture(codec_share: float) -> None:
    picture = face(4, 97)
    config = ApartConfig(blur_share=1, size_share=1, noise_share=1, compression_share=1, h264_share=codec_share)
    for seed in range(4):
        more, _ = draw_damage(np.random.default_rng(seed), config)
        damaged = more(picture)
        assert damaged.shape == picture.shape
        assert damaged.dtype == np.uint8
        assert np.corrcoef(damaged.ravel(), picture.ravel())[0, 1] > 0.6
        np.testing.assert_array_equal(damaged, more(picture))


def test_the_copy_of_a_real_is_the_worse_picture() -> None:
    picture = face(5, SIDE)
    config = replace(NO_AUGMENTATION, degraded_real_share=1, apart=replace(BLUR, share=0))
    for seed in range(10):
        first, second, moved = pair(picture, None, seed, config)
        assert sharpness(second) < sharpness(first)
        assert moved is None


def test_the_share_of_reals_with_their_degraded_copy() -> None:
    share = np.mean([has_degraded_copy(seed, AugmentConfig(degraded_real_share=0.25)) for seed in range(800)])
    assert 0.2 < share < 0.3
    assert not any(has_degraded_copy(seed, AugmentConfig()) for seed in range(100))


def test_a_cut_out_is_the_same_in_both_members_and_its_mask_is_empty() -> None:
    real = face(6, SIDE)
    fake = forged(real, 6)
    everywhere = np.ones((SIDE, SIDE), np.float32)
    config = replace(NO_AUGMENTATION, landmark_cutout_share=1)
    for seed in range(12):
        first, second, moved = pair(real, fake, seed, config, everywhere)
        assert moved is not None
        hidden = moved < 0.01
        assert 0.02 < hidden.mean() < 0.35
        # A px inside its edge, which resizing mixes with the face.
        inside = cv2.erode(hidden.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        np.testing.assert_array_equal(first[inside], second[inside])


def test_a_cut_out_leaves_enough_of_the_forgery() -> None:
    """Without the mouth, a forgery of the mouth would be gone, and its label wrong."""
    for part in PARTS:
        forgery = part_mask(LANDMARKS, part, (SIDE, SIDE)).astype(np.float32)
        for seed in range(10):
            hidden = choose_part(LANDMARKS, forgery, (SIDE, SIDE), np.random.default_rng(seed))
            assert hidden.any()
            assert forgery[~hidden].sum() >= 0.4 * forgery.sum()


@given(part=st.sampled_from(PARTS), angle=st.floats(-40, 40))
@settings(max_examples=30, deadline=None)
def test_parts_are_on_their_landmarks_for_any_head_pose(part: str, angle: float) -> None:
    turn = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), angle, 0.8)
    landmarks = (LANDMARKS @ turn[:, :2].T + turn[:, 2]).astype(np.float32)
    mask = part_mask(landmarks, part, (SIDE, SIDE))  # type: ignore[arg-type]
    own = {"eyes": (0, 1), "nose": (2,), "mouth": (3, 4)}[part]
    at = [bool(mask[round(float(y)), round(float(x))]) for x, y in landmarks]
    assert [number for number in range(5) if at[number]] == list(own)


def test_pairs_of_unequal_sizes_are_cut_out_too() -> None:
    config = AugmentConfig(landmark_cutout_share=1, apart=ApartConfig(share=1))
    for seed in range(5):
        images, _ = augment_pair(
            face(1, 96), face(2, 128), (LANDMARKS, template_landmarks(128)), 64, (seed, seed), config
        )
        assert images.shape == (2, 64, 64, 3)


STRONG = [name for name in StrongConfig.__dataclass_fields__ if name.endswith("_share") and "luma" not in name]


@pytest.mark.parametrize("name", STRONG)
def test_each_strong_degradation_is_applied_by_its_share(name: str) -> None:
    picture = face(7, SIDE)
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(strongly_degraded(picture, rng, StrongConfig()), picture)
    config = replace(StrongConfig(), **{name: 0.5})
    changed = [bool((strongly_degraded(picture, np.random.default_rng(i), config) != picture).any()) for i in range(60)]
    assert 15 < sum(changed) < 45


@pytest.mark.parametrize(
    ("settings_", "needed"),
    [
        ({}, True),
        ({"h264_share": 0}, False),
        ({"h264_share": 0, "apart": ApartConfig(share=0.2)}, True),
        ({"h264_share": 0, "apart": ApartConfig(share=0.2, h264_share=0)}, False),
    ],
)
def test_settings_that_need_video(settings_: dict[str, object], needed: bool) -> None:
    assert AugmentConfig(**settings_).needs_video is needed  # type: ignore[arg-type]
