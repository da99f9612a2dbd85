"""From log-odds to calibrated probabilities, and from a probability to a word."""

from __future__ import annotations

import numpy as np

from models.checkpoint_info import Calibration, Thresholds
from pipeline.contracts import Label
from pipeline.types import Floats


def probability(logits: Floats, calibration: Calibration | None) -> Floats:
    """Calibrated P(fake), float32 of the shape of `logits` (log-odds of fake); without calibration their sigmoid."""
    platt = calibration or Calibration()
    # 1 / (1 + exp(-x)) overflows for large negative x; tanh does not.
    scaled = platt.scale * np.asarray(logits, np.float64) + platt.bias
    return (0.5 * (1.0 + np.tanh(0.5 * scaled))).astype(np.float32)


def thresholds_for(thresholds: Thresholds, people: int) -> tuple[float, float]:
    """The thresholds (real, fake) for a clip in which `people` persons were judged; beyond the last k its values hold.

    Raises:
        ValueError: `people` is less than 1.
    """
    if people < 1:
        raise ValueError(f"thresholds need at least one judged person, got {people}")
    k = min(people, len(thresholds.fake)) - 1
    return thresholds.real[k], thresholds.fake[k]


def label(clip_probability: float, people: int, thresholds: Thresholds | None) -> Label:
    """The word for a clip in which `people` persons were judged; `inconclusive` without thresholds.

    Raises:
        ValueError: `people` is less than 1.
    """
    if thresholds is None:
        return Label.INCONCLUSIVE
    real, fake = thresholds_for(thresholds, people)
    if clip_probability >= fake:
        return Label.FAKE
    return Label.REAL if clip_probability < real else Label.INCONCLUSIVE
