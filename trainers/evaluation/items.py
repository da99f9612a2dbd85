"""Scored items, columnar: frames, and the videos that they are from."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from models.calibration import probability_of
from models.checkpoint_info import Calibration, Thresholds
from pipeline.types import Floats, Ints
from pipeline.verdict.evidence import LogitSums
from trainers.data.manifest import Manifest, Strings
from trainers.metrics import MixedVideoError, video_index, video_labels


@dataclass(frozen=True, eq=False, slots=True)
class Items:
    """N scored items, frames or whole videos.

    Attributes:
        label: int8 [N], 0 real and 1 fake.
        probability: float32 [N], calibrated P(fake).
        video: int64 [N], number of the video of each item.
        dataset: str [N].
        method: str [N], how it was forged; empty for real ones.
        verdict: str [N], the label of a verdict: fake, real or inconclusive.
        quality: float32 [N] in 0..1, for videos the mean of their frames; nan if not measured.
    """

    label: npt.NDArray[np.int8]
    probability: Floats
    video: Ints
    dataset: Strings
    method: Strings
    verdict: Strings
    quality: Floats

    def __len__(self) -> int:
        return len(self.label)

    def take(self, which: npt.NDArray[np.bool_] | npt.NDArray[np.integer]) -> Items:
        """The items at these indices or under this mask."""
        return Items(*(getattr(self, column.name)[which] for column in fields(self)))


@dataclass(frozen=True, eq=False, slots=True)
class Judged:
    """The scored items of a set.

    Attributes:
        frames: None if clips were judged as a whole.
        videos: None if the frames of a video have different labels.
        reason: why there are no videos.
    """

    frames: Items | None
    videos: Items | None
    reason: str | None = None

    def take(self, dataset: str, method: str | None = None) -> Judged:
        """Those of a dataset; with `method`, its fakes and all reals of the dataset."""

        def of(items: Items | None) -> Items | None:
            if items is None:
                return None
            keep = items.dataset == dataset
            return items.take(keep if method is None else keep & ((items.label == 0) | (items.method == method)))

        return Judged(of(self.frames), of(self.videos), self.reason)


def verdict_labels(probabilities: Floats, thresholds: Thresholds | None) -> Strings:
    """The verdict on one person, str [N], as in `pipeline.verdict.calibration.label` (a test compares them)."""
    if thresholds is None:
        return np.full(len(probabilities), "inconclusive")
    real, fake = thresholds.of(1)
    return np.where(probabilities >= fake, "fake", np.where(probabilities < real, "real", "inconclusive"))


def frames_of(
    manifest: Manifest,
    logits: Floats,
    calibration: Calibration,
    thresholds: Thresholds | None,
    quality: Floats | None = None,
) -> Items:
    """The scored frames of a manifest, each judged by itself.

    Args:
        manifest: N rows.
        logits: float32 [N]; rows with nan are left out.
        calibration: of the detector.
        thresholds: of the detector.
        quality: float32 [N] in 0..1; None: not measured, the best is assumed.
    """
    scored = np.flatnonzero(np.isfinite(logits))
    known = None if quality is None else quality[scored]
    chance = calibration.probability(logits[scored], known)
    return Items(
        manifest.label[scored],
        chance,
        video_numbers(manifest)[scored],
        manifest.dataset[scored],
        manifest.method[scored],
        verdict_labels(chance, thresholds),
        np.full(len(scored), np.nan, np.float32) if known is None else known,
    )


def videos_of(
    manifest: Manifest,
    logits: Floats,
    calibration: Calibration,
    thresholds: Thresholds | None,
    quality: Floats | None = None,
) -> Items:
    """The videos that a manifest's frames are from, judged as serving judges a track.

    Args:
        manifest: N rows.
        logits: float32 [N], nan if missing; videos without any are left out.
        calibration: of the detector.
        thresholds: of the detector.
        quality: float32 [N] in 0..1; None: not measured, all frames weigh the same.

    Raises:
        MixedVideoError: frames of one video have different labels.
    """
    videos = video_numbers(manifest)
    labels = video_labels(manifest.label, videos, manifest.source_video.tolist())
    finite = np.isfinite(logits)
    known = np.ones(len(logits), np.float32) if quality is None else quality
    sums = LogitSums.of_groups(logits[finite], known[finite], videos[finite], calibration)
    scored = np.unique(videos[finite])
    # Videos are numbered in the order of their first frames.
    _, first = np.unique(videos, return_index=True)
    chance = probability_of(sums.log_odds(calibration))
    means = (sums.quality / sums.count if quality is not None else np.full(len(chance), np.nan)).astype(np.float32)
    rows = first[scored]
    return Items(
        labels[scored],
        chance,
        scored,
        manifest.dataset[rows],
        manifest.method[rows],
        verdict_labels(chance, thresholds),
        means,
    )


def judge(
    manifest: Manifest,
    logits: Floats,
    calibration: Calibration,
    thresholds: Thresholds | None,
    quality: Floats | None = None,
) -> Judged:
    """Frames and videos; if a video has both labels, the reason instead of the videos."""
    frames = frames_of(manifest, logits, calibration, thresholds, quality)
    try:
        return Judged(frames, videos_of(manifest, logits, calibration, thresholds, quality))
    except MixedVideoError as error:
        return Judged(frames, None, str(error))


def video_numbers(manifest: Manifest) -> Ints:
    """The number of each row's video: int64 [N], in the order of their first rows."""
    return video_index(manifest.dataset.tolist(), manifest.source_video.tolist(), manifest.path.tolist())
