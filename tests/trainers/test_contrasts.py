"""The contrast that a short stretch of a track needs."""

from __future__ import annotations

import numpy as np

from models.calibration import Calibration
from models.checkpoint_header import read_info
from models.checkpoint_info import FEWEST_FRAMES
from models.zoo import resolve
from trainers.segments import Sequence, contrasts


def sequences(logits: np.ndarray) -> list[Sequence]:
    """Seven videos and three copies of each."""
    return [(logits, np.ones(len(logits)))] * 28


def test_videos_without_a_stretch_that_scores_as_fake_give_the_least_contrasts() -> None:
    """They cannot show that less is enough."""
    found = contrasts(sequences(np.full(40, -3.0)), Calibration(), 0.97, repeats=2)
    thresholds = read_info(resolve("unmask-small")).thresholds
    assert thresholds is not None
    assert found == thresholds.contrast


def test_real_stretches_that_score_as_fake_raise_the_contrasts() -> None:
    logits = np.full(FEWEST_FRAMES * 5, -6.0)
    logits[3:7] = 6.0
    found = contrasts(sequences(logits), Calibration(), 0.97, repeats=4)
    assert list(found) == sorted(found)
    assert found[-1] > 8


def test_too_few_videos_give_no_contrast() -> None:
    assert contrasts(sequences(np.full(40, -3.0))[:15], Calibration(), 0.97) == ()
