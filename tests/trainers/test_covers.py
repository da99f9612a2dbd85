"""Made covers, and the network that learns to see them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.faces.covered import PATCH_PX, cover_log_odds
from pipeline.types import Floats, Image
from tests.media import face_picture
from trainers.augment.covers import COVERS, Place
from trainers.covers import CoverNet, patches_of

LANDMARKS = np.array([[200, 108], [248, 106], [226, 130], [206, 158], [246, 157]], np.float32)


def crop(side: int = 112) -> tuple[Image, Floats]:
    """The astronaut's face, and its landmarks."""
    left, top, width = 168, 76, 112
    image = np.asarray(cv2.resize(face_picture()[top : top + width, left : left + width], (side, side)))
    return image, (LANDMARKS - np.array([left, top], np.float32)) * np.float32(side / width)


@pytest.mark.parametrize("kind", COVERS)
@settings(max_examples=2)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_cover_changes_only_what_it_is_opaque_on(kind: str, seed: int) -> None:
    image, landmarks = crop()
    covered, opacity = COVERS[kind](image, Place.of(landmarks), np.random.default_rng(seed))
    assert covered.shape == image.shape
    assert covered.dtype == np.uint8
    assert opacity.min() >= 0
    assert opacity.max() <= 1
    assert (covered == image)[opacity == 0].all()
    assert 0.02 < opacity.mean() < 0.8


def test_the_same_seed_draws_the_same_patches() -> None:
    image, landmarks = crop()
    first, second = (list(patches_of(image, landmarks, list(COVERS), np.random.default_rng(3))) for _ in range(2))
    assert [label for _, label in first] == [label for _, label in second]
    assert all((a == b).all() for (a, _), (b, _) in zip(first, second, strict=True))


def test_the_stored_network_has_the_trained_ones_log_odds(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network, patches = CoverNet(), torch.randint(0, 256, (8, 3, PATCH_PX, PATCH_PX)).float()
    network(patches)  # moves the normalisation's averages
    np.savez(tmp_path / "network.npz", allow_pickle=False, **network.stored())
    with torch.no_grad():
        natural, covered = network.eval()(patches).T.numpy()
    images = patches.permute(0, 2, 3, 1).numpy().astype(np.uint8)
    found = [cover_log_odds(image, tmp_path / "network.npz") for image in images]
    assert found == pytest.approx(covered - natural, abs=0.01)
