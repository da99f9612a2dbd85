"""Combines the frames of a person. No pydantic here: training machines use the same code."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.calibration import Calibration, probability_of
from models.checkpoint_info import LOGIT_LIMIT


def track_probability(
    logits: npt.NDArray[np.floating], quality: npt.NDArray[np.floating], calibration: Calibration | None
) -> float:
    """Calibrated P(fake) of a track, see `LogitSum`.

    Args:
        logits: [N], log-odds of fake, N at least 1.
        quality: [N], weights in 0..1; all zero counts as equal weights.
    """
    return LogitSum.of(logits, quality, calibration).probability(calibration)


@dataclass(frozen=True, slots=True)
class LogitSum:
    """The frame logits of a track as sums, which determine its probability.

    With logits x clipped to +-`LOGIT_LIMIT`, qualities q, and the calibration's trust s(q) and line g, the track's
    log-odds are (sum q s / sum q) x g(sum q s x / sum q s): poor frames say less about the face, and a track of only
    poor frames says little. For a straight g this is the mean, weighted by q, of the frames' own s(q) g(x); for a
    single frame always.

    Attributes:
        weighted: sum of the clipped logits times weight.
        weight: sum of quality times trust.
        plain: sum of the clipped logits.
        count: how many.
        quality: sum of the qualities.
    """

    weighted: float = 0.0
    weight: float = 0.0
    plain: float = 0.0
    count: int = 0
    quality: float = 0.0

    @classmethod
    def of(
        cls,
        logits: npt.NDArray[np.floating],
        quality: npt.NDArray[np.floating],
        calibration: Calibration | None = None,
    ) -> LogitSum:
        """Of logits [N] and their quality [N] in 0..1, with the trust that the weights' calibration has in each."""
        qualities = np.asarray(quality, np.float64)
        weights = qualities * (calibration or Calibration()).trust(qualities)
        clipped = np.clip(np.asarray(logits, np.float64), -LOGIT_LIMIT, LOGIT_LIMIT)
        return cls(
            float(clipped @ weights),
            float(weights.sum()),
            float(clipped.sum()),
            len(clipped),
            float(qualities.sum()),
        )

    def __add__(self, other: LogitSum) -> LogitSum:
        return LogitSum(
            self.weighted + other.weighted,
            self.weight + other.weight,
            self.plain + other.plain,
            self.count + other.count,
            self.quality + other.quality,
        )

    @property
    def mean(self) -> float:
        """The weighted mean of the clipped logits; the plain mean if all weights are zero.

        Raises:
            ZeroDivisionError: there are no logits.
        """
        return self.weighted / self.weight if self.weight > 0 else self.plain / self.count

    def trust(self, calibration: Calibration | None) -> float:
        """The share of the evidence that counts, 0..1."""
        if self.quality > 0:
            return self.weight / self.quality
        return float((calibration or Calibration()).trust(np.zeros(1))[0])

    def log_odds(self, calibration: Calibration | None) -> float:
        """Calibrated log-odds of fake at equal priors.

        Raises:
            ZeroDivisionError: there are no logits.
        """
        odds = (calibration or Calibration()).log_odds(np.array([self.mean], np.float32))
        return self.trust(calibration) * float(odds[0])

    def probability(self, calibration: Calibration | None) -> float:
        """Calibrated P(fake), see `log_odds`.

        Raises:
            ZeroDivisionError: there are no logits.
        """
        return float(probability_of(np.array(self.log_odds(calibration))))

    def likelihood_ratio(self, calibration: Calibration | None) -> float | None:
        """How many times more likely the scores are if the face is forged; None without bounds from validation.

        Raises:
            ZeroDivisionError: there are no logits.
        """
        return None if calibration is None else calibration.likelihood_ratio(self.log_odds(calibration))
