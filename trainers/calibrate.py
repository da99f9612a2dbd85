"""From trained weights to a shipped detector: calibration, thresholds and the final file.

Everything is chosen on the selection half of the validation split (`Manifest.halves`); figures use the other half.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from models.calibration import Calibration, LikelihoodBounds, probability_of
from models.checkpoint import CheckpointError, halved, read_checkpoint, save_checkpoint
from models.checkpoint_info import LOGIT_LIMIT, MAX_PEOPLE, CheckpointInfo, Thresholds
from pipeline.outputs import Output, OutputError, check_outputs
from trainers.calibration_fit import (
    CalibrationError,
    Floats64,
    balanced,
    broken_line,
    platt,
    trust_in_quality,
)
from trainers.copies import COPIES, ScoredCopy, Tracks, scored_copies
from trainers.data.clean import HELD_OUT
from trainers.data.manifest import FAKE, REAL, Manifest, ManifestError, join
from trainers.likelihood import elub
from trainers.segments import FALSE_ALARMS, contrasts, scored_sequences

FPR, MISSES = 0.01, 0.10
# A quantile is used if at least this many reals are above it; further out the tail is extrapolated.
_REALS_ABOVE = 8
# Share of the reals, with the highest scores, that the tail is fitted to.
_TAIL = 0.1
# The line and the trust are fitted in turn, each given the other; they converge within two rounds.
_ROUNDS = 3
# Trust reaches 1 at the latest at the median quality of the original pictures, which the line was fitted on.
_WHOLE_FROM = (0.05, 0.25, 0.5)
# Folds of the cross-validation that decides between a straight and a broken line.
_FOLDS = 5


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What was chosen.

    Attributes:
        calibration: at a prior of one half.
        thresholds: of the verdict's labels.
        worst: name of the copy that set the fake threshold.
        reals: behind the choice.
    """

    calibration: Calibration
    thresholds: Thresholds
    worst: str
    reals: int


def choose(copies: list[ScoredCopy], *, fpr: float = FPR, misses: float = MISSES) -> Calibrated:
    """Calibration on the original videos, trust in quality and thresholds on all copies.

    The fake threshold is the highest quantile of the reals over the copies at `fpr`, for k people at `fpr / k`; the
    real threshold is the quantile `misses` of the fakes of all copies together, for every k. Both are quantiles of
    what serving computes: a video's log-odds with the trust of its quality.

    Args:
        copies: the first holds the original videos, with both classes.
        fpr: share of the reals of the worst copy that are called fake.
        misses: share of the fakes that are called real.

    Raises:
        CalibrationError: a class is missing, or there are too few reals for `fpr`.
    """
    clean = copies[0].tracks(Calibration())
    if len(set(clean.label.tolist())) < 2:
        raise CalibrationError("calibration needs reals and fakes")
    _check_reals(int((clean.label == REAL).sum()), fpr)
    calibration = fit(copies)
    judged = {copy.name: copy.tracks(calibration) for copy in copies}
    everyday = [judged[copy.name] for copy in copies if copy.name in COPIES and COPIES[copy.name].everyday]
    calibration = replace(calibration, bounds=bounds_of(everyday))
    reals = {name: tracks.log_odds[tracks.label == REAL] for name, tracks in judged.items()}
    # A small separate set says nothing about a far quantile; it can only raise the near one.
    usable = {name: scores for name, scores in reals.items() if len(scores) * fpr >= 1}
    # No face reaches a step beyond the largest logit that counts.
    beyond = float(calibration.log_odds(np.array([LOGIT_LIMIT]))[0]) + calibration.scale
    limits = {name: upper_quantiles(scores, fpr, limit=beyond) for name, scores in usable.items()}
    worst = max(limits, key=lambda name: limits[name][0])
    fake = probability_of(np.maximum.accumulate(np.max(list(limits.values()), axis=0))).astype(float)
    fakes = np.concatenate([tracks.log_odds[tracks.label == FAKE] for tracks in judged.values()])
    real = min(float(probability_of(np.quantile(fakes, misses))), float(fake[0]))
    thresholds = Thresholds(fpr=fpr, fake=tuple(float(p) for p in fake), real=(real,) * MAX_PEOPLE)
    return Calibrated(calibration, thresholds, worst, len(reals[worst]))


def _check_reals(count: int, fpr: float) -> None:
    if count * fpr < 1:
        raise CalibrationError(f"a false-positive rate of {fpr:g} needs more than {1 / fpr:.0f} reals, got {count}")


def fit(copies: list[ScoredCopy]) -> Calibration:
    """The line on the first copy, and the trust in quality on all with both classes; bounds are left out.

    Raises:
        CalibrationError: higher scores do not mean fake.
    """
    clean = copies[0]
    plain = clean.tracks(Calibration())
    calibration = platt(plain.label, plain.mean)
    if _broken_pays(plain, calibration):
        calibration = replace(calibration, curve=broken_line(plain.label, plain.mean, plain.trust, calibration))
    whole_from = np.quantile(clean.quality, _WHOLE_FROM).tolist()
    both = [copy for copy in copies if len(set(copy.label.tolist())) == 2]
    label, logits, quality = (
        np.concatenate([getattr(copy, name) for copy in both]) for name in ("label", "logits", "quality")
    )
    weights = np.concatenate([balanced(copy.label, copy.weights()) for copy in both]) / len(both)
    for _ in range(_ROUNDS):
        knots = trust_in_quality(label, calibration.log_odds(logits), quality, weights, whole_from=whole_from)
        calibration = replace(calibration, quality=knots)
        if calibration.curve:
            tracks = clean.tracks(calibration)
            calibration = replace(calibration, curve=broken_line(tracks.label, tracks.mean, tracks.trust, calibration))
    return calibration


def _broken_pays(tracks: Tracks, straight: Calibration) -> bool:
    """Whether a broken line has a lower loss on groups that it was not fitted on."""
    fold = tracks.group % _FOLDS
    losses = np.zeros((2, len(fold)))
    for which in np.unique(fold):
        fitted, held = fold != which, fold == which
        if len(set(tracks.label[fitted].tolist())) < 2:
            return False
        line = platt(tracks.label[fitted], tracks.mean[fitted])
        curve = broken_line(tracks.label[fitted], tracks.mean[fitted], tracks.trust[fitted], line)
        for row, calibration in enumerate((line, replace(straight, curve=curve))):
            odds = tracks.trust[held] * calibration.log_odds(tracks.mean[held])
            losses[row, held] = np.logaddexp(0, np.where(tracks.label[held] == FAKE, -odds, odds))
    weighted = losses @ balanced(tracks.label)
    return bool(weighted[1] < weighted[0])


def bounds_of(judged: list[Tracks]) -> LikelihoodBounds:
    """Bounds of the likelihood ratio from the videos of copies with both classes.

    Copies of one video are not independent: together they weigh as much as one.
    """
    both = [tracks for tracks in judged if len(set(tracks.label.tolist())) == 2]
    label, log_odds, video = (
        np.concatenate([getattr(tracks, name) for tracks in both]) for name in ("label", "log_odds", "video")
    )
    _, number, count = np.unique(video, return_inverse=True, return_counts=True)
    weights = 1.0 / count[number]
    lower, upper = elub(label, log_odds, weights)
    reals, fakes = (round(float(weights[label == which].sum())) for which in (REAL, FAKE))
    return LikelihoodBounds(lower, upper, reals, fakes)


def upper_quantiles(reals: Floats64, fpr: float, *, limit: float = LOGIT_LIMIT + 1) -> Floats64:
    """Log-odds with a share `fpr / k` of the reals above, for k = 1 to 8, at most `limit`: float64 [8].

    With enough reals above, it is their quantile. Further out it follows the exponential tail of the highest
    tenth of them (peaks over threshold with shape 0: Coles, "An Introduction to Statistical Modeling of Extreme
    Values", 2001, chapter 4), never below the last quantile that is known.
    """
    ordered = np.sort(reals)
    start = float(np.quantile(ordered, 1 - _TAIL))
    mean_excess = max(float((ordered[ordered > start] - start).mean()) if (ordered > start).any() else 0.0, 1e-3)
    limits: list[float] = []
    for k in range(1, MAX_PEOPLE + 1):
        share = fpr / k
        if share * len(ordered) >= _REALS_ABOVE or k == 1:
            found = float(np.quantile(ordered, 1 - share))
        else:
            found = limits[0] + mean_excess * float(np.log(k))
        limits.append(min(found, limit))
    return np.maximum.accumulate(np.array(limits))


def write_calibrated(weights: Path, out: Path, chosen: Calibrated, *, name: str, half: bool) -> str:
    """The detector with its calibration, in one file without training state.

    Args:
        weights: a checkpoint's path.
        out: the file.
        chosen: see `choose`.
        name: what verdicts call the detector.
        half: store matrices in fp16 (norms and biases stay in fp32).

    Returns:
        sha256 of the file.
    """
    checkpoint = read_checkpoint(weights)
    info: CheckpointInfo = replace(
        checkpoint.info,
        name=name,
        calibration=chosen.calibration,
        thresholds=chosen.thresholds,
        created_at=round(time.time(), 3),
    )
    tensors = {key: halved(tensor) if half else tensor for key, tensor in checkpoint.weights.items()}
    return save_checkpoint(out, weights=tensors, info=info)


@dataclass(frozen=True)
class CalibrateOptions:
    """Options of `unmask calibrate`.

    Attributes:
        weights: a checkpoint's path.
        manifest: contains the split.
        out: the file to write.
        name: what verdicts call the detector; empty: the name in its checkpoint.
        split: of which the selection half is used. Its datasets with reals only count as `held_out`.
        held_out: split of reals from another source; they can only raise the fake threshold.
        fpr: see `choose`.
        misses: see `choose`.
        half: store matrices in fp16.
        device: see `models.precision.best_device`.
        rows: most rows of the split to use, as many reals as fakes; None: all.
    """

    weights: Path
    manifest: Path
    out: Path
    name: str = ""
    split: str = "val"
    held_out: str = HELD_OUT
    fpr: float = FPR
    misses: float = MISSES
    half: bool = True
    device: str = "auto"
    rows: int | None = None


def calibrate(options: CalibrateOptions) -> tuple[Calibrated, str]:
    """Choose on the selection half of a split, and write the detector with the result.

    Returns:
        What was chosen, and the file's sha256.

    Raises:
        CalibrationError: there is not enough to calibrate on.
        models.checkpoint.CheckpointError: not a checkpoint.
        trainers.data.manifest.ManifestError: not a manifest.
        pipeline.outputs.OutputError: the file to write is one of these, or cannot be written.
    """
    check_outputs([Output("--out", options.out)], [str(options.weights), str(options.manifest)])
    manifest = Manifest.read(options.manifest)
    held_out = manifest.where(split=options.held_out)
    rows = manifest.where(split=options.split).halves()[0]
    if not len(rows):
        raise CalibrationError(f"{options.manifest} has no rows of the split {options.split!r} to calibrate on")
    # A dataset with reals only would shift the line: its source would count as evidence.
    both = np.isin(rows.dataset, np.intersect1d(rows.dataset[rows.label == REAL], rows.dataset[rows.label == FAKE]))
    reals = join([part.take(part.label == REAL) for part in (held_out, rows.take(~both))], manifest.root)
    # Before hours of scoring: no more videos can be scored than there are.
    found = rows.take(both & (rows.label == REAL))
    _check_reals(len(set(zip(found.dataset.tolist(), found.source_video.tolist(), strict=True))), options.fpr)
    copies = scored_copies(options.weights, rows.take(both), reals, options.device, rows=options.rows)
    chosen = choose(copies, fpr=options.fpr, misses=options.misses)
    sequences = scored_sequences(options.weights, rows.take(both), options.device)
    contrast = contrasts(sequences, chosen.calibration, chosen.thresholds.fake[0])
    chosen = replace(chosen, thresholds=replace(chosen.thresholds, contrast=contrast))
    name = options.name or read_checkpoint(options.weights).info.name
    return chosen, write_calibrated(options.weights, options.out, chosen, name=name, half=options.half)


def run(options: CalibrateOptions, say: Callable[[str], None], fail: Callable[[str], None]) -> int:
    """Run `calibrate` and report the result; returns the exit code.

    Args:
        options: see `CalibrateOptions`.
        say: called with lines about the result.
        fail: called with the error.
    """
    from models.precision import DeviceError
    from models.zoo import ZooError

    try:
        chosen, sha256 = calibrate(options)
    except (CalibrationError, CheckpointError, DeviceError, ManifestError, OutputError, ZooError, OSError) as error:
        fail(str(error))
        return 2
    thresholds = chosen.thresholds
    calibration = chosen.calibration
    say(f"calibration: scale {calibration.scale:.4f}, bias {calibration.bias:+.4f}, at a prior of one half")
    for name, knots in (("log-odds at logits", calibration.curve), ("trust at qualities", calibration.quality)):
        if knots:
            say(f"  {name} {', '.join(f'{x:.2f}: {y:.2f}' for x, y in knots)}")
    if (bounds := calibration.bounds) is not None:
        say(
            f"likelihood ratios from 1/{1 / bounds.lower:.0f} to {bounds.upper:.0f}: "
            f"what {bounds.reals} reals and {bounds.fakes} fakes support"
        )
    say(f"fake from {', '.join(f'{p:.4f}' for p in thresholds.fake)} for 1 to 8 people")
    say(f"  ({options.fpr:.1%} of the {chosen.reals} reals of the worst copy: {chosen.worst})")
    say(f"real below {thresholds.real[0]:.4f} ({options.misses:.0%} of the fakes of all copies)")
    if thresholds.contrast:
        say(
            f"a stretch looks forged from a contrast of {', '.join(f'{c:.2f}' for c in thresholds.contrast)} on, for "
            f"tracks of 8, 16, 32 ... frames ({FALSE_ALARMS:.1%} of made real tracks)"
        )
    else:
        say("stretches of videos are not judged: too few real videos have eight frames or more")
    say(f"{options.out}: {options.out.stat().st_size / 2**20:.2f} MiB, sha256 {sha256}")
    return 0
