"""Several detectors as one: the mean of their calibrated log-odds, and the thresholds that go with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.calibration import Calibration, Knots, LikelihoodBounds
from models.checkpoint_info import LOGIT_LIMIT, MAX_PEOPLE, Thresholds

# Thresholds of 0 and 1 have no finite log-odds.
_SURE = 1e-9


@dataclass(frozen=True, slots=True)
class Combination:
    """How the log-odds of M members become those of the ensemble.

    Each member's log-odds are held within +-LOGIT_LIMIT, so that one outlier cannot outvote the others, go through
    that member's own calibration, and are averaged. A single member stays as it is.

    Attributes:
        members: calibration of each.
        scale: the mean is divided by it, and `calibration` multiplies by it again: so the mean stays within
            +-LOGIT_LIMIT, and the limit on frames changes nothing. It is 1 unless a calibration exceeds the limit.
    """

    members: tuple[Calibration, ...]
    scale: float

    @classmethod
    def of(cls, calibrations: Sequence[Calibration]) -> Combination:
        """Of the members' calibrations, at least one."""
        ends = np.array([-LOGIT_LIMIT, LOGIT_LIMIT])
        furthest = max(float(np.abs(each.log_odds(ends)).max()) for each in calibrations)
        return cls(tuple(calibrations), max(1.0, furthest / LOGIT_LIMIT))

    @property
    def calibration(self) -> Calibration:
        """What turns the result of `combine` into probabilities.

        The trust in a quality is the mean of the members', which equals weighting each member's log-odds by its own
        trust where all members trust alike. Likelihood ratios keep to the narrowest bounds of the members, and are not
        reported if a member has none.
        """
        if len(self.members) == 1:
            return self.members[0]
        return Calibration(scale=self.scale, quality=_mean_trust(self.members), bounds=_narrowest(self.members))

    def combine(self, logits: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """The ensemble's log-odds before `calibration`.

        Args:
            logits: [M, N], log-odds of fake before calibration, of each member.

        Returns:
            float32 [N].
        """
        if len(self.members) == 1:
            return np.asarray(logits[0], np.float32)
        clipped = np.clip(np.asarray(logits, np.float64), -LOGIT_LIMIT, LOGIT_LIMIT)
        calibrated = [each.log_odds(row) for each, row in zip(self.members, clipped, strict=True)]
        return np.asarray(np.mean(calibrated, axis=0) / self.scale, np.float32)


def combined_thresholds(members: Sequence[Thresholds | None]) -> Thresholds | None:
    """Thresholds of an ensemble: the mean of its members' in log-odds; None where a member has none.

    The (1 - fpr) quantile of a mean is at most the mean of the quantiles for elliptical distributions, such as the
    normal one, and equal to it where the members always agree (subadditivity of value at risk: McNeil, Frey, Embrechts,
    "Quantitative Risk Management", 2005, theorem 6.8). So the ensemble calls at most about `fpr` of the reals fake,
    or fewer. Whatever the distribution, a clip above the mean threshold is above that of at least one member, so
    the rate is at most the sum of the members' rates.
    """
    known = [each for each in members if each is not None]
    if len(known) < len(members) or not known:
        return None
    if len(known) == 1:
        return known[0]

    def mean(rows: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
        odds = [[_logit(value) for value in row] for row in rows]
        return tuple(1 / (1 + math.exp(-sum(row[k] for row in odds) / len(odds))) for k in range(MAX_PEOPLE))

    # The chance differences of a mean are at most the mean of the members' own (Minkowski's inequality).
    contrasts = zip(*(each.contrast for each in known), strict=False)
    return Thresholds(
        max(each.fpr for each in known),
        mean([each.fake for each in known]),
        mean([each.real for each in known]),
        tuple(sum(row) / len(row) for row in contrasts),
    )


def _mean_trust(members: Sequence[Calibration]) -> Knots:
    """Trust by quality, averaged over the members at the qualities of all their knots; empty: 1 everywhere."""
    qualities = np.unique([quality for member in members for quality, _ in member.quality])
    if not len(qualities):
        return ()
    trusts = np.mean([member.trust(qualities) for member in members], axis=0)
    return tuple(zip(qualities.tolist(), trusts.tolist(), strict=True))


def _narrowest(members: Sequence[Calibration]) -> LikelihoodBounds | None:
    known = [member.bounds for member in members if member.bounds is not None]
    if len(known) < len(members):
        return None
    return LikelihoodBounds(
        lower=max(bounds.lower for bounds in known),
        upper=min(bounds.upper for bounds in known),
        reals=min(bounds.reals for bounds in known),
        fakes=min(bounds.fakes for bounds in known),
    )


def _logit(probability: float) -> float:
    held = min(max(probability, _SURE), 1 - _SURE)
    return math.log(held / (1 - held))
