"""The copies of the validation videos that weights are calibrated on: the originals, and degraded as in real life."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from models.architectures import load_detector
from models.calibration import Calibration
from pipeline.faces.quality import MIN_QUALITY
from pipeline.types import Image
from pipeline.verdict.evidence import LogitSums
from trainers.augment import degrade
from trainers.calibration_fit import CalibrationError, Floats64
from trainers.data.manifest import Manifest
from trainers.evaluation.ladder import balanced_sample
from trainers.evaluation.scoring import open_backend, score_images
from trainers.metrics import Index, video_index, video_labels

Change = Callable[[Image, int], Image]


@dataclass(frozen=True, slots=True)
class Copy:
    """One way to change pictures.

    Attributes:
        change: of a stored crop and its row; None: unchanged.
        size: of the face, in parts of its size in the source.
        everyday: common in real clips; bounds of likelihood ratios come from such copies.
    """

    change: Change | None = None
    size: float = 1.0
    everyday: bool = False


def _resized(factor: float, *, everyday: bool = False) -> Copy:
    return Copy(lambda image, row: degrade.resize(image, factor), factor, everyday)


# The fake threshold must hold on these, and trust in quality is learned from them. A mosaic and a very small face are
# both shrunk; the mosaic comes back in blocks, at its full size.
COPIES: dict[str, Copy] = {
    "clean": Copy(everyday=True),
    "crf28": Copy(lambda image, row: degrade.h264(image, 28), everyday=True),
    "crf35": Copy(lambda image, row: degrade.h264(image, 35), everyday=True),
    "crf40": Copy(lambda image, row: degrade.h264(image, 40), everyday=True),
    "half": _resized(0.5, everyday=True),
    "quarter": _resized(0.25),
    "blur2": Copy(lambda image, row: degrade.blur(image, 2)),
    "blur4": Copy(lambda image, row: degrade.blur(image, 4)),
    "blur8": Copy(lambda image, row: degrade.blur(image, 8)),
    "noise15": Copy(lambda image, row: degrade.noise(image, 15, np.random.default_rng((0, row)))),
    "jpeg20": Copy(lambda image, row: degrade.jpeg(image, 20)),
    "mosaic": Copy(lambda image, row: degrade.resize(image, 1 / 6, up=cv2.INTER_NEAREST)),
}


@dataclass(frozen=True, eq=False, slots=True)
class Tracks:
    """V videos judged as in serving, each as one track.

    Attributes:
        label: int8 [V].
        mean: float64 [V], weighted mean of the frames' clipped logits.
        trust: float64 [V] in 0..1, of their qualities.
        log_odds: float64 [V], calibrated.
        video: int64 [V], the same number in every copy.
        group: int64 [V], groups that a cross-validation must keep together.
    """

    label: npt.NDArray[np.int8]
    mean: Floats64
    trust: Floats64
    log_odds: Floats64
    video: Index
    group: Index


@dataclass(frozen=True, eq=False, slots=True)
class ScoredCopy:
    """The N scored frames of one copy.

    Attributes:
        name: of the copy.
        label: int8 [N].
        logits: float64 [N], log-odds of fake before calibration.
        quality: float64 [N] in 0..1.
        video: int64 [N], the video that each is from.
        group: int64 [N], see `Tracks`.
    """

    name: str
    label: npt.NDArray[np.int8]
    logits: Floats64
    quality: Floats64
    video: Index
    group: Index

    def weights(self) -> Floats64:
        """Weight of each frame if all videos weigh 1: float64 [N]."""
        _, number, count = np.unique(self.video, return_inverse=True, return_counts=True)
        return np.asarray(1.0 / count[number], np.float64)

    def tracks(self, calibration: Calibration) -> Tracks:
        """The videos, judged by the serving code."""
        videos, first = np.unique(self.video, return_index=True)
        sums = LogitSums.of_groups(self.logits, self.quality, self.video, calibration)
        return Tracks(
            self.label[first],
            sums.mean,
            sums.trust(calibration),
            sums.log_odds(calibration),
            videos,
            self.group[first],
        )


def scored_copies(
    weights: str | Path,
    manifest: Manifest,
    extra_reals: Manifest | None = None,
    device: str = "auto",
    *,
    rows: int | None = None,
) -> list[ScoredCopy]:
    """The scores of a manifest's pictures, original and degraded, without those too poor to be scored in serving.

    Args:
        weights: a checkpoint's path or zoo name.
        manifest: the rows to calibrate on.
        extra_reals: reals of another source that were not trained on; a separate set for the fake threshold.
        device: see `models.precision.best_device`.
        rows: most rows of the manifest to use, as many reals as fakes, always the same ones; None: all.

    Raises:
        CalibrationError: none of it could be scored.
    """
    if rows is not None:
        manifest = manifest.take(balanced_sample(manifest.label, rows, 0))
    detector = load_detector(weights)
    with open_backend(detector, device=device) as backend:

        def scored(name: str, rows: Manifest, copy: Copy) -> ScoredCopy:
            found = score_images(
                backend, detector.info.input_spec, rows, transform=copy.change, quality=True, size=copy.size
            )
            videos = video_index(list(rows.dataset), list(rows.source_video), list(rows.path))
            label = video_labels(rows.label, videos, list(rows.source_video))[videos]
            group = np.unique(rows.group, return_inverse=True)[1]
            there = np.isfinite(found.logits) & (found.quality >= MIN_QUALITY)
            return ScoredCopy(
                name,
                label[there],
                found.logits[there].astype(np.float64),
                found.quality[there].astype(np.float64),
                videos[there],
                group[there],
            )

        copies = [scored(name, manifest, copy) for name, copy in COPIES.items()]
        if extra_reals is not None and len(extra_reals):
            copies.append(scored("held-out reals", extra_reals, Copy()))
    if not len(copies[0].label):
        raise CalibrationError("no image could be scored")
    # A copy without a face good enough for serving says nothing about what serving calls fake.
    return [copy for copy in copies if len(copy.label)]
