"""How well scores separate fakes from reals: pure functions over labels and scores, and their bootstrap over videos.

Labels are 0 for real and 1 for fake; a higher score means fake. Metrics of both classes are nan if one is missing.
All of them use the same weighted counts, one row of weights for each bootstrap resample, so that an interval
belongs to exactly the number next to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.checkpoint_info import LOGIT_LIMIT
from models.errors import UnmaskError
from trainers import weighted
from trainers.weighted import Array, Labels, Scores

Index = npt.NDArray[np.int64]

FPRS = (0.001, 0.01, 0.05)
# Ten reals above the threshold: with fewer, its position depends on a handful of pictures.
REALS_ABOVE = 10
# Elements of one chunk of weights: 32 MB as float64, which stays near the caches and bounds memory.
_CHUNK = 1 << 22
# A resample without one of the classes has no AUC. If more than this share lacks one, no interval is given.
_UNDEFINED_AT_MOST = 0.1

TPR_AT = {fpr: f"tpr_at_{fpr:g}_fpr" for fpr in FPRS}
_OF_COUNTS: dict[str, Callable[[Array, Array], Array]] = {
    "auc": weighted.auc,
    "eer": weighted.eer,
    "ap": weighted.average_precision,
    **{name: partial(weighted.tpr_at, fpr=fpr) for fpr, name in TPR_AT.items()},
    "cllr_min": weighted.cllr_min,
}
_OF_PROBABILITIES = ("cllr", "ece", "ece_balanced")
METRICS = (*_OF_COUNTS, *_OF_PROBABILITIES)


class MixedVideoError(UnmaskError, ValueError):
    """The frames of a video have both labels; the message names it."""


class Roc(NamedTuple):
    """A receiver operating characteristic, float64 [T + 1] each, from (0, 0) to (1, 1).

    Attributes:
        fpr: share of reals at or above the threshold.
        tpr: share of fakes at or above it.
        thresholds: falling; the first is infinite.
    """

    fpr: Array
    tpr: Array
    thresholds: Array


class Reliability(NamedTuple):
    """The data behind an ECE: equal-width bins of the probability, float64 [bins] each; nan in empty bins.

    Attributes:
        items: how many the bin holds.
        confidence: mean probability.
        fakes: share of fakes.
        balanced: share of fakes with both classes weighted to one half each; nan where a class is missing.
        low: lower end of its interval; nan if missing.
        high: upper end.
    """

    items: Array
    confidence: Array
    fakes: Array
    balanced: Array
    low: Array
    high: Array


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % bootstrap interval.

    Attributes:
        value: None if it cannot be computed.
        low: lower end of the interval; None if missing.
        high: upper end.
        reason: why there is no value, or no interval; None if both exist.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None


def roc_curve(labels: Labels, scores: Scores) -> Roc:
    """The curve through every distinct score; equal scores give one point.

    Args:
        labels: [N], 0 or 1.
        scores: [N], finite.

    Raises:
        ValueError: invalid labels, different shapes, or scores that are not finite.
    """
    ranking = weighted.Ranking(labels, scores)
    fakes, reals = ranking.cumulated(np.ones((1, len(labels))))
    thresholds = np.concatenate([[np.inf], ranking.thresholds])
    return Roc(weighted.share(reals, reals[:, -1:])[0], weighted.share(fakes, fakes[:, -1:])[0], thresholds)


def roc_auc(labels: Labels, scores: Scores) -> float:
    """Area under the ROC curve: how often a fake scores above a real, ties counting half.

    Raises:
        ValueError: as `roc_curve`.
    """
    return _point("auc", labels, scores)


def eer(labels: Labels, scores: Scores) -> float:
    """Equal error rate: where the ROC curve, joined by straight lines, has as many false alarms as misses.

    Raises:
        ValueError: as `roc_curve`.
    """
    return _point("eer", labels, scores)


def average_precision(labels: Labels, scores: Scores) -> float:
    """Precision at each threshold, weighted by the recall it adds (no interpolation).

    Raises:
        ValueError: as `roc_curve`.
    """
    return _point("ap", labels, scores)


def tpr_at_fpr(labels: Labels, scores: Scores, fpr: float) -> float | None:
    """Share of fakes found at a threshold that calls at most `fpr` of the reals fake; no interpolation.

    Returns:
        None if there are too few reals to place that threshold (`reals_needed`), or there are no fakes.

    Raises:
        ValueError: as `roc_curve`.
    """
    fakes, reals = weighted.Ranking(labels, scores).cumulated(np.ones((1, len(labels))))
    if fakes[0, -1] == 0 or reals[0, -1] < reals_needed(fpr):
        return None
    return float(weighted.tpr_at(fakes, reals, fpr)[0])


def reals_needed(fpr: float) -> int:
    """Number of real items from which a true-positive rate at `fpr` is reported: 1,000 for 1 %, 10,000 for 0.1 %."""
    return round(REALS_ABOVE / fpr)


def ece(labels: Labels, probability: Scores, *, balanced: bool = False) -> float:
    """Expected calibration error over 15 bins of equal width.

    Guo et al., "On Calibration of Modern Neural Networks", 2017, on P(fake) in place of the winner's confidence. Bins
    are closed above. It is biased upwards in small sets: 15 bins of a few items each are never quite even.

    Args:
        labels: [N], 0 or 1.
        probability: [N] in 0..1.
        balanced: weight reals and fakes to one half each, the prior that weights are calibrated for.

    Raises:
        ValueError: as `roc_curve`, or a probability outside 0..1.
    """
    return _point("ece_balanced" if balanced else "ece", labels, probability)


def cllr(labels: Labels, probability: Scores) -> float:
    """Cost of the log-likelihood-ratio, in bits: 0 for perfect ratios, 1 for ratios of 1, above 1 for misleading ones.

    Bruemmer and du Preez, "Application-independent evaluation of speaker detection", Computer Speech & Language 20,
    2006. Probabilities at equal priors give the ratios p / (1 - p).

    Args:
        labels: [N], 0 or 1.
        probability: [N] in 0..1.

    Raises:
        ValueError: as `ece`.
    """
    return _point("cllr", labels, probability)


def cllr_min(labels: Labels, scores: Scores) -> float:
    """Cllr after the best rising calibration: the part that no calibration can remove.

    Raises:
        ValueError: as `roc_curve`.
    """
    return _point("cllr_min", labels, scores)


def reliability(
    labels: Labels, probability: Scores, videos: Index | None = None, *, resamples: int = 0, seed: int = 0
) -> Reliability:
    """The bins of `ece`, with 95 % percentile intervals of a bootstrap that draws whole videos.

    Args:
        labels: [N], 0 or 1.
        probability: [N] in 0..1.
        videos: [N], number of each item's video; None: each item is its own video.
        resamples: 0 for no intervals.
        seed: of the draws.

    Raises:
        ValueError: as `ece`.
    """
    bins = weighted.Bins(labels, probability)
    sums = bins.sums(np.ones((1, len(labels))))
    items = sums.fakes[0] + sums.reals[0]
    confidence = sums.fakes_confidence[0] + sums.reals_confidence[0]
    ends = np.full((2, weighted.ECE_BINS), np.nan)
    if len(labels) and resamples:
        weights = draws(np.arange(len(labels)) if videos is None else videos, resamples, seed)
        drawn = np.concatenate([bins.sums(chunk).fakes_at_equal_priors() for chunk in weights])
        # A bin that is empty in most resamples has no interval.
        kept = np.isfinite(drawn).mean(axis=0) >= 1 - _UNDEFINED_AT_MOST
        ends[:, kept] = np.nanpercentile(drawn[:, kept], (2.5, 97.5), axis=0)
    return Reliability(
        items,
        weighted.share(confidence, items),
        weighted.share(sums.fakes[0], items),
        sums.fakes_at_equal_priors()[0],
        *ends,
    )


def video_index(datasets: Sequence[str], source_videos: Sequence[str], paths: Sequence[str]) -> Index:
    """Number of each item's video, int64 [N], counted from 0 in order of appearance.

    A video is (dataset, source_video), wherever its frames are stored; an item without a source video is its own video.
    """
    numbers: dict[tuple[str, str, str], int] = {}
    keys = zip(datasets, source_videos, paths, strict=True)
    return np.array(
        [numbers.setdefault((d, v, "" if v else path), len(numbers)) for d, v, path in keys], np.int64
    ).reshape(-1)


def video_logits(logits: Scores, videos: Index) -> Array:
    """Mean of each video's logits, clipped to +-`LOGIT_LIMIT` as serving does; crops have no quality to weight by.

    Args:
        logits: [N]; nan for items without one, which are left out.
        videos: [N], see `video_index`.

    Returns:
        float64 [V]; nan for a video without any logit.
    """
    there = np.isfinite(logits)
    count = int(videos.max(initial=-1)) + 1
    clipped = np.clip(logits[there].astype(np.float64), -LOGIT_LIMIT, LOGIT_LIMIT)
    total, frames = np.zeros(count), np.zeros(count)
    np.add.at(total, videos[there], clipped)
    np.add.at(frames, videos[there], 1.0)
    return weighted.share(total, frames)


def video_labels(labels: Labels, videos: Index, names: Sequence[str]) -> npt.NDArray[np.int8]:
    """The label of each video, int8 [V].

    Args:
        labels: [N].
        videos: [N], see `video_index`.
        names: [N], of the items' videos, for the message.

    Raises:
        MixedVideoError: a video has frames of both labels.
    """
    count = int(videos.max(initial=-1)) + 1
    fakes, frames = np.bincount(videos[labels == 1], minlength=count), np.bincount(videos, minlength=count)
    mixed = np.flatnonzero((fakes > 0) & (fakes < frames))
    if len(mixed):
        name = names[int(np.flatnonzero(videos == mixed[0])[0])]
        raise MixedVideoError(
            f"{len(mixed)} videos have real and fake frames, such as {name!r}: column source_video must name the video "
            "that a frame is from, and a forged copy of it is another video"
        )
    return (fakes > 0).astype(np.int8)


def estimate(
    labels: Labels,
    scores: Scores,
    videos: Index,
    names: Sequence[str] = METRICS,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Metrics with 95 % percentile intervals of a bootstrap that draws whole videos.

    Frames of one video are not independent: drawn singly they would make the interval too narrow.

    Args:
        labels: [N], 0 or 1.
        scores: [N], finite; for "cllr", "ece" and "ece_balanced" probabilities.
        videos: [N], number of each item's video.
        names: of `METRICS`.
        resamples: 0 for no intervals.
        seed: of the draws.

    Raises:
        ValueError: as `roc_curve`, or as `ece`.
    """
    values = _measure(labels, scores, names, [np.ones((1, len(labels)))])
    reals, fakes = int((labels == 0).sum()), int((labels == 1).sum())
    reasons = {name: _reason(name, reals, fakes) for name in names}
    wanted = [name for name in names if reasons[name] is None]
    drawn = _measure(labels, scores, wanted, draws(videos, resamples, seed) if wanted else [])
    found: dict[str, Estimate] = {}
    for name in names:
        if reasons[name] is not None:
            found[name] = Estimate(None, reason=reasons[name])
            continue
        low, high, reason = _interval(drawn[name], videos)
        found[name] = Estimate(float(values[name][0]), low, high, reason)
    return found


def _reason(name: str, reals: int, fakes: int) -> str | None:
    """Why a metric cannot be computed from this many reals and fakes."""
    if reals + fakes == 0:
        return "no scored items"
    if name != "ece" and (reals == 0 or fakes == 0):
        return f"only {'fakes' if reals == 0 else 'reals'}"
    for fpr, at in TPR_AT.items():
        if name == at and reals < reals_needed(fpr):
            return f"needs {reals_needed(fpr):,} reals, there are {reals:,}"
    return None


def _interval(drawn: Array, videos: Index) -> tuple[float | None, float | None, str | None]:
    if len(drawn) == 0:
        return None, None, "no resamples"
    if (videos == videos[0]).all():
        return None, None, "a single video has no interval"
    there = drawn[np.isfinite(drawn)]
    if len(there) < (1 - _UNDEFINED_AT_MOST) * len(drawn):
        return None, None, "too few videos of one class for an interval"
    low, high = np.percentile(there, (2.5, 97.5))
    return float(low), float(high), None


def draws(videos: Index, resamples: int, seed: int) -> Iterator[Array]:
    """Weights of the items for a bootstrap, float64 [r, N] in chunks: how often each one's video was drawn."""
    rng = np.random.default_rng(seed)
    _, compact = np.unique(videos, return_inverse=True)
    count = int(compact.max()) + 1
    chunk = max(1, _CHUNK // len(videos))
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        picked = rng.integers(count, size=(size, count)) + count * np.arange(size)[:, None]
        times = np.bincount(picked.ravel(), minlength=size * count).reshape(size, count)
        yield times[:, compact].astype(np.float64)


def _point(name: str, labels: Labels, scores: Scores) -> float:
    return float(_measure(labels, scores, [name], [np.ones((1, len(labels)))])[name][0])


def _measure(labels: Labels, scores: Scores, names: Sequence[str], weights: Iterable[Array]) -> dict[str, Array]:
    """Each metric, float64 [R], over chunks of weights [r, N]."""
    if unknown := sorted(set(names) - set(METRICS)):
        raise ValueError(f"unknown metrics {', '.join(unknown)}; available: {', '.join(METRICS)}")
    ranking = weighted.Ranking(labels, scores)
    probabilities = any(name in _OF_PROBABILITIES for name in names)
    bins = weighted.Bins(labels, scores) if probabilities else None
    costs = weighted.Costs(labels, scores) if "cllr" in names else None
    found: dict[str, list[Array]] = {name: [np.zeros(0)] for name in names}
    for chunk in weights:
        fakes, reals = ranking.cumulated(chunk)
        for name in names:
            if name in _OF_COUNTS:
                found[name].append(_OF_COUNTS[name](fakes, reals))
        if costs is not None:
            found["cllr"].append(costs.cllr(chunk))
        if bins is not None:
            sums = bins.sums(chunk)
            for name in ("ece", "ece_balanced"):
                if name in found:
                    found[name].append(sums.error(balanced=name == "ece_balanced"))
    return {name: np.concatenate(parts) for name, parts in found.items()}
