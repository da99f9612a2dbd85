"""Scene cuts, and whether a face is the same."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.faces.appearance import SceneCut, face_appearance
from tests.media import Scene, face_picture

ALWAYS = (0.0, float("inf"))
BOX = np.array([180, 62, 266, 172], np.float32)


def scene(seed: int, width: int = 640) -> Scene:
    return Scene(width, 360, people=(ALWAYS,), face_px=(100, 125), seed=seed)


def test_motion_within_a_scene_is_not_a_cut() -> None:
    cut = SceneCut()
    assert not any(cut.update(scene(0).render(t_s)) for t_s in (0.0, 0.5, 1.0, 3.0))


def test_another_scene_is_a_cut_and_so_is_black() -> None:
    cut = SceneCut()
    black = np.zeros((360, 640, 3), np.uint8)
    bright = np.full((360, 640, 3), 230, np.uint8)
    assert [cut.update(image) for image in (scene(0).render(0), black, black, bright, scene(1).render(0))] == [
        False, True, False, True, True,
    ]  # fmt: skip


@pytest.mark.parametrize("shape", [(1, 1), (3, 900), (2000, 5)])
def test_frames_of_any_size_have_an_appearance(shape: tuple[int, int]) -> None:
    assert SceneCut().update(np.zeros((*shape, 3), np.uint8)) is False


def test_a_face_is_like_itself_and_little_like_others() -> None:
    image = face_picture()
    look = face_appearance(image, BOX)
    assert look @ look == pytest.approx(1, abs=1e-5)
    darker = (image * 0.6 + 20).astype(np.uint8)
    assert look @ face_appearance(darker, BOX + 2) > 0.9
    assert look @ face_appearance(np.ascontiguousarray(image[::-1]), BOX) < 0.4


def test_a_plain_picture_is_like_nothing() -> None:
    plain = face_appearance(np.full((100, 100, 3), 50, np.uint8), np.array([10, 10, 60, 60], np.float32))
    assert not plain.any()
