"""Metrics of weighted items, many weightings at once: what `trainers.metrics` and its bootstrap are computed with.

R weightings of N items make [R, T + 1] counts of fakes and of reals at or above each of T thresholds, and every metric
is a function of those two. nan if a class has no weight.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.integer]
Scores = npt.NDArray[np.floating]

ECE_BINS = 15
# A probability in float32 may round to 0 or 1, at an infinite cost; it resolves 24 bits.
TINY = 2.0**-24


class Ranking:
    """N items in falling order of their scores."""

    def __init__(self, labels: Labels, scores: Scores) -> None:
        _check(labels, scores)
        self.order = np.argsort(-scores, kind="stable")
        ranked = scores[self.order]
        self.starts = np.flatnonzero(np.concatenate([np.ones(min(1, len(ranked)), bool), ranked[1:] != ranked[:-1]]))
        self.thresholds = ranked[self.starts].astype(np.float64)
        self.fake = (labels[self.order] == 1).astype(np.float64)

    def cumulated(self, weights: Array) -> tuple[Array, Array]:
        """Weight of the fakes and of the reals at or above each threshold, [R, T + 1]; the first column is 0."""
        ordered = weights[:, self.order]
        counts = []
        for part in (ordered * self.fake, ordered * (1 - self.fake)):
            total = np.zeros((len(weights), len(self.starts) + 1))
            if len(self.starts):
                np.cumsum(np.add.reduceat(part, self.starts, axis=1), axis=1, out=total[:, 1:])
            counts.append(total)
        return counts[0], counts[1]


def auc(fakes: Array, reals: Array) -> Array:
    """Area under each ROC curve by trapezoids, [R]; fakes and reals as `Ranking.cumulated` gives them."""
    area = (np.diff(reals) * (fakes[:, 1:] + fakes[:, :-1])).sum(1) / 2
    return share(area, fakes[:, -1] * reals[:, -1])


def eer(fakes: Array, reals: Array) -> Array:
    """Where each ROC curve, joined by straight lines, has as many false alarms as misses, [R]."""
    alarms, misses = share(reals, reals[:, -1:]), 1 - share(fakes, fakes[:, -1:])
    gap = alarms - misses
    # From -1 at the first threshold to 1 at the last: it crosses 0 once, between two columns.
    after = np.maximum(1, np.argmax(gap >= 0, axis=1))[:, None] if gap.shape[1] > 1 else np.zeros((len(gap), 1), int)
    before = np.maximum(0, after - 1)
    gaps, rates = ([np.take_along_axis(a, i, 1)[:, 0] for i in (before, after)] for a in (gap, alarms))
    return np.asarray(rates[0] - gaps[0] * share(rates[1] - rates[0], gaps[1] - gaps[0]))


def average_precision(fakes: Array, reals: Array) -> Array:
    """Precision at each threshold weighted by the recall that it adds, [R]."""
    added, total = np.diff(fakes), (fakes + reals)[:, 1:]
    # A threshold that no drawn item reaches adds nothing, and has no precision.
    precision = np.where(total > 0, fakes[:, 1:] / np.where(total > 0, total, 1), 0)
    return share((added * precision).sum(1), fakes[:, -1])


def tpr_at(fakes: Array, reals: Array, fpr: float) -> Array:
    """Share of fakes at the lowest threshold that at most `fpr` of the reals reach, [R]."""
    last = (share(reals, reals[:, -1:]) <= fpr).sum(1) - 1
    return share(np.take_along_axis(fakes, np.maximum(last, 0)[:, None], 1)[:, 0], fakes[:, -1])


def cllr_min(fakes: Array, reals: Array) -> Array:
    """Cllr of the best rising calibration of the scores, [R]: the loss due to ranking alone.

    The pool-adjacent-violators algorithm finds it: Bruemmer and du Preez, "Application-independent evaluation of
    speaker detection", Computer Speech & Language 20, 2006.
    """
    from sklearn.isotonic import isotonic_regression

    found = np.full(len(fakes), np.nan)
    per_fake = np.diff(share(fakes, fakes[:, -1:])) / 2
    per_real = np.diff(share(reals, reals[:, -1:])) / 2
    for row, (fake, real) in enumerate(zip(per_fake, per_real, strict=True)):
        weight = fake + real
        present = weight > 0
        if not present.any() or not np.isfinite(weight).all():
            continue
        fake, real, weight = fake[present], real[present], weight[present]
        # In falling order of the scores, the share of fakes falls.
        chance = isotonic_regression(fake / weight, sample_weight=weight, increasing=False)
        # Scores that separate nothing cost 1; rounding can exceed it.
        found[row] = min(1.0, -float((xlog2(fake, chance) + xlog2(real, 1 - chance)).sum()))
    return found


def xlog2(weight: Array, chance: Array) -> Array:
    """weight x log2(chance), 0 for zero weight."""
    return np.asarray(np.where(weight > 0, weight * np.log2(np.where(chance > 0, chance, TINY)), 0.0))


class Costs:
    """The cost of N probabilities in bits: -log2 of the probability of each item's class."""

    def __init__(self, labels: Labels, probability: Scores) -> None:
        _check(labels, probability)
        exact = probability.astype(np.float64).clip(TINY, 1 - TINY)
        self.fake = (labels == 1).astype(np.float64)
        self.bits = -np.log2(np.where(labels == 1, exact, 1 - exact))

    def cllr(self, weights: Array) -> Array:
        """The mean over the fakes and the mean over the reals, averaged, of weights [R, N]: [R]."""
        fakes, reals = weights @ self.fake, weights @ (1 - self.fake)
        lost_fakes, lost_reals = weights @ (self.fake * self.bits), weights @ ((1 - self.fake) * self.bits)
        return np.asarray((share(lost_fakes, fakes) + share(lost_reals, reals)) / 2)


class Bins:
    """N items in equal-width bins of their probabilities, each bin closed above."""

    def __init__(self, labels: Labels, probability: Scores) -> None:
        _check(labels, probability)
        exact = probability.astype(np.float64)
        if len(exact) and not (exact.min() >= 0 and exact.max() <= 1):
            raise ValueError("a calibration error needs probabilities in 0..1")
        edges = np.linspace(0, 1, ECE_BINS + 1)[1:-1]
        member = np.searchsorted(edges, exact)[:, None] == np.arange(ECE_BINS)
        fake = (labels == 1)[:, None]
        parts = [member & fake, member & ~fake]
        self.columns = np.hstack([*parts, *(part * exact[:, None] for part in parts)]).astype(np.float64)

    def sums(self, weights: Array) -> Sums:
        """Sums in each bin for weights [R, N]."""
        return Sums(*np.hsplit(weights @ self.columns, 4))


class Sums(NamedTuple):
    """Weights, and weights times probabilities, of fakes and reals in the bins: [R, bins] each."""

    fakes: Array
    reals: Array
    fakes_confidence: Array
    reals_confidence: Array

    def error(self, *, balanced: bool) -> Array:
        """Expected calibration error, [R]; `balanced`: with fakes and reals weighted to one half each."""
        fakes, reals = self.fakes.sum(1, keepdims=True), self.reals.sum(1, keepdims=True)
        if balanced:
            per_fake, per_real = share(0.5, fakes), share(0.5, reals)
        else:
            per_fake = per_real = share(1.0, fakes + reals)
        gap = per_fake * (self.fakes - self.fakes_confidence) - per_real * self.reals_confidence
        return np.asarray(np.abs(gap).sum(1))

    def fakes_at_equal_priors(self) -> Array:
        """Share of fakes in each bin, with fakes and reals weighted to one half each, [R, bins]; nan where empty."""
        fakes = share(self.fakes, self.fakes.sum(1, keepdims=True))
        reals = share(self.reals, self.reals.sum(1, keepdims=True))
        return share(fakes, fakes + reals)


def share(part: Array | float, whole: Array) -> Array:
    """part / whole, nan if the whole is 0."""
    return np.asarray(np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan))


def _check(labels: Labels, scores: Scores) -> None:
    if labels.shape != scores.shape or labels.ndim != 1:
        raise ValueError(f"labels and scores must be of one length, got {labels.shape} and {scores.shape}")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels must be 0 (real) or 1 (fake)")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite: leave out the items without one")
