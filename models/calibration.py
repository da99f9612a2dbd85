"""From raw log-odds to calibrated ones: calibration, trust by quality, likelihood ratios."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

Knots = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class LikelihoodBounds:
    """The strongest likelihood ratios that the validation clips support, for fake and for real.

    The empirical lower and upper bound (ELUB): Vergeer et al., "Numerical likelihood ratios outputted by LR systems
    are often based on extrapolation: when to stop extrapolating?", Science & Justice 56, 2016.

    Attributes:
        lower: in 0..1; a smaller ratio is reported as this one.
        upper: from 1 on; a larger ratio is reported as this one.
        reals: validation clips behind the bounds.
        fakes: likewise.
    """

    lower: float
    upper: float
    reals: int
    fakes: int

    def __post_init__(self) -> None:
        if not (0 < self.lower <= 1 <= self.upper < math.inf):
            raise ValueError(f"likelihood bounds must enclose 1 and be finite, got {self.lower} and {self.upper}")
        if self.reals < 1 or self.fakes < 1:
            raise ValueError(f"likelihood bounds need reals and fakes, got {self.reals} and {self.fakes}")


@dataclass(frozen=True, slots=True)
class Calibration:
    """Log-odds of fake at equal priors: trust(quality) x g(logit), logit being that of fake minus that of real.

    g is Platt's line, scale x logit + bias ("Probabilistic outputs for support vector machines", 1999), or the broken
    line `curve` if it is set. The default changes nothing.

    Attributes:
        scale: slope of Platt's line.
        bias: the line's value at 0.
        curve: (logit, log-odds), rising; constant beyond the outer knots. Empty: Platt's line.
        quality: (quality, trust), not falling, both in 0..1; linear between the knots and constant beyond. Empty: 1
            everywhere. A trust of 0 makes every face even odds.
        bounds: None: likelihood ratios are not reported.
    """

    scale: float = 1.0
    bias: float = 0.0
    curve: Knots = ()
    quality: Knots = ()
    bounds: LikelihoodBounds | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0 and math.isfinite(self.bias)):
            raise ValueError(f"calibration needs a finite scale above 0 and a finite bias, got {self}")
        _check_knots("curve", self.curve)
        _check_knots("quality", self.quality)
        if not all(0 <= value <= 1 for knot in self.quality for value in knot):
            raise ValueError(f"quality must hold qualities and trusts in 0..1, got {self.quality}")

    def trust(self, quality: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """The share of the evidence that counts at a quality: float64 in 0..1, of the shape of `quality` (0..1)."""
        values = np.asarray(quality, np.float64)
        return _interpolated(values, self.quality) if self.quality else np.ones(values.shape)

    def log_odds(
        self, logits: npt.NDArray[np.floating], quality: npt.NDArray[np.floating] | None = None
    ) -> npt.NDArray[np.float64]:
        """Calibrated log-odds of fake at equal priors, natural logarithm: float64 of the shape of `logits`.

        Args:
            logits: log-odds of fake before calibration.
            quality: of the same shape, in 0..1; None: the best.
        """
        exact = np.asarray(logits, np.float64)
        odds = _interpolated(exact, self.curve) if self.curve else self.scale * exact + self.bias
        return odds if quality is None else self.trust(quality) * odds

    def probability(
        self, logits: npt.NDArray[np.floating], quality: npt.NDArray[np.floating] | None = None
    ) -> npt.NDArray[np.float32]:
        """Calibrated P(fake) at equal priors, float32 of the shape of `logits`; see `log_odds`."""
        return probability_of(self.log_odds(logits, quality))

    def likelihood_ratio(self, log_odds: float) -> float | None:
        """How many times more likely such scores are from a forged face than from a real one; None without bounds.

        At equal priors the posterior odds are the likelihood ratio; the bounds stop it where validation ends.
        """
        if self.bounds is None:
            return None
        low, high = math.log(self.bounds.lower), math.log(self.bounds.upper)
        return math.exp(min(max(log_odds, low), high))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; fields that change nothing are left out, as in older checkpoints."""
        values = asdict(self)
        for name in ("curve", "quality", "bounds"):
            if not values[name]:
                del values[name]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """The calibration that `to_dict` described.

        Raises:
            ValueError: a value is wrong.
            TypeError: a field is unknown or of the wrong type: ignoring it would change the scores.
        """
        if unknown := sorted(set(values) - {field.name for field in fields(cls)}):
            raise TypeError(f"unknown fields of the calibration: {', '.join(unknown)}")
        bounds = values.get("bounds")
        return cls(
            scale=values.get("scale", 1.0),
            bias=values.get("bias", 0.0),
            curve=_knots(values.get("curve", ())),
            quality=_knots(values.get("quality", ())),
            bounds=None if bounds is None else LikelihoodBounds(**bounds),
        )


def probability_of(log_odds: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """The probability with these log-odds (natural logarithm): float32 of the same shape."""
    # 1 / (1 + exp(-x)) overflows for large negative x; tanh does not.
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * np.asarray(log_odds, np.float64))), np.float32)


def _interpolated(values: npt.NDArray[np.float64], knots: Knots) -> npt.NDArray[np.float64]:
    x, y = np.array(knots, np.float64).T
    return np.asarray(np.interp(values, x, y), np.float64)


def _knots(values: Sequence[Sequence[float]]) -> Knots:
    return tuple((float(x), float(y)) for x, y in values)


def _check_knots(name: str, knots: Knots) -> None:
    if not knots:
        return
    values = np.array(knots, np.float64)
    rising = (np.diff(values[:, 0]) > 0).all() and (np.diff(values[:, 1]) >= 0).all()
    if len(values) < 2 or not np.isfinite(values).all() or not rising:
        raise ValueError(f"{name} needs two or more finite knots that rise in x and do not fall in y, got {knots}")
