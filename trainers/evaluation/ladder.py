"""The robustness ladder: metrics on pictures that are compressed, shrunk, blurred or noisy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Literal

import numpy as np
import numpy.typing as npt

from models.checkpoint_info import CheckpointInfo
from pipeline.scoring.backend import Backend
from pipeline.types import Image, Ints
from trainers.augment import degrade
from trainers.data.images import ImageError
from trainers.data.manifest import Manifest
from trainers.evaluation.items import judge
from trainers.evaluation.panel import PanelBackend
from trainers.evaluation.scoring import Progress, ScoredImages, Transform, score_images
from trainers.evaluation.summary import Judging, Level, Share, level, share_called_fake
from trainers.evaluation.video_scores import VideoScores, video_scores

LadderName = Literal["full", "short", "none"]

_METRICS = ("auc", "eer")
# x264 codes blocks of 16 px.
_SMALLEST_H264_PX = 16


@dataclass(frozen=True, slots=True)
class Step:
    """One degradation of the stored crop.

    Attributes:
        kind: what is done.
        strength: how much; whether larger values degrade more or less depends on the kind.
    """

    kind: Literal["clean", "jpeg", "h264", "resize", "blur", "defocus", "motion", "mosaic", "noise"]
    strength: float | None = None

    @property
    def name(self) -> str:
        """Readable name: "jpeg 50", "h264 crf 35"."""
        unit = {
            "h264": " crf",
            "blur": " sigma",
            "noise": " sigma",
            "defocus": " radius",
            "motion": " length",
            "mosaic": " cell",
        }.get(self.kind, "")
        return self.kind if self.strength is None else f"{self.kind}{unit} {self.strength:g}"

    @property
    def size(self) -> float:
        """Of the face afterwards, in parts of its size in the source."""
        return self.strength if self.kind == "resize" and self.strength is not None else 1.0

    def transform(self, seed: int) -> Transform | None:
        """What `score_images` does to each crop; None for the clean step.

        Args:
            seed: of the noise, which differs from row to row.
        """
        if self.strength is None:
            return None
        strength = self.strength

        def noisy(image: Image, row: int) -> Image:
            return degrade.noise(image, strength, np.random.default_rng((seed, row)))

        of: dict[str, Callable[[Image, int], Image]] = {
            "jpeg": lambda image, row: degrade.jpeg(image, int(strength)),
            "h264": lambda image, row: _h264(image, strength),
            "resize": lambda image, row: degrade.resize(image, strength),
            "blur": lambda image, row: degrade.blur(image, strength),
            "defocus": lambda image, row: degrade.defocus(image, strength),
            # Directions in steps of the golden angle: evenly spread for any rows.
            "motion": lambda image, row: degrade.motion_blur(image, strength, row * 137.5 % 180),
            "mosaic": lambda image, row: degrade.mosaic(image, strength),
            "noise": noisy,
        }
        return of[self.kind]


CLEAN = Step("clean")
STEPS: dict[LadderName, tuple[Step, ...]] = {
    "full": (
        CLEAN,
        *(Step("jpeg", quality) for quality in (90, 70, 50, 30)),
        *(Step("h264", crf) for crf in (23, 28, 35, 40)),
        *(Step("resize", factor) for factor in (0.5, 0.25)),
        # Lengths in px of the stored crop, 224 px in most sets.
        *(Step("blur", sigma_px) for sigma_px in (1, 2, 3, 5, 8)),
        *(Step("defocus", radius_px) for radius_px in (4, 8)),
        *(Step("motion", length_px) for length_px in (8, 16)),
        *(Step("mosaic", cell_px) for cell_px in (4, 8)),
        *(Step("noise", sigma) for sigma in (5, 10, 25)),
    ),
    # The shipped weights are selected by these.
    "short": (CLEAN, Step("h264", 35), Step("resize", 0.5), Step("jpeg", 50)),
    "none": (),
}


@dataclass(frozen=True, slots=True)
class Rung:
    """The numbers under one degradation.

    Metrics are AUC and EER only. The shares are over videos if they exist, else over frames, and None if
    the weights have no thresholds.

    Attributes:
        name: of the step.
        kind: of the step.
        strength: of the step; None for the clean pictures.
        failed: pictures without a score.
        reason: why the step was left out; None if it was run.
        false_alarms: share of the reals that the weights' own thresholds call fake.
        caught: share of the fakes that they call fake.
        scores: of each video.
    """

    name: str
    kind: str
    strength: float | None
    failed: int
    frame: Level | None
    video: Level | None
    reason: str | None = None
    false_alarms: Share | None = None
    caught: Share | None = None
    scores: VideoScores | None = None


@dataclass(frozen=True, slots=True)
class Ladder:
    """All rungs, over the same rows.

    Attributes:
        rows: used for the ladder.
        of: rows of the set.
        seed: of the sample and of the noise.
    """

    rows: int
    of: int
    seed: int
    rungs: tuple[Rung, ...]


def climb(
    steps: tuple[Step, ...],
    backend: Backend | PanelBackend,
    info: CheckpointInfo,
    manifest: Manifest,
    clean: ScoredImages,
    judging: Judging,
    *,
    rows: int,
    batch: int,
    progress: Callable[[Step], Progress | None],
) -> Ladder:
    """Score a manifest's pictures under each step, all on the same rows.

    Args:
        steps: what is done to the stored crops before they are resized to the input's size.
        backend: of the detector.
        info: of the detector.
        manifest: the set, N rows.
        clean: logits and qualities of its N pictures as they are.
        judging: how numbers are made; its seed draws the sample.
        rows: a larger set is sampled, as many reals as fakes.
        batch: images loaded ahead.
        progress: returns the callback for progress of a step.

    Raises:
        BackendError: the backend fails.
    """
    which = balanced_sample(manifest.label, rows, judging.seed)
    sample = manifest.take(which)
    brief = replace(judging, metrics=_METRICS)
    rungs = []
    for step in steps:
        facts = (step.name, step.kind, step.strength)
        if step.kind == "h264" and find_spec("av") is None:
            rungs.append(Rung(*facts, 0, None, None, "PyAV is not installed"))
            continue
        logits, quality = clean.logits[which], clean.quality[which]
        if (transform := step.transform(judging.seed)) is not None:
            scored = score_images(
                backend,
                info.input_spec,
                sample,
                transform=transform,
                quality=True,
                size=step.size,
                batch=batch,
                progress=progress(step),
            )
            logits, quality = scored.logits, scored.quality
        judged = judge(sample, logits, info.calibration, info.thresholds, quality)
        failed = int(np.isnan(logits).sum())
        frames, videos = level(judged.frames, brief), level(judged.videos, brief)
        called = best.called if (best := videos or frames) is not None else None
        false_alarms = None if called is None else share_called_fake(called.reals)
        caught = None if called is None else share_called_fake(called.fakes)
        scores = video_scores(judged.videos, sample)
        rungs.append(Rung(*facts, failed, frames, videos, None, false_alarms, caught, scores))
    return Ladder(len(sample), len(manifest), judging.seed, tuple(rungs))


def balanced_sample(labels: npt.NDArray[np.int8], rows: int, seed: int) -> Ints:
    """Indices of all rows; of more than `rows`, a seeded sample with half of each class (all, if it has fewer)."""
    if len(labels) <= rows:
        return np.arange(len(labels))
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(np.flatnonzero(labels == label))[: rows // 2] for label in (0, 1)]
    return np.sort(np.concatenate(drawn))


def _h264(image: Image, crf: float) -> Image:
    if min(image.shape[:2]) < _SMALLEST_H264_PX:
        raise ImageError(f"{image.shape[1]}x{image.shape[0]} px is too small for H.264")
    return degrade.h264(image, crf)
