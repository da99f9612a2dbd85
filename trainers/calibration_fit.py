"""Fits the parts of a `Calibration` on scores of known labels; both classes weigh one half, the prior of the result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from models.calibration import Calibration, Knots
from models.checkpoint_info import LOGIT_LIMIT
from models.errors import UnmaskError

Floats64 = npt.NDArray[np.float64]
Labels = npt.NDArray[np.integer]

# The broken line bends where its middle piece holds half of the scores: a straight line misses the tails.
_BENDS = (0.25, 0.75)
# A piece without data keeps Platt's slope: worth this many videos at a difference of 1.
_SLOPE_PRIOR = 5.0
_LEAST_SLOPE = 0.01
# Places of the trust's knots: quantiles of the scores, up to the quality where trust reaches 1.
_TRUST_KNOTS = 5
# Without data, trust falls in proportion to quality: worth this many videos at a difference of 1.
_TRUST_PRIOR = 10.0


class CalibrationError(UnmaskError, ValueError):
    """Weights cannot be calibrated; the message says why."""


class DetectsNothingError(CalibrationError):
    """Higher scores do not mean fake."""


def platt(label: Labels, logits: Floats64) -> Calibration:
    """Platt scaling (1999) at a prior of one half: logistic regression with equal total weight for both classes.

    Raises:
        DetectsNothingError: higher scores do not mean fake.
    """
    from sklearn.linear_model import LogisticRegression

    # A weak penalty keeps the scale finite if the classes are separated perfectly.
    fitted = LogisticRegression(C=1e3, class_weight="balanced").fit(logits[:, None], label)
    scale, bias = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    if scale <= 0:
        raise DetectsNothingError(
            "higher scores do not mean fake on the validation videos: these weights detect nothing"
        )
    return Calibration(scale=scale, bias=bias)


def broken_line(label: Labels, logits: Floats64, trust: Floats64, start: Calibration) -> Knots:
    """Three rising pieces through +-`LOGIT_LIMIT` by weighted logistic regression of trust x g(logit).

    Args:
        label: [V].
        logits: float64 [V], means of videos, within +-`LOGIT_LIMIT`.
        trust: float64 [V] in 0..1.
        start: Platt's line; slopes are pulled towards its slope.

    Returns:
        Four knots (logit, log-odds).
    """
    weights = balanced(label)
    bends = np.quantile(logits, _BENDS).clip(0.1 - LOGIT_LIMIT, LOGIT_LIMIT - 0.1)
    x = np.array([-LOGIT_LIMIT, bends[0], max(bends[1], bends[0] + 0.1), LOGIT_LIMIT])
    basis = trust[:, None] * np.column_stack([np.ones(len(logits)), _pieces(logits, x)])

    def loss(parameters: Floats64) -> tuple[float, Floats64]:
        value, slope = _log_loss(basis @ parameters, label, weights)
        away = parameters[1:] - start.scale
        gradient = basis.T @ slope
        gradient[1:] += _SLOPE_PRIOR * away
        return value + _SLOPE_PRIOR * float(away @ away) / 2, gradient

    first = np.array([start.bias - start.scale * LOGIT_LIMIT, *[start.scale] * 3])
    found = _minimized(loss, first, method="L-BFGS-B", bounds=[(None, None), *[(_LEAST_SLOPE, None)] * 3])
    values = np.concatenate([[found[0]], found[0] + np.cumsum(found[1:] * np.diff(x))])
    return tuple(zip(x.tolist(), values.tolist(), strict=True))


def trust_in_quality(
    label: Labels, log_odds: Floats64, quality: Floats64, weights: Floats64, *, whole_from: Sequence[float]
) -> Knots:
    """How much evidence counts at each quality: weighted logistic regression of trust(quality) x log-odds.

    Trust does not fall, is 0 at quality 0, reaches 1 at the value of `whole_from` that explains the labels best, and is
    linear between knots at quantiles of the qualities below.

    Args:
        label: [N].
        log_odds: float64 [N], of faces at the best quality.
        quality: float64 [N] in 0..1.
        weights: float64 [N], videos that each represents.
        whole_from: qualities above 0 to choose from.

    Returns:
        Knots (quality, trust), the first (0, 0); empty if no face is below the chosen one.
    """
    found = [_trust(label, log_odds, quality, weights, float(end)) for end in np.unique(whole_from)]
    return min(found, key=lambda each: each[0])[1]


def _trust(label: Labels, log_odds: Floats64, quality: Floats64, weights: Floats64, end: float) -> tuple[float, Knots]:
    """The penalised loss, and the knots."""
    below = quality[(quality < end) & (quality > 0)]
    inner = np.unique(np.round(np.quantile(below, np.arange(_TRUST_KNOTS) / _TRUST_KNOTS), 3)) if len(below) else below
    inner = inner[(inner > 0) & (inner < end)]
    if not len(inner):
        return _log_loss(log_odds, label, weights)[0], ()
    x = np.array([0.0, *inner, end])
    hats = np.column_stack([np.interp(quality, x, row) for row in np.eye(len(x))])
    proportional = inner / end
    free = hats[:, 1:-1] * log_odds[:, None]
    fixed = hats[:, -1] * log_odds

    def loss(trusts: Floats64) -> tuple[float, Floats64]:
        value, slope = _log_loss(free @ trusts + fixed, label, weights)
        away = trusts - proportional
        return value + _TRUST_PRIOR * float(away @ away) / 2, free.T @ slope + _TRUST_PRIOR * away

    rising = [{"type": "ineq", "fun": lambda trusts: np.diff(trusts)}] if len(inner) > 1 else []
    fitted = _minimized(loss, proportional, method="SLSQP", bounds=[(0.0, 1.0)] * len(inner), constraints=rising)
    trusts = np.maximum.accumulate(fitted.clip(0.0, 1.0))
    return loss(trusts)[0], ((0.0, 0.0), *zip(inner.tolist(), trusts.tolist(), strict=True), (end, 1.0))


def balanced(label: Labels, weights: Floats64 | None = None) -> Floats64:
    """Weights float64 [N] with the same sum as before, half of it for each class."""
    given = np.ones(len(label)) if weights is None else weights
    found = np.zeros(len(label))
    for which in (0, 1):
        of = label == which
        if of.any():
            found[of] = given[of] * (given.sum() / 2 / given[of].sum())
    return found


def _pieces(logits: Floats64, x: Floats64) -> Floats64:
    """How far each logit extends into each piece between the knots x: float64 [V, len(x) - 1]."""
    return np.asarray((logits[:, None] - x[:-1]).clip(0, np.diff(x)))


def _log_loss(odds: Floats64, label: Labels, weights: Floats64) -> tuple[float, Floats64]:
    """Weighted logistic loss in nats and its derivative by each of the log-odds."""
    signs = np.where(label == 1, 1.0, -1.0)
    margins = signs * odds
    return float(weights @ np.logaddexp(0, -margins)), -signs * weights / (1 + np.exp(margins.clip(-500, 500)))


def _minimized(loss: Any, first: Floats64, **how: Any) -> Floats64:
    from scipy.optimize import minimize  # type: ignore[import-untyped]

    result = minimize(loss, first, jac=True, options={"maxiter": 500}, **how)
    if not np.isfinite(result.x).all():
        raise CalibrationError(f"the calibration cannot be fitted: {result.message}")
    return np.asarray(result.x, np.float64)
