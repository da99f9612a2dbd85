"""The report's tables, the same on a terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainers.evaluation.evaluate import Report, SetResult
from trainers.evaluation.scoring import JPEG_SIZE_QUALITY
from trainers.evaluation.summary import Band, Group, LabelCounts, Level, Share
from trainers.metrics import TPR_AT, Estimate

NAMES = {
    "auc": "AUC",
    "eer": "EER",
    "ap": "AP",
    **{name: f"TPR at {100 * fpr:g} % FPR" for fpr, name in TPR_AT.items()},
    "ece": "ECE",
    "ece_balanced": "ECE, equal priors",
    "cllr": "Cllr",
    "cllr_min": "Cllr, best calibration",
}
NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as text; the first column names the row.

    Attributes:
        title: of the table.
        columns: headers.
        rows: cells, one per column.
        note: a note for the reader.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def number(value: float | None) -> str:
    """Three decimals: more would be beyond any interval."""
    return NOTHING if value is None else f"{value:.3f}"


def with_interval(estimate: Estimate | None) -> str:
    """`0.914 (0.905 to 0.922)`, the value alone, or the reason for a missing value."""
    if estimate is None:
        return NOTHING
    if estimate.value is None:
        return f"{NOTHING} ({estimate.reason})"
    if estimate.low is None or estimate.high is None:
        return number(estimate.value)
    return f"{number(estimate.value)} ({number(estimate.low)} to {number(estimate.high)})"


def percent_with_interval(share: Share | None) -> str:
    """`1.2 % (0.6 to 2.3)`, or a dash without any items or thresholds."""
    if share is None or share.value is None or share.low is None or share.high is None:
        return NOTHING
    return f"{100 * share.value:.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f})"


def overview(report: Report) -> Table:
    """One row per set: the main figures."""
    rows = []
    for each in report.sets:
        best = each.video or each.frame
        rows.append(
            (
                each.name,
                f"{each.rows:,}",
                _metric(each.frame, "auc"),
                _metric(each.video, "auc"),
                _metric(best, "eer"),
                _metric(best, TPR_AT[0.01]),
                _metric(best, "ece"),
                _metric(best, "cllr"),
            )
        )
    heads = ("set", "crops or clips", "AUC, frames", "AUC, videos", "EER", "TPR at 1 % FPR", "ECE", "Cllr")
    note = "EER, TPR, ECE and Cllr over videos. In brackets: 95 % of a bootstrap over videos."
    return Table("All sets", heads, tuple(rows), note)


def tables(result: SetResult) -> list[Table]:
    """All tables of a set, those without rows left out."""
    found = [metrics(result), verdicts(result), quality(result), face_sizes(result)]
    found += [
        reliability(result),
        _baseline(result),
        _groups(result),
        _slices(result),
        ladder(result),
        _clips(result),
        _failures(result),
    ]
    return [table for table in found if table.rows]


def metrics(result: SetResult) -> Table:
    """Every metric over frames and over videos."""
    levels = _levels(result)
    rows = [
        (label, *(with_interval(each.metrics[name]) for _, each in levels))
        for name, label in NAMES.items()
        if levels and name in levels[0][1].metrics
    ]
    counts = [
        (
            "items",
            *(f"{each.counts.total:,}: {each.counts.real:,} real, {each.counts.fake:,} fake" for _, each in levels),
        )
    ]
    note = f"No numbers over videos: {result.video_reason}." if result.video_reason else ""
    return Table("Metrics", ("", *(name for name, _ in levels)), (*counts, *rows) if levels else (), note)


def verdicts(result: SetResult) -> Table:
    """The labels given to reals and fakes."""
    rows = []
    for name, each in _levels(result):
        if each.called is not None:
            for label, given in (("real", each.called.reals), ("fake", each.called.fakes)):
                rows.append((f"{label} {name}", str(given.total), *_shares(given)))
    return Table("Verdicts", ("of the", "items", "called fake", "called inconclusive", "called real"), tuple(rows))


def quality(result: SetResult) -> Table:
    """How informative scores are at each quality, and the resulting labels."""
    note = (
        "Frames by the quality of their face. Cllr is 1 bit for uninformative scores, more if they "
        "mislead. A scan does not judge faces of the first band that ends at 0.1."
    )
    return _bands("Quality bands", "quality", result.bands, note)


def face_sizes(result: SetResult) -> Table:
    """The same by the width of the face."""
    note = "Frames by the width of the face's box in the frame that the crop was cut from, as records have it; about."
    return _bands("Face sizes", "face px", result.face_bands, note)


def _bands(title: str, measure: str, bands: Sequence[Band], note: str) -> Table:
    rows = [
        (
            f"from {band.low:g}" if band.high is None else f"{band.low:g} to {band.high:g}",
            f"{band.counts.real:,} / {band.counts.fake:,}",
            *(with_interval(band.metrics[name]) for name in ("auc", "ece_balanced", "cllr", "cllr_min")),
            _shares(band.called.reals)[0] if band.called else NOTHING,
            _shares(band.called.fakes)[0] if band.called else NOTHING,
        )
        for band in bands
    ]
    heads = (measure, "reals / fakes", "AUC", NAMES["ece_balanced"], NAMES["cllr"], NAMES["cllr_min"])
    return Table(title, (*heads, "reals called fake", "fakes called fake"), tuple(rows), note)


def reliability(result: SetResult) -> Table:
    """Predicted and observed shares of fakes."""
    rows = []
    for each in result.reliability:
        share = Estimate(each.balanced, each.balanced_low, each.balanced_high, "one class only")
        row = (f"{each.low:.2f} to {each.high:.2f}", f"{each.items:,}", number(each.confidence), number(each.fakes))
        rows.append((*row, with_interval(share)))
    heads = ("P(fake)", "items", "mean P(fake)", "share of fakes", "at equal priors")
    note = "Calibration is at equal priors: the last column should be near the third."
    return Table("Reliability", heads, tuple(rows), note)


def ladder(result: SetResult) -> Table:
    """AUC under each degradation, with the share of reals and of fakes that are called fake."""
    if result.ladder is None:
        return Table("Robustness ladder", (), ())
    rows = []
    for rung in result.ladder.rungs:
        if rung.frame is None:
            rows.append((rung.name, f"{NOTHING} ({rung.reason})", *[NOTHING] * 5))
            continue
        rows.append(
            (
                rung.name,
                _metric(rung.frame, "auc"),
                _metric(rung.video, "auc"),
                _metric(rung.frame, "eer"),
                percent_with_interval(rung.false_alarms),
                percent_with_interval(rung.caught),
                str(rung.failed),
            )
        )
    heads = ("degraded by", "AUC, frames", "AUC, videos", "EER, frames", "reals called fake", "fakes called fake")
    sampled = result.ladder.rows < result.ladder.of
    note = f"{result.ladder.rows:,} of {result.ladder.of:,} crops" + (
        f", drawn evenly from both classes with seed {result.ladder.seed}." if sampled else "."
    )
    if any(rung.false_alarms for rung in result.ladder.rungs):
        note += " Shares called fake: over videos if they exist, at the weights' own threshold for one person."
    return Table("Robustness ladder", (*heads, "failed"), tuple(rows), note)


def _baseline(result: SetResult) -> Table:
    if result.jpeg_size is None or result.frame is None:
        return Table("Baseline", (), ())
    return Table(
        "Baseline",
        ("", "AUC, frames"),
        (
            (f"size as JPEG of quality {JPEG_SIZE_QUALITY}, smaller is fake", with_interval(result.jpeg_size)),
            ("the detector", with_interval(result.frame.metrics["auc"])),
        ),
        "The signal in compressibility alone: a detector near it may have learned no more.",
    )


def _groups(result: SetResult) -> Table:
    def row(group: Group) -> tuple[str, ...]:
        level = group.video or group.frame
        counts = "" if level is None else f"{level.counts.real:,} / {level.counts.fake:,}"
        name = "all" if group.method is None else group.method or "(unnamed)"
        called = level.called if level else None
        return (
            group.dataset or "(unnamed)",
            name,
            counts,
            _metric(group.frame, "auc"),
            _metric(group.video, "auc"),
            _metric(level, "eer"),
            _shares(called.reals)[0] if called else NOTHING,
            _shares(called.fakes)[2] if called else NOTHING,
        )

    by_dataset = {group.dataset: [group] for group in result.datasets}
    for group in result.methods:
        by_dataset[group.dataset].append(group)
    rows = [row(group) for groups in by_dataset.values() for group in groups]
    heads = ("dataset", "method", "reals / fakes", "AUC, frames", "AUC, videos", "EER", "reals called fake")
    note = "A method's fakes against all reals of its dataset. Counts, EER and labels are over videos if they exist."
    return Table("Datasets and methods", (*heads, "fakes called real"), tuple(rows), note)


def _slices(result: SetResult) -> Table:
    rows = tuple(
        (
            each.by,
            f"{each.low:.3g} to {each.high:.3g} {each.unit}".strip(),
            f"{each.counts.real:,} / {each.counts.fake:,}",
            with_interval(each.auc),
        )
        for each in result.slices
    )
    return Table("Slices", ("by", "from", "reals / fakes", "AUC, frames"), rows, "Thirds of the scored crops.")


def _clips(result: SetResult) -> Table:
    # Readers look for errors: reals that score high, fakes that score low.
    ranked = sorted(result.clips or [], key=lambda clip: (clip.label, -(clip.probability or 0.0), clip.file))
    rows = tuple(
        (
            clip.file,
            clip.label,
            clip.method,
            number(clip.probability),
            NOTHING if clip.likelihood_ratio is None else f"{clip.likelihood_ratio:.3g}",
            clip.word or NOTHING,
            str(clip.people),
            clip.outcome + (f": {clip.error}" if clip.error else ""),
        )
        for clip in ranked
    )
    return Table("Clips", ("clip", "label", "method", "P(fake)", "LR", "verdict", "people", "outcome"), rows)


def _failures(result: SetResult) -> Table:
    rows = tuple((failure.path, failure.error) for failure in result.failures)
    return Table("Crops without a score", ("path", "reason"), rows)


def _levels(result: SetResult) -> list[tuple[str, Level]]:
    videos = "clips" if result.kind == "clips" else "videos"
    return [(name, each) for name, each in (("frames", result.frame), (videos, result.video)) if each is not None]


def _metric(level: Level | None, name: str) -> str:
    return NOTHING if level is None else with_interval(level.metrics.get(name))


def _shares(given: LabelCounts) -> Sequence[str]:
    counts = (given.fake, given.inconclusive, given.real)
    return [f"{100 * count / given.total:.1f} % ({count})" if given.total else NOTHING for count in counts]
