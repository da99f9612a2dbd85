"""The network that finds covered faces: its patches, and its log-odds for any picture."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.faces.covered import PATCH_PX, cover_log_odds, cover_patches
from pipeline.types import Faces, Floats
from tests.media import face_picture

EYES_TO_MOUTH = np.array([[200, 108], [248, 106], [226, 130], [206, 158], [246, 157]], np.float32)


def faces_at(landmarks: Floats) -> Faces:
    """Faces with landmarks [N, 5, 2] in boxes around them."""
    boxes = np.concatenate([landmarks.min(axis=1) - 30, landmarks.max(axis=1) + 30], axis=1)
    return Faces.of(boxes, np.ones(len(landmarks), np.float32), landmarks)


@settings(max_examples=20)
@given(st.lists(st.tuples(st.floats(-300, 600), st.floats(-300, 600), st.floats(0.1, 4)), max_size=3))
def test_each_face_has_a_patch_wherever_it_is(places: list[tuple[float, float, float]]) -> None:
    landmarks = np.array([EYES_TO_MOUTH * size + (x, y) for x, y, size in places], np.float32).reshape(-1, 5, 2)
    patches = cover_patches(face_picture(), faces_at(landmarks))
    assert patches.shape == (len(places), PATCH_PX, PATCH_PX, 3)
    assert all(math.isfinite(cover_log_odds(patch)) for patch in patches)


@settings(max_examples=20)
@given(gain=st.floats(0.5, 0.9), offset=st.integers(0, 20))
def test_light_hardly_moves_the_log_odds(gain: float, offset: int) -> None:
    patch = cover_patches(face_picture(), faces_at(EYES_TO_MOUTH[None]))[0]
    lit = np.rint(patch * gain + offset).astype(np.uint8)
    assert cover_log_odds(lit) == pytest.approx(cover_log_odds(patch), abs=1.5)


def test_without_its_file_nothing_is_covered(tmp_path: Path) -> None:
    patch = np.zeros((PATCH_PX, PATCH_PX, 3), np.uint8)
    assert cover_log_odds(patch, tmp_path / "covers.npz") == -math.inf
