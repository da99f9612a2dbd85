"""From a detector and a set to metrics."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import cv2
import numpy as np

from models.checkpoint_info import CheckpointInfo, library_versions
from pipeline.scanner_options import ScannerOptions
from pipeline.scoring.backend import Backend
from trainers.data.actors import unseen
from trainers.evaluation import clips as clip_scan
from trainers.evaluation.clips import ClipVerdict
from trainers.evaluation.items import Judged, frames_of, judge
from trainers.evaluation.ladder import Ladder, Step, climb
from trainers.evaluation.panel import Panel, PanelBackend
from trainers.evaluation.scoring import Measures, Progress, ScoredImages, score_images
from trainers.evaluation.sets import ClipSet, CropSet, Half
from trainers.evaluation.summary import (
    Band,
    Bin,
    Group,
    Judging,
    Level,
    Slice,
    bands,
    bins,
    face_bands,
    groups,
    jpeg_size,
    level,
    slices,
)
from trainers.evaluation.video_scores import VideoScores, video_scores
from trainers.metrics import Estimate

REPORT_SCHEMA = 1

# Takes the task and the number of items; returns the callback for progress.
Announce = Callable[[str, int], Progress | None]


@dataclass(frozen=True, slots=True)
class Failure:
    """An image without a score."""

    path: str
    error: str


@dataclass(frozen=True, slots=True)
class SetResult:
    """Results of one set.

    Attributes:
        name: of the set.
        kind: `crops`: rows of a manifest; `clips`: videos that went through the pipeline.
        source: as given.
        split: of the rows; None: all.
        half: of the split; None: both.
        manifest_sha256: of the whole manifest, see `Manifest.sha256`; None for clips.
        rows_sha256: of the used rows.
        rows: crops or clips.
        backend: that computed the scores.
        frame: numbers over crops; None for clips.
        video: numbers over videos, or over clips.
        video_reason: why there are no numbers over videos.
        datasets: the same for each dataset.
        methods: each method's fakes against all reals of its dataset.
        slices: AUC in thirds of size, sharpness and brightness of the crops.
        jpeg_size: AUC of calling the smaller JPEG (quality 90) a fake; the model's AUC is in `frame`.
        bands: crops by quality: their metrics at equal priors, and their labels.
        face_bands: the same by the width of the face in the frame that the crop was cut from, in px.
        reliability: bins of the ECE, of crops or of clips.
        ladder: None if not requested, and for clips.
        scores: of each video; None without videos, and for clips.
        failures: crops without a score.
        outcomes: number of clips by outcome; None for crops.
        clips: each clip; None for crops.
        face_detector: that found the faces of the clips.
        sampling: of the clips.
    """

    name: str
    kind: Literal["crops", "clips"]
    source: str
    split: str | None
    half: Half | None
    manifest_sha256: str | None
    rows_sha256: str | None
    rows: int
    backend: str
    frame: Level | None
    video: Level | None
    video_reason: str | None
    datasets: list[Group]
    methods: list[Group]
    slices: list[Slice] = field(default_factory=list)
    jpeg_size: Estimate | None = None
    bands: list[Band] = field(default_factory=list)
    face_bands: list[Band] = field(default_factory=list)
    reliability: list[Bin] = field(default_factory=list)
    ladder: Ladder | None = None
    scores: VideoScores | None = None
    failures: list[Failure] = field(default_factory=list)
    outcomes: dict[str, int] | None = None
    clips: list[ClipVerdict] | None = None
    face_detector: str | None = None
    sampling: str | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """P(fake) of one image or clip, with its name in the set."""

    path: str
    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A set's result, its predictions, and the scored items for plots."""

    result: SetResult
    predictions: list[Prediction]
    judged: Judged


@dataclass(frozen=True, slots=True)
class Report:
    """Contents of `--json`; `to_dict` gives the JSON form.

    Attributes:
        model: name, architecture, weights and their sha256, input spec and its hash, calibration, thresholds,
            looks (views of each face), members. For an ensemble, names and sha256 are joined by +, so no promotion
            takes it for one detector.
        settings: everything besides model and data that the numbers depend on.
        software: versions.
        created_at: Unix seconds.
        elapsed_s: duration in seconds.
        sets: in the order named.
    """

    model: dict[str, Any]
    settings: dict[str, Any]
    software: dict[str, str]
    created_at: float
    elapsed_s: float
    sets: list[SetResult]
    schema: int = REPORT_SCHEMA

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: fields by their names, an `Estimate` as value, low, high and reason, null for None."""
        return {"schema": self.schema, **asdict(self)}


def _unseen_actors(crops: CropSet, scored: ScoredImages, info: CheckpointInfo, judging: Judging) -> list[Group]:
    """For each dataset with rows of both classes that show people that the split train does not: their figures."""
    rows, found = crops.rows, []
    new_people = unseen(rows, crops.manifest)
    for dataset in np.unique(rows.dataset[new_people]).tolist():
        which = new_people & (rows.dataset == dataset)
        if len(set(rows.label[which].tolist())) < 2:
            continue
        judged = judge(rows.take(which), scored.logits[which], info.calibration, info.thresholds, scored.quality[which])
        name = f"{dataset}, unseen actors"
        found.append(Group(name, None, level(judged.frames, judging), level(judged.videos, judging)))
    return found


def evaluate_crops(
    crops: CropSet,
    detector: Panel,
    backend: Backend | PanelBackend,
    judging: Judging,
    *,
    steps: tuple[Step, ...],
    ladder_rows: int,
    batch: int,
    announce: Announce,
) -> Evaluated:
    """Score the rows of a manifest and judge the scores.

    Args:
        crops: the set.
        detector: computes with `backend`.
        backend: computes the scores.
        judging: how numbers are computed.
        steps: of the ladder; empty for none.
        ladder_rows: see `trainers.evaluation.ladder.climb`.
        batch: images loaded ahead.
        announce: see `Announce`.

    Raises:
        BackendError: the backend fails.
    """
    info, rows = detector.info, crops.rows
    progress = announce(crops.name, len(rows))
    scored = score_images(backend, info.input_spec, rows, measure=True, quality=True, batch=batch, progress=progress)
    judged = judge(rows, scored.logits, info.calibration, info.thresholds, scored.quality)
    frames = frames_of(rows, scored.logits, info.calibration, info.thresholds, scored.quality)
    finite = np.isfinite(scored.logits)
    measures = Measures(*(column[finite] for column in scored.measures))
    datasets, methods = groups(judged, judging)
    datasets += _unseen_actors(crops, scored, info, judging)
    ladder = None
    if steps:
        ladder = climb(
            steps,
            backend,
            info,
            rows,
            scored,
            judging,
            rows=ladder_rows,
            batch=batch,
            progress=lambda step: announce(f"{crops.name}, {step.name}", min(ladder_rows, len(rows))),
        )
    result = SetResult(
        name=crops.name,
        kind="crops",
        source=str(crops.source),
        split=crops.split,
        half=crops.half,
        manifest_sha256=crops.manifest.sha256,
        rows_sha256=rows.sha256,
        rows=len(rows),
        backend=backend.name,
        frame=level(frames, judging),
        video=level(judged.videos, judging),
        video_reason=judged.reason,
        datasets=datasets,
        methods=methods,
        slices=slices(frames, rows.source_width[finite], measures, judging),
        jpeg_size=jpeg_size(frames, measures, judging),
        bands=bands(frames, judging),
        face_bands=face_bands(frames, scored.face_px[finite], judging),
        reliability=bins(frames, judging),
        ladder=ladder,
        scores=video_scores(judged.videos, rows),
        failures=[Failure(str(rows.path[row]), error) for row, error in sorted(scored.failures.items())],
    )
    names = ("real", "fake")
    predictions = [
        Prediction(path, names[label], chance)
        for path, label, chance in zip(
            rows.path[finite].tolist(), frames.label.tolist(), frames.probability.tolist(), strict=True
        )
    ]
    return Evaluated(result, predictions, judged)


def evaluate_clips(
    clips: ClipSet, detector: Panel, judging: Judging, options: ScannerOptions, *, announce: Announce
) -> Evaluated:
    """Send clips through the pipeline and judge its verdicts.

    Raises:
        SetError: libraries of the pipeline are missing.
        BackendError: the backend is not available.
        DetectorError: the face detector is not available.
    """
    progress = announce(clips.name, len(clips.clips))
    scanned = clip_scan.scan_clips(clips, detector, options, progress=progress)
    judged = Judged(None, clip_scan.items_of(scanned.verdicts))
    datasets, methods = groups(judged, judging)
    result = SetResult(
        name=clips.name,
        kind="clips",
        source=str(clips.source),
        split=None,
        half=None,
        manifest_sha256=None,
        rows_sha256=None,
        rows=len(clips.clips),
        backend=scanned.backend,
        frame=None,
        video=level(judged.videos, judging),
        video_reason=None,
        datasets=datasets,
        methods=methods,
        reliability=[] if judged.videos is None else bins(judged.videos, judging),
        outcomes=dict(sorted(Counter(verdict.outcome for verdict in scanned.verdicts).items())),
        clips=list(scanned.verdicts),
        face_detector=scanned.face_detector,
        sampling=scanned.sampling,
    )
    predictions = [
        Prediction(verdict.file, verdict.label, verdict.probability)
        for verdict in scanned.verdicts
        if verdict.probability is not None
    ]
    return Evaluated(result, predictions, judged)


def report_on(
    detector: Panel, weights: str, settings: dict[str, Any], results: list[SetResult], started_at: float
) -> Report:
    """The report on a detector.

    Args:
        detector: that was evaluated.
        weights: as given.
        settings: everything besides model and data that the numbers depend on.
        results: of all sets.
        started_at: Unix seconds.
    """
    info = detector.info
    return Report(
        model={
            "name": info.name or info.architecture,
            "architecture": info.architecture,
            "weights": weights,
            "weights_sha256": detector.sha256,
            "input_spec": info.input_spec.to_dict(),
            "input_spec_hash": info.input_spec.hash,
            "calibration": asdict(info.calibration),
            "thresholds": None if info.thresholds is None else asdict(info.thresholds),
            "looks": detector.looks.describe(),
            "members": [{"name": each.info.name, "weights_sha256": each.sha256} for each in detector.members],
            "data_manifest_sha256": info.data_manifest_sha256,
        },
        settings=settings,
        software={**library_versions(), "opencv": cv2.__version__},
        created_at=round(started_at, 3),
        elapsed_s=round(time.time() - started_at, 3),
        sets=results,
    )
