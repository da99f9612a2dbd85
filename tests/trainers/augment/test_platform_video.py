from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.types import Image
from tests.trainers.crops import face
from trainers.augment.outline import template_landmarks
from trainers.augment.platform_video import PlatformConfig, motion_of, platform_video, transcoded
from trainers.augment.policy import NO_AUGMENTATION, augment

SIDE = 112


@pytest.fixture(scope="module")
def image() -> Image:
    return face(3, SIDE)


def likeness(a: Image, b: Image) -> float:
    b = cv2.resize(b, (a.shape[1], a.shape[0]))
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_a_clip_keeps_all_frames_in_order(image: Image) -> None:
    clip = [np.ascontiguousarray(np.roll(image, 12 * number, axis=1))[:97, :103] for number in range(6)]
    found = transcoded(clip, 20)
    assert [frame.shape for frame in found] == [(97, 103, 3)] * 6
    for number, frame in enumerate(found):
        assert np.argmax([likeness(original, frame) for original in clip]) == number


def test_equal_random_numbers_give_equal_frames(image: Image) -> None:
    config = PlatformConfig()
    frames = [platform_video(image, np.random.default_rng(seed), config) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(frames[0], frames[1])
    assert frames[0].shape != frames[2].shape or (frames[0] != frames[2]).any()


@pytest.mark.parametrize("side", [48, 97, 112])
def test_the_face_stays_in_its_place(side: int) -> None:
    """Landmarks and masks of the crop must fit the chosen frame."""
    picture = face(3, side)
    config = PlatformConfig(shift=0.03, first_crf=(10, 12), second_crf=(10, 12), scale=(0.8, 1.0))
    for seed in range(6):
        frame = platform_video(picture, np.random.default_rng(seed), config)
        assert frame.shape[0] == frame.shape[1] <= side
        frame = cv2.resize(frame, (side, side))
        assert likeness(picture, frame) > likeness(picture[2:, 2:], frame[:-2, :-2])
        assert likeness(picture, frame) > likeness(picture[:-2, :-2], frame[2:, 2:])


def test_stronger_compression_leaves_less_detail(image: Image) -> None:
    def left(crf: float) -> float:
        config = PlatformConfig(second_share=1, scale_share=0, first_crf=(18, 18), second_crf=(crf, crf))
        return float(
            np.mean([likeness(image, platform_video(image, np.random.default_rng(i), config)) for i in range(4)])
        )

    assert left(20) > left(30) > left(42) > 0.7


def test_motion_of_a_moved_turned_and_enlarged_head() -> None:
    still = template_landmarks(200)
    turn = cv2.getRotationMatrix2D((100, 100), 10, 1.2)
    turn[:, 2] += (20, 0)
    moved = still @ turn[:, :2].T + turn[:, 2]
    poses = motion_of(np.stack([still, moved]).astype(np.float32))
    np.testing.assert_array_equal(poses[0], 0)
    np.testing.assert_allclose(poses[1, 2:], [np.log(1.2), np.radians(10)], atol=0.02)
    assert 0.05 < poses[1, 0] < 0.2


def test_tracks_of_real_heads_replace_the_random_walk(image: Image, tmp_path: Path) -> None:
    still = np.zeros((1, 3, 4), np.float32)
    lively = still.copy()
    lively[0, :, 0] = (0, 0.2, 0.4)
    config = PlatformConfig(share=1, second_share=0, first_crf=(24, 24), half_rate_share=0)
    frames = []
    for name, tracks in (("still", still), ("lively", lively)):
        np.save(tmp_path / f"{name}.npy", tracks)
        setting = replace(NO_AUGMENTATION, platform=replace(config, tracks=str(tmp_path / f"{name}.npy")))
        frames.append(augment(image, template_landmarks(SIDE), SIDE, 4, setting)[0])
    assert (frames[0] != frames[1]).any()
    # Without motion the clip keeps more of the picture.
    assert likeness(image, frames[0]) > likeness(image, frames[1])
