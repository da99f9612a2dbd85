"""From trained weights to a detector that can be asked: calibration, thresholds, and the file that is shipped.

All is chosen on the selection half of the validation split (`Manifest.halves`); figures come from the other half.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.architectures import load_detector
from models.checkpoint import CheckpointError, halved, read_checkpoint, save_checkpoint
from models.checkpoint_info import LOGIT_LIMIT, MAX_PEOPLE, Calibration, CheckpointInfo, Thresholds
from pipeline.types import Image
from trainers.augment import degrade
from trainers.data.clean import HELD_OUT
from trainers.data.manifest import FAKE, REAL, Manifest, ManifestError
from trainers.evaluation.scoring import Transform, open_backend, score_images
from trainers.metrics import video_index, video_labels, video_logits

Floats64 = npt.NDArray[np.float64]

# The copies of the validation videos over which the fake threshold is the worst.
COPIES: dict[str, Callable[[Image], Image] | None] = {
    "clean": None,
    "crf28": lambda image: degrade.h264(image, 28),
    "crf35": lambda image: degrade.h264(image, 35),
    "crf40": lambda image: degrade.h264(image, 40),
    "half": lambda image: degrade.resize(image, 0.5),
}
FPR, MISSES = 0.01, 0.10
# A quantile is believed where at least so many reals lie above it; further out the tail is extrapolated.
_REALS_ABOVE = 8
# The part of the reals with the highest scores that the tail is fitted to.
_TAIL = 0.1


class CalibrationError(ValueError):
    """There is not enough to calibrate on; the message says what is missing."""


@dataclass(frozen=True, eq=False, slots=True)
class ScoredCopy:
    """The videos of one copy: label int8 [V], mean clipped logits float64 [V]."""

    name: str
    label: npt.NDArray[np.int8]
    logits: Floats64


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What was chosen.

    Attributes:
        calibration: Platt's two numbers, at a prior of one half.
        thresholds: of the verdict's words.
        worst: name of the copy that set the fake threshold.
        reals: that it rests on.
    """

    calibration: Calibration
    thresholds: Thresholds
    worst: str
    reals: int


def scored_copies(
    weights: str | Path, manifest: Manifest, extra_reals: Manifest | None = None, device: str = "auto"
) -> list[ScoredCopy]:
    """The logits of the videos of a manifest, as they are and degraded.

    Args:
        weights: a checkpoint's path or zoo name.
        manifest: the rows to calibrate on.
        extra_reals: reals of another source that were not trained on; a set of their own for the fake threshold.
        device: see `models.precision.best_device`.

    Raises:
        CalibrationError: nothing of it could be scored.
    """
    detector = load_detector(weights)
    copies = []
    with open_backend(detector, device=device) as backend:

        def scored(name: str, rows: Manifest, change: Callable[[Image], Image] | None) -> ScoredCopy:
            transform: Transform | None = None if change is None else lambda image, row: change(image)
            logits = score_images(backend, detector.info.input_spec, rows, transform=transform).logits
            videos = video_index(list(rows.dataset), list(rows.source_video), list(rows.path))
            labels = video_labels(rows.label, videos, list(rows.source_video))
            means = video_logits(logits, videos)
            there = np.isfinite(means)
            return ScoredCopy(name, labels[there], np.asarray(means[there], np.float64))

        copies = [scored(name, manifest, change) for name, change in COPIES.items()]
        if extra_reals is not None and len(extra_reals):
            copies.append(scored("held-out reals", extra_reals, None))
    if not all(len(copy.label) for copy in copies):
        raise CalibrationError("no image could be scored")
    return copies


def choose(copies: list[ScoredCopy], *, fpr: float = FPR, misses: float = MISSES) -> Calibrated:
    """Calibration on the videos as they are; thresholds on all copies.

    The fake threshold is the highest quantile of the reals over the copies at `fpr`, for k people at `fpr / k`; the
    real threshold lies at the quantile `misses` of the fakes of all copies together, whatever k.

    Args:
        copies: the first holds the videos as they are, with both classes.
        fpr: share of the reals of the worst copy that are called fake.
        misses: share of the fakes that are called real.

    Raises:
        CalibrationError: a class is missing, or there are too few reals for `fpr`.
    """
    clean = copies[0]
    if len(set(clean.label.tolist())) < 2:
        raise CalibrationError("calibration needs reals and fakes")
    reals = {copy.name: copy.logits[copy.label == REAL] for copy in copies}
    fewest = min(len(scores) for name, scores in reals.items() if name in COPIES)
    if fewest * fpr < 1:
        raise CalibrationError(f"a false-positive rate of {fpr:g} needs more than {1 / fpr:.0f} reals, got {fewest}")
    calibration = platt(clean.label, clean.logits)
    # A small set of its own cannot say anything about a far quantile; it can only raise the near one.
    usable = {name: scores for name, scores in reals.items() if len(scores) * fpr >= 1}
    limits = {name: upper_quantiles(scores, fpr) for name, scores in usable.items()}
    worst = max(limits, key=lambda name: limits[name][0])
    fake_logits = np.maximum.accumulate(np.max(list(limits.values()), axis=0))
    real_logit = float(np.quantile(np.concatenate([copy.logits[copy.label == FAKE] for copy in copies]), misses))
    fake = calibration.probability(fake_logits).astype(float)
    real = min(float(calibration.probability(np.array([real_logit]))[0]), float(fake[0]))
    thresholds = Thresholds(fpr=fpr, fake=tuple(float(p) for p in fake), real=(real,) * MAX_PEOPLE)
    return Calibrated(calibration, thresholds, worst, len(reals[worst]))


def platt(label: npt.NDArray[np.int8], logits: Floats64) -> Calibration:
    """Platt scaling (1999) at a prior of one half: logistic regression with both classes of equal weight in all.

    Raises:
        CalibrationError: higher scores do not mean fake.
    """
    from sklearn.linear_model import LogisticRegression

    # A weak penalty keeps the scale finite where the classes are told apart perfectly.
    fitted = LogisticRegression(C=1e3, class_weight="balanced").fit(logits[:, None], label)
    scale, bias = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    if scale <= 0:
        raise CalibrationError("higher scores do not mean fake on the validation videos: these weights detect nothing")
    return Calibration(scale=scale, bias=bias)


def upper_quantiles(reals: Floats64, fpr: float) -> Floats64:
    """Logits above which a share `fpr / k` of the reals lies, for k = 1 to 8: float64 [8].

    Where enough reals lie above, it is their quantile. Further out it follows the exponential tail that the highest
    tenth of them has (peaks over threshold with shape 0: Coles, "An Introduction to Statistical Modeling of Extreme
    Values", 2001, chapter 4), never below the last quantile that is known.
    """
    ordered = np.sort(reals)
    start = float(np.quantile(ordered, 1 - _TAIL))
    mean_excess = max(float((ordered[ordered > start] - start).mean()) if (ordered > start).any() else 0.0, 1e-3)
    limits: list[float] = []
    for k in range(1, MAX_PEOPLE + 1):
        share = fpr / k
        if share * len(ordered) >= _REALS_ABOVE or k == 1:
            limit = float(np.quantile(ordered, 1 - share))
        else:
            limit = limits[0] + mean_excess * float(np.log(k))
        limits.append(min(limit, LOGIT_LIMIT + 1))
    return np.maximum.accumulate(np.array(limits))


def write_calibrated(weights: Path, out: Path, chosen: Calibrated, *, name: str, half: bool) -> str:
    """The detector with its calibration, as one file without training state.

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
    )
    tensors = {key: halved(tensor) if half else tensor for key, tensor in checkpoint.weights.items()}
    return save_checkpoint(out, weights=tensors, info=info)


@dataclass(frozen=True)
class CalibrateOptions:
    """What `unmask calibrate` was told.

    Attributes:
        weights: a checkpoint's path.
        manifest: holds the split.
        out: the file to write.
        name: what verdicts call the detector; its own without one.
        split: of which the selection half is taken.
        held_out: split of reals of another source, all of which can only raise the fake threshold.
        fpr: see `choose`.
        misses: see `choose`.
        half: store matrices in fp16.
        device: see `models.precision.best_device`.
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


def calibrate(options: CalibrateOptions) -> tuple[Calibrated, str]:
    """Choose on the selection half of a split, and write the detector with what was chosen.

    Returns:
        What was chosen, and the file's sha256.

    Raises:
        CalibrationError: there is not enough to calibrate on.
        models.checkpoint.CheckpointError: no checkpoint.
        trainers.data.manifest.ManifestError: no manifest.
    """
    manifest = Manifest.read(options.manifest)
    held_out = manifest.where(split=options.held_out)
    rows = manifest.where(split=options.split).halves()[0]
    if not len(rows):
        raise CalibrationError(f"{options.manifest} has no rows of the split {options.split!r} to calibrate on")
    copies = scored_copies(options.weights, rows, held_out.take(held_out.label == REAL), options.device)
    chosen = choose(copies, fpr=options.fpr, misses=options.misses)
    name = options.name or read_checkpoint(options.weights).info.name
    return chosen, write_calibrated(options.weights, options.out, chosen, name=name, half=options.half)


def run(options: CalibrateOptions, say: Callable[[str], None], fail: Callable[[str], None]) -> int:
    """`calibrate`, told in words; returns the exit code.

    Args:
        options: what.
        say: told what was chosen.
        fail: told why it cannot be done.
    """
    from models.precision import DeviceError
    from models.zoo import ZooError

    try:
        chosen, sha256 = calibrate(options)
    except (CalibrationError, CheckpointError, DeviceError, ManifestError, ZooError, OSError) as error:
        fail(str(error))
        return 2
    thresholds = chosen.thresholds
    platt_scaling = chosen.calibration
    say(f"calibration: scale {platt_scaling.scale:.4f}, bias {platt_scaling.bias:+.4f}, at a prior of one half")
    say(f"fake from {', '.join(f'{p:.4f}' for p in thresholds.fake)} for 1 to 8 people")
    say(f"  ({options.fpr:.1%} of the {chosen.reals} reals of the worst copy: {chosen.worst})")
    say(f"real below {thresholds.real[0]:.4f} ({options.misses:.0%} of the fakes of all copies)")
    say(f"{options.out}: {options.out.stat().st_size / 2**20:.2f} MiB, sha256 {sha256}")
    return 0
