"""Metrics of a set and of its parts: by dataset, by method, by size, quality and brightness of the crops."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from models.error_rates import wilson
from pipeline.faces.quality import MIN_QUALITY
from pipeline.types import Floats
from trainers.evaluation.items import Items, Judged
from trainers.evaluation.scoring import Measures
from trainers.metrics import METRICS, Estimate, estimate, reliability
from trainers.weighted import ECE_BINS

# Finer parts would have intervals wider than their differences.
PARTS = 3
# Serving does not score below the first inner edge (`MIN_QUALITY`); the others match the dots of the report page.
QUALITY_BANDS = (0.0, MIN_QUALITY, 0.25, 0.5, 0.75, 1.0)
# Of the width of a face's box: 28 px is the least that is scored (`SMALLEST_FACE_PX`), 112 px carries all that quality
# counts (`pipeline.faces.quality.SIZE_PX`).
FACE_BANDS_PX = (0.0, 64.0, 96.0, 128.0, 192.0, math.inf)
BAND_METRICS = ("auc", "cllr", "cllr_min", "ece_balanced")


@dataclass(frozen=True, slots=True)
class Judging:
    """How metrics are computed from scores.

    Attributes:
        labels: whether the weights have thresholds; without them all verdicts are inconclusive.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        metrics: which, see `trainers.metrics.METRICS`.
    """

    labels: bool
    resamples: int
    seed: int
    metrics: tuple[str, ...] = METRICS

    def estimate(self, items: Items) -> dict[str, Estimate]:
        """The metrics of some items by name."""
        return estimate(
            items.label, items.probability, items.video, self.metrics, resamples=self.resamples, seed=self.seed
        )

    def auc(self, items: Items, scores: Floats | None = None) -> Estimate:
        """AUC of some items, by their probabilities or by other scores, float32 [N]."""
        chosen = items.probability if scores is None else scores
        return estimate(items.label, chosen, items.video, ["auc"], resamples=self.resamples, seed=self.seed)["auc"]


@dataclass(frozen=True, slots=True)
class Counts:
    """Items with a score."""

    total: int
    real: int
    fake: int

    @classmethod
    def of(cls, items: Items) -> Counts:
        """Count the items."""
        return cls(len(items), int((items.label == 0).sum()), int((items.label == 1).sum()))


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """How many of the reals, or of the fakes, got each label."""

    total: int
    fake: int
    inconclusive: int
    real: int


@dataclass(frozen=True, slots=True)
class Share:
    """A share with its 95 % interval.

    Attributes:
        value: None without items.
        low: end of the interval.
        high: end of the interval.
        items: number of items behind the share.
    """

    value: float | None
    low: float | None
    high: float | None
    items: int


@dataclass(frozen=True, slots=True)
class Called:
    """The labels given to reals and to fakes."""

    reals: LabelCounts
    fakes: LabelCounts


@dataclass(frozen=True, slots=True)
class Level:
    """Numbers over frames, or over videos.

    Attributes:
        counts: of the items.
        metrics: by name, see `trainers.metrics.METRICS`.
        called: None if the weights have no thresholds.
    """

    counts: Counts
    metrics: dict[str, Estimate]
    called: Called | None


@dataclass(frozen=True, slots=True)
class Group:
    """A dataset, or one method's fakes against all reals of their dataset.

    Attributes:
        method: None for the whole dataset.
        frame: None if clips were judged as a whole.
        video: None if frames of one video have different labels.
    """

    dataset: str
    method: str | None
    frame: Level | None
    video: Level | None


@dataclass(frozen=True, slots=True)
class Slice:
    """The frames whose measure is in one part of its range.

    Attributes:
        by: name of the measure.
        unit: of low and high.
        low: smallest value of the part.
        high: largest value of the part.
    """

    by: str
    unit: str
    low: float
    high: float
    counts: Counts
    auc: Estimate


@dataclass(frozen=True, slots=True)
class Band:
    """The frames whose quality, or whose face's width, is in one band, judged at equal priors.

    Attributes:
        low: smallest value of the band.
        high: largest value, excluded except for a quality of 1; None: without an end.
        counts: of the frames.
        metrics: `BAND_METRICS` by name.
        called: None if the weights have no thresholds.
    """

    low: float
    high: float | None
    counts: Counts
    metrics: dict[str, Estimate]
    called: Called | None


@dataclass(frozen=True, slots=True)
class Bin:
    """One bar of a reliability diagram.

    Attributes:
        low: lower end of its range of P(fake), excluded except for 0.
        high: upper end of its range, included.
        items: in that range.
        confidence: their mean P(fake).
        fakes: the share of fakes among them.
        balanced: that share at equal priors; None if a class is missing.
        balanced_low: lower end of its 95 % interval by a bootstrap over videos; None if missing.
        balanced_high: upper end.
    """

    low: float
    high: float
    items: int
    confidence: float
    fakes: float
    balanced: float | None = None
    balanced_low: float | None = None
    balanced_high: float | None = None


def level(items: Items | None, judging: Judging) -> Level | None:
    """Counts, metrics and labels of frames or videos; None without them."""
    if items is None:
        return None
    return Level(Counts.of(items), judging.estimate(items), called(items) if judging.labels else None)


def called(items: Items) -> Called:
    """How often each label was given."""

    def of(label: int) -> LabelCounts:
        given = items.verdict[items.label == label].tolist()
        return LabelCounts(len(given), *(given.count(verdict) for verdict in ("fake", "inconclusive", "real")))

    return Called(reals=of(0), fakes=of(1))


def share_called_fake(given: LabelCounts) -> Share:
    """The share called fake.

    A bootstrap would give no interval to a share of 0, which is the goal for reals.
    """
    return share_of(given.fake, given.total)


def share_of(count: int, total: int) -> Share:
    """A share with Wilson's interval, see `models.error_rates.wilson`."""
    if total == 0:
        return Share(None, None, None, 0)
    return Share(count / total, *wilson(count, total), total)


def groups(judged: Judged, judging: Judging) -> tuple[list[Group], list[Group]]:
    """Each dataset, and each method of each dataset, in the order of their names."""
    items = judged.frames if judged.frames is not None else judged.videos
    datasets: list[Group] = []
    methods: list[Group] = []
    if items is None:
        return datasets, methods
    for dataset in np.unique(items.dataset).tolist():
        datasets.append(_group(judged, judging, dataset, None))
        fakes = items.take((items.dataset == dataset) & (items.label == 1))
        methods += [_group(judged, judging, dataset, method) for method in np.unique(fakes.method).tolist()]
    return datasets, methods


def _group(judged: Judged, judging: Judging, dataset: str, method: str | None) -> Group:
    part = judged.take(dataset, method)
    return Group(dataset, method, level(part.frames, judging), level(part.videos, judging))


def slices(frames: Items, source_width: Floats, measures: Measures, judging: Judging) -> list[Slice]:
    """AUC in the thirds of size, sharpness and brightness.

    Args:
        frames: N scored frames.
        source_width: float32 [N] in px; nan where unknown.
        measures: of these frames.
        judging: how metrics are computed.
    """
    found: list[Slice] = []
    for by, unit, values in (
        ("size", "px", source_width),
        ("sharpness", "", measures.sharpness),
        ("brightness", "grey level", measures.brightness),
    ):
        for part in _thirds(values):
            items = frames.take(part)
            auc, inside = judging.auc(items), values[part]
            found.append(Slice(by, unit, float(inside.min()), float(inside.max()), Counts.of(items), auc))
    return found


def _thirds(values: Floats) -> Iterator[np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """Masks of the lower, middle and upper third; equal values stay together, empty parts are left out."""
    known = np.isfinite(values)
    if not known.any():
        return
    edges = np.quantile(values[known], [i / PARTS for i in range(1, PARTS)])
    third = np.where(known, np.searchsorted(edges, values), -1)
    for number in range(PARTS):
        part = third == number
        if part.any():
            yield part


def jpeg_size(frames: Items, measures: Measures, judging: Judging) -> Estimate:
    """AUC of calling the smaller file a fake: the signal in compressibility alone."""
    return judging.auc(frames, -measures.jpeg_bytes)


def bands(frames: Items, judging: Judging) -> list[Band]:
    """Metrics and labels by quality, for the bands with frames; empty if quality was not measured."""
    return _bands(frames, frames.quality, QUALITY_BANDS, judging)


def face_bands(frames: Items, face_px: Floats, judging: Judging) -> list[Band]:
    """The same by the width of the face's box in its frame, float32 [N] in px; frames without one are left out."""
    return _bands(frames, face_px, FACE_BANDS_PX, judging)


def _bands(frames: Items, values: Floats, edges: tuple[float, ...], judging: Judging) -> list[Band]:
    found = []
    for low, high in pairwise(edges):
        inside = (values >= low) & ((values < high) | (high == 1))
        if not inside.any():
            continue
        items = frames.take(inside)
        metrics = replace(judging, metrics=BAND_METRICS).estimate(items)
        end = high if math.isfinite(high) else None
        found.append(Band(low, end, Counts.of(items), metrics, called(items) if judging.labels else None))
    return found


def bins(items: Items, judging: Judging) -> list[Bin]:
    """The bins of the ECE that are not empty."""
    found = reliability(items.label, items.probability, items.video, resamples=judging.resamples, seed=judging.seed)
    bars = enumerate(zip(*found, strict=True))
    width = 1 / ECE_BINS

    def known(value: float) -> float | None:
        return float(value) if math.isfinite(value) else None

    return [
        Bin(i * width, (i + 1) * width, int(n), float(p), float(f), known(equal), known(low), known(high))
        for i, (n, p, f, equal, low, high) in bars
        if n
    ]
