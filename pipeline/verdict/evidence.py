"""Combines the frames of a person. No pydantic here: training machines use the same code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.calibration import Calibration, probability_of
from models.checkpoint_info import LOGIT_LIMIT

Floats64 = npt.NDArray[np.float64]


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
        if self.count == 0:
            raise ZeroDivisionError("the mean of no logits")
        return float(LogitSums.of([self]).mean[0])

    def trust(self, calibration: Calibration | None) -> float:
        """The share of the evidence that counts, 0..1."""
        return float(LogitSums.of([self]).trust(calibration)[0])

    def log_odds(self, calibration: Calibration | None) -> float:
        """Calibrated log-odds of fake at equal priors.

        Raises:
            ZeroDivisionError: there are no logits.
        """
        if self.count == 0:
            raise ZeroDivisionError("the log-odds of no logits")
        return float(LogitSums.of([self]).log_odds(calibration)[0])

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


@dataclass(frozen=True, eq=False, slots=True)
class LogitSums:
    """S sums of frame logits at once.

    Attributes:
        values: float64 [5, S], the fields of `LogitSum` in their order.
    """

    values: Floats64

    @classmethod
    def of(cls, sums: Sequence[LogitSum]) -> LogitSums:
        """Of single ones."""
        return cls(np.array([[s.weighted, s.weight, s.plain, s.count, s.quality] for s in sums], np.float64).T)

    @classmethod
    def of_groups(
        cls,
        logits: npt.NDArray[np.floating],
        quality: npt.NDArray[np.floating],
        group: npt.NDArray[np.integer],
        calibration: Calibration | None,
    ) -> LogitSums:
        """Of the logits of each group, in the order of the groups' numbers. Arguments as in `LogitSum.of`."""
        rows = _rows(logits, quality, calibration)
        order = np.argsort(group, kind="stable")
        starts = np.unique(group[order], return_index=True)[1]
        return cls(np.add.reduceat(rows[:, order], starts, axis=1) if len(order) else rows)

    @classmethod
    def cumulative(
        cls, logits: npt.NDArray[np.floating], quality: npt.NDArray[np.floating], calibration: Calibration | None
    ) -> LogitSums:
        """Of the first 0, 1, 2 ... N logits: S is N + 1. Arguments as in `LogitSum.of`."""
        rows = _rows(logits, quality, calibration)
        return cls(np.concatenate([np.zeros((5, 1)), np.cumsum(rows, axis=1)], axis=1))

    def __getitem__(self, which: npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> LogitSums:
        return LogitSums(self.values[:, which])

    def __sub__(self, other: LogitSums) -> LogitSums:
        """What remains of each without the other; what rounding leaves of nothing is zero."""
        rest = self.values - other.values
        return LogitSums(np.where(np.abs(rest) < 1e-9, 0.0, rest))

    def one(self, i: int) -> LogitSum:
        """A single one."""
        weighted, weight, plain, count, quality = self.values[:, i].tolist()
        return LogitSum(weighted, weight, plain, round(count), quality)

    @property
    def count(self) -> Floats64:
        """float64 [S], how many logits."""
        return np.asarray(self.values[3], np.float64)

    @property
    def quality(self) -> Floats64:
        """float64 [S], sums of the qualities."""
        return np.asarray(self.values[4], np.float64)

    @property
    def mean(self) -> Floats64:
        """As of `LogitSum`: float64 [S], nan where there are no logits."""
        weighted, weight, plain, count, _ = self.values
        with np.errstate(divide="ignore", invalid="ignore"):
            mean: Floats64 = np.where(weight > 0, weighted / weight, plain / count)
        return mean

    def trust(self, calibration: Calibration | None) -> Floats64:
        """As of `LogitSum`: float64 [S]."""
        _, weight, _, _, quality = self.values
        with np.errstate(divide="ignore", invalid="ignore"):
            trust: Floats64 = np.where(quality > 0, weight / quality, (calibration or Calibration()).trust(np.zeros(1)))
        return trust

    def log_odds(self, calibration: Calibration | None) -> Floats64:
        """As of `LogitSum`: float64 [S], nan where there are no logits."""
        odds = (calibration or Calibration()).log_odds(self.mean.astype(np.float32))
        return np.asarray(self.trust(calibration) * odds, np.float64)


def _rows(
    logits: npt.NDArray[np.floating], quality: npt.NDArray[np.floating], calibration: Calibration | None
) -> Floats64:
    """float64 [5, N], the fields of the `LogitSum` of each single logit."""
    qualities = np.asarray(quality, np.float64)
    weights = qualities * (calibration or Calibration()).trust(qualities)
    clipped = np.clip(np.asarray(logits, np.float64), -LOGIT_LIMIT, LOGIT_LIMIT)
    return np.stack([clipped * weights, weights, clipped, np.ones_like(clipped), qualities])
