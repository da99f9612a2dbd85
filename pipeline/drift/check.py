"""Compares videos with a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.drift.measures import FACE_WIDTH, MEASURES, OUTCOME, QUALITY, SCORE, Counts, Measure
from pipeline.drift.reference import LEAST_VIDEOS, DriftError, Reference, table
from pipeline.drift.stability import LEVEL, Shares, compare, log_ratio, median, parts, surprise

_MOST_MOVED: Final = 3


@dataclass(frozen=True, slots=True)
class Moved:
    """A bin.

    Attributes:
        bin: its name.
        reference, now: share of the videos' values in it.
        psi: what it adds to the index.
    """

    bin: str
    reference: float
    now: float
    psi: float


@dataclass(frozen=True, slots=True)
class MeasureDrift:
    """One measure.

    Attributes:
        videos: now, that have it.
        reference_videos: in the reference.
        psi, low, high, limit, p: see `pipeline.drift.stability.Stability`.
        alarm: whether it has drifted.
        bins: their names.
        reference, now: share of each bin.
        reference_median, now_median: by interpolation; None for kinds.
        moved: the bins that moved most, of those that moved at all.
        said: in words.
    """

    name: str
    videos: int
    reference_videos: int
    psi: float
    low: float
    high: float
    limit: float
    p: float
    alarm: bool
    bins: tuple[str, ...]
    reference: tuple[float, ...]
    now: tuple[float, ...]
    reference_median: float | None
    now_median: float | None
    moved: tuple[Moved, ...]
    said: str


@dataclass(frozen=True, slots=True)
class Drift:
    """The result of a check.

    Attributes:
        measures: that could be compared.
        missing: measures that could not, and why.
        level: how often a check may alarm although nothing has changed.
    """

    measures: tuple[MeasureDrift, ...]
    missing: Mapping[str, str]
    level: float = LEVEL

    @property
    def alarms(self) -> tuple[str, ...]:
        """Names of the measures that have drifted."""
        return tuple(each.name for each in self.measures if each.alarm)


@dataclass(frozen=True, slots=True)
class Judged:
    """A judged video.

    Attributes:
        id: of the video.
        weights_sha256: that judged it.
        counts: see `counts_of`.
    """

    id: str
    weights_sha256: tuple[str, ...]
    counts: Counts


def check(reference: Reference, videos: Sequence[Judged]) -> Drift:
    """Compare videos with a reference.

    Raises:
        DriftError: no measure has enough videos.
    """
    found, missing = {}, {}
    for measure in MEASURES:
        base = reference.shares(measure)
        rows = shares_now(reference, videos, measure)
        if len(base) < LEAST_VIDEOS:
            missing[measure.name] = "the reference does not have it"
        elif len(rows) < LEAST_VIDEOS:
            whose = " judged by the reference's weights" if measure.of_weights else ""
            missing[measure.name] = f"{len(rows)} videos{whose}, at least {LEAST_VIDEOS} are needed"
        else:
            found[measure] = (base, rows)
    if not found:
        raise DriftError("too few videos: " + "; ".join(f"{name}: {why}" for name, why in missing.items()))
    return Drift(tuple(_measured(each, *rows, len(found)) for each, rows in found.items()), missing)


def shares_now(reference: Reference, videos: Sequence[Judged], measure: Measure) -> Shares:
    """The distributions of the videos that have a measure and can be compared: float64 [N, B]."""
    return table([each.counts[measure.name] for each in videos if _counts(reference, each, measure)], measure)


def typical(reference: Reference, drift: Drift, videos: Sequence[Judged]) -> dict[str, float]:
    """For each video, how much more likely it is now than in the reference, by the measures that have drifted.

    The log-likelihood ratio of the video's values, averaged over each measure and summed over measures. Videos without
    any of these measures are left out.
    """
    ratios = {each.name: log_ratio(np.array(each.now), np.array(each.reference)) for each in drift.measures}
    return _summed(reference, videos, {name: ratios[name] for name in drift.alarms})


def novelty(reference: Reference, videos: Sequence[Judged]) -> dict[str, float]:
    """For each video, how unusual it is under the reference: -ln of its share, averaged over each measure, summed."""
    measures = [measure for measure in MEASURES if len(reference.shares(measure))]
    weights = {each.name: surprise(np.eye(each.bins), reference.shares(each).mean(axis=0)) for each in measures}
    return _summed(reference, videos, weights)


def _summed(reference: Reference, videos: Sequence[Judged], weights: Mapping[str, Shares]) -> dict[str, float]:
    found: dict[str, float] = {}
    for measure in MEASURES:
        if measure.name not in weights:
            continue
        for each in videos:
            if _counts(reference, each, measure):
                shares = table([each.counts[measure.name]], measure)[0]
                found[each.id] = found.get(each.id, 0.0) + float(shares @ weights[measure.name])
    return found


def _counts(reference: Reference, video: Judged, measure: Measure) -> bool:
    if measure.of_weights and list(video.weights_sha256) != reference.weights_sha256:
        return False
    return sum(video.counts.get(measure.name, ())) > 0


def _measured(measure: Measure, base: Shares, rows: Shares, measures: int) -> MeasureDrift:
    stability = compare(base, rows, measures=measures)
    reference, now = base.mean(axis=0), rows.mean(axis=0)
    added = parts(reference, now)
    order = [int(i) for i in np.argsort(-added)[:_MOST_MOVED] if added[i] > 0]
    moved = tuple(Moved(measure.label(i), float(reference[i]), float(now[i]), float(added[i])) for i in order)
    medians: tuple[float | None, float | None] = (None, None)
    if measure.edges:
        edges = np.array(measure.edges)
        medians = (
            median(reference, edges, logarithmic=measure.logarithmic),
            median(now, edges, logarithmic=measure.logarithmic),
        )
    return MeasureDrift(
        measure.name,
        len(rows),
        len(base),
        stability.psi,
        stability.low,
        stability.high,
        stability.limit,
        stability.p,
        stability.alarm,
        tuple(measure.label(i) for i in range(measure.bins)),
        tuple(map(float, reference)),
        tuple(map(float, now)),
        *medians,
        moved,
        _said(measure, stability.alarm, medians, moved),
    )


# Below and above the reference; {} and {} are the medians.
_WORDS: Final = {
    SCORE.name: ("scores are lower", "scores are higher", "{:+.1f}", "log-odds "),
    QUALITY.name: ("pictures are poorer", "pictures are better", "{:.2f}", "quality "),
    FACE_WIDTH.name: ("faces are smaller", "faces are larger", "{:.0f} px", ""),
}


def _said(measure: Measure, alarm: bool, medians: tuple[float | None, float | None], moved: tuple[Moved, ...]) -> str:
    """What has changed, in words: `faces are smaller than in the reference: median 41 px, 96 px there`."""
    if not alarm:
        return "no drift"
    before, after = medians
    if measure is OUTCOME or before is None or after is None:
        top = max(moved, key=lambda each: each.now - each.reference)
        return f"more videos end as {top.bin} than in the reference: {top.now:.0%}, {top.reference:.0%} there"
    lower, higher, form, what = _WORDS[measure.name]
    one, other = form.format(after), form.format(before)
    if one == other:
        top = moved[0]
        return f"other values than in the reference, most in {top.bin}: {top.now:.0%}, {top.reference:.0%} there"
    return f"{lower if after < before else higher} than in the reference: median {what}{one}, {other} there"
