from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainers.crops import face
from trainers.augment.face import Face
from trainers.augment.masks import MASKS, PARTS, hard_mask, part_mask, soft_mask
from trainers.augment.mean_mesh import mean_mesh, signed_areas, triangles
from trainers.augment.outline import template_landmarks
from trainers.augment.warp import deform, warp

SIDE = 112
FACE = Face(face(0, SIDE), template_landmarks(SIDE))


@pytest.mark.parametrize("kind", MASKS)
def test_every_mask_covers_a_part_of_the_face_and_varies(kind: str) -> None:
    masks = [hard_mask(FACE, kind, np.random.default_rng(seed)) for seed in range(20)]
    for mask in masks:
        assert set(np.unique(mask)) == {0.0, 1.0}
        assert 0.004 <= mask.mean() < 0.95
    assert len({mask.tobytes() for mask in masks}) > 15


def test_holes_leave_out_a_part_of_the_whole_face() -> None:
    eye = np.rint(FACE.landmarks[0]).astype(int)
    left_out = [hard_mask(FACE, "holes", np.random.default_rng(seed))[eye[1], eye[0]] == 0 for seed in range(40)]
    assert 5 < sum(left_out) < 35
    assert hard_mask(FACE, "full", np.random.default_rng(0))[eye[1], eye[0]] == 1


@pytest.mark.parametrize("part", PARTS)
def test_parts_are_at_the_right_place(part: str) -> None:
    mesh = np.asarray(mean_mesh()[:, :2] * 40 + [SIDE / 2, 35], np.float32)
    rows, columns = np.nonzero(part_mask(mesh, part, (SIDE, SIDE)))
    if part.startswith(("left", "right")):
        assert (columns.mean() < SIDE / 2) == part.startswith("left")
    if part.endswith("eye"):
        assert rows.mean() < 40
    if part.endswith(("jaw", "mouth")):
        assert rows.mean() > 70


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), low=st.floats(0.001, 0.05), more=st.floats(0, 0.1), elastic=st.floats(0, 0.1))
def test_soft_masks_reach_one_and_stay_in_range(seed: int, low: float, more: float, elastic: float) -> None:
    rng = np.random.default_rng(seed)
    hard = hard_mask(FACE, MASKS[seed % len(MASKS)], rng)
    soft = soft_mask(hard, rng, (low, low + more), elastic=elastic)
    assert soft.max() == pytest.approx(1)
    assert soft.min() >= 0


def test_the_triangulation_covers_the_mesh_once() -> None:
    points = mean_mesh()[:, :2]
    areas = signed_areas(points, triangles())
    assert (areas > 0).all()
    assert set(triangles().ravel().tolist()) == set(range(len(points)))


def test_a_warp_onto_itself_changes_nothing() -> None:
    mesh = np.asarray(mean_mesh()[:, :2] * 40 + [SIDE / 2, 35], np.float32)
    moved, drawn = warp(FACE.image, mesh, mesh, triangles(), (SIDE, SIDE))
    inside = drawn > 0
    assert inside.mean() > 0.3
    assert np.abs(moved[inside].astype(int) - FACE.image[inside]).max() <= 1
    assert np.abs(deform(FACE.image, mesh, mesh).astype(int) - FACE.image).max() <= 1


def test_a_warp_moves_pixels_with_the_mesh() -> None:
    mesh = np.asarray(mean_mesh()[:, :2] * 30 + [SIDE / 2, 40], np.float32)
    moved, drawn = warp(FACE.image, mesh, mesh + np.array([6, -4], np.float32), triangles(), (SIDE, SIDE))
    shifted = np.roll(FACE.image, (-4, 6), axis=(0, 1))
    assert np.abs(moved[drawn > 0].astype(int) - shifted[drawn > 0]).max() <= 1
