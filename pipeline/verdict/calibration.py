"""From log-odds to calibrated probabilities, and from a probability to a label."""

from __future__ import annotations

from models.checkpoint_info import Calibration, Thresholds
from pipeline.contracts import Label
from pipeline.types import Floats


def probability(logits: Floats, calibration: Calibration | None, quality: Floats | None = None) -> Floats:
    """Calibrated P(fake) of single faces, float32 of the shape of `logits`; without calibration their sigmoid.

    Args:
        logits: log-odds of fake before calibration.
        calibration: of the weights.
        quality: of the faces, in 0..1, same shape; None: the best.
    """
    return (calibration or Calibration()).probability(logits, quality)


def label(clip_probability: float, people: int, thresholds: Thresholds | None) -> Label:
    """The label for a clip in which `people` persons were judged; `inconclusive` without thresholds.

    Raises:
        ValueError: `people` is less than 1.
    """
    if thresholds is None:
        return Label.INCONCLUSIVE
    real, fake = thresholds.of(people)
    if clip_probability >= fake:
        return Label.FAKE
    return Label.REAL if clip_probability < real else Label.INCONCLUSIVE
