"""How strong a likelihood ratio the validation clips support: the empirical lower and upper bound (ELUB)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats64 = npt.NDArray[np.float64]


def elub(labels: npt.NDArray[np.integer], log_odds: Floats64, weights: Floats64 | None = None) -> tuple[float, float]:
    """The likelihood ratios beyond which decisions based on them are no better than decisions without them.

    Vergeer, van Es, de Jongh, Alberink and Stoel, "Numerical likelihood ratios outputted by LR systems are often based
    on extrapolation: when to stop extrapolating?", Science & Justice 56, 2016: one misleading clip of either class is
    added to the data. Calling a clip fake if its ratio exceeds t, with a false alarm t times as costly
    as a miss, costs P(LR <= t | fake) + t P(LR > t | real); ignoring the ratio costs min(1, t). The bounds are the
    ends of the range of t around 1 in which the former costs less. The added clip keeps the upper one below the number
    of reals plus one, and the lower one above 1 / (number of fakes plus one).

    Args:
        labels: [N], 0 real and 1 fake.
        log_odds: float64 [N], calibrated at equal priors, natural logarithm.
        weights: float64 [N], how many clips each represents; None: one each.

    Returns:
        The lower and the upper bound, with 0 < lower <= 1 <= upper.

    Raises:
        ValueError: a class is missing.
    """
    counts = np.ones(len(labels)) if weights is None else weights
    reals, fakes = labels == 0, labels == 1
    if counts[reals].sum() <= 0 or counts[fakes].sum() <= 0:
        raise ValueError("bounds of likelihood ratios need reals and fakes")
    upper = _upper(log_odds[reals], counts[reals], log_odds[fakes], counts[fakes])
    # For the other side, reals are the target class and 1 / LR is their ratio.
    lower = _upper(-log_odds[fakes], counts[fakes], -log_odds[reals], counts[reals])
    return 1 / lower, upper


def _upper(against: Floats64, against_weight: Floats64, match: Floats64, match_weight: Floats64) -> float:
    """The first t from 1 on at which misses + t x false alarms reach 1."""
    steps = np.unique(np.concatenate([[0.0], against[against > 0], match[match > 0]]))
    false_alarms = (_above(against, against_weight, steps) + 1) / (against_weight.sum() + 1)
    found = _above(match, match_weight, steps) / (match_weight.sum() + 1)
    # Between two steps both shares are constant: the loss reaches 1 at t = found / false alarms, or not at all.
    crossing = np.log(np.maximum(found, 1e-300) / false_alarms)
    ends = np.append(steps[1:], np.inf)
    first = int(np.flatnonzero(crossing < ends)[0])
    return float(np.exp(max(steps[first], crossing[first])))


def _above(values: Floats64, weights: Floats64, steps: Floats64) -> Floats64:
    """Weight of the values above each step."""
    order = np.argsort(values)
    tail = np.concatenate([[0.0], np.cumsum(weights[order])])
    return np.asarray(tail[-1] - tail[np.searchsorted(values[order], steps, side="right")])
