"""Clips judged by the pipeline itself, from file to verdict: one prediction per clip, or an outcome without one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pipeline.scanner_options import ScannerOptions
from trainers.evaluation.items import Items
from trainers.evaluation.panel import Panel
from trainers.evaluation.sets import Clip, ClipSet, SetError

if TYPE_CHECKING:
    from pipeline.contracts import Verdict


@dataclass(frozen=True, slots=True)
class ClipVerdict:
    """Result of one clip.

    Attributes:
        file: as in labels.csv.
        label: real or fake, the truth.
        method: how it was forged; empty for real ones.
        dataset: that it is from.
        outcome: see `pipeline.contracts.Outcome`.
        probability: calibrated P(fake); None unless the outcome is scored.
        likelihood_ratio: of the deciding person; None also if the weights have no bounds.
        word: the verdict's label: fake, real or inconclusive; None unless scored.
        people: that decided or were seen.
        error: why it has no score.
    """

    file: str
    label: str
    method: str
    dataset: str
    outcome: str
    probability: float | None
    word: str | None
    people: int
    error: str | None
    likelihood_ratio: float | None = None


@dataclass(frozen=True, slots=True)
class ScannedClips:
    """Verdicts in the order of labels.csv, and how they were made."""

    verdicts: tuple[ClipVerdict, ...]
    face_detector: str
    sampling: str
    backend: str


def scan_clips(
    clips: ClipSet, detector: Panel, options: ScannerOptions, *, progress: Callable[[int], None] | None = None
) -> ScannedClips:
    """Judge each clip as `unmask scan` does.

    Raises:
        SetError: the pipeline's libraries are not installed, or the face detector does not exist.
        BackendError: the backend is not available.
    """
    try:
        from pipeline import assembly
        from pipeline.detectors import Detector
        from pipeline.faces.detector import DetectorError
        from pipeline.scan_many import scan_all
        from pipeline.sources import Source
    except ModuleNotFoundError as error:
        raise SetError(
            f"{clips.source}: clips need the whole pipeline, but {error.name} is not installed; manifests do not"
        ) from error
    names = {str(clips.source / clip.file): clip for clip in clips.clips}
    found: dict[str, ClipVerdict] = {}
    with ExitStack() as stack:
        try:
            scanner = stack.enter_context(
                assembly.scanner(
                    [Detector.of(each.model, each.info, each.sha256) for each in detector.members],
                    replace(options, looks=detector.looks),
                    portraits=False,
                )
            )
        except (DetectorError, ValueError) as error:
            raise SetError(f"{clips.source}: {error}") from error
        backend, face_detector = scanner.engine.name, scanner.provenance.detector
        for source, report in scan_all(scanner, [Source(name) for name in names], workers=options.clips_at_once):
            if report is not None:  # None only if earlier verdicts are kept, which is not the case here
                found[source.name] = _verdict(names[source.name], report.verdict)
            if progress is not None:
                progress(len(found))
    return ScannedClips(tuple(found[name] for name in names), face_detector, options.sampling.describe(), backend)


def _verdict(clip: Clip, verdict: Verdict) -> ClipVerdict:
    return ClipVerdict(
        clip.file,
        "fake" if clip.label else "real",
        clip.method,
        clip.dataset,
        verdict.outcome.value,
        verdict.probability,
        None if verdict.label is None else verdict.label.value,
        len(verdict.people),
        verdict.error,
        verdict.likelihood_ratio,
    )


def items_of(verdicts: tuple[ClipVerdict, ...]) -> Items:
    """The scored clips: outcomes without a score do not count as 0.5; they are left out and counted."""
    scored = [verdict for verdict in verdicts if verdict.probability is not None]
    return Items(
        np.array([verdict.label == "fake" for verdict in scored], np.int8),
        np.array([verdict.probability for verdict in scored], np.float32),
        np.arange(len(scored)),
        np.array([verdict.dataset for verdict in scored], np.str_),
        np.array([verdict.method for verdict in scored], np.str_),
        np.array([verdict.word for verdict in scored], np.str_),
        np.full(len(scored), np.nan, np.float32),
    )
