"""From log-odds to calibrated probabilities, and from a probability to a word."""

from __future__ import annotations

from models.checkpoint_info import Calibration, Thresholds
from pipeline.contracts import Label
from pipeline.types import Floats


def probability(logits: Floats, calibration: Calibration | None) -> Floats:
    """Calibrated P(fake), float32 of the shape of `logits` (log-odds of fake); without calibration their sigmoid."""
    return (calibration or Calibration()).probability(logits)


def label(clip_probability: float, people: int, thresholds: Thresholds | None) -> Label:
    """The word for a clip in which `people` persons were judged; `inconclusive` without thresholds.

    Raises:
        ValueError: `people` is less than 1.
    """
    if thresholds is None:
        return Label.INCONCLUSIVE
    real, fake = thresholds.of(people)
    if clip_probability >= fake:
        return Label.FAKE
    return Label.REAL if clip_probability < real else Label.INCONCLUSIVE
