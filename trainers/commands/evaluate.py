"""Measure a detector on labelled crops and clips."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.errors import exit_on_error
from pipeline.commands.inputs import check_exist, check_weights
from pipeline.commands.options import (
    Backend,
    ClipsAtOnce,
    Device,
    FaceDetector,
    FaceWeights,
    LooksOption,
    Weights,
    clips_at_once,
    parse_looks,
)


class Half(StrEnum):
    """Halves of a split, separated by a hash of the group."""

    SELECTION = "selection"
    REPORT = "report"


class LadderChoice(StrEnum):
    """Which part of the robustness ladder to run."""

    FULL = "full"
    SHORT = "short"
    NONE = "none"


def run(
    manifest: Annotated[
        list[Path],
        typer.Option(help="Manifest of crops (.csv, .parquet), or folder of clips with labels.csv; repeatable."),
    ],
    weights: Weights = None,
    looks: LooksOption = None,
    split: Annotated[str | None, typer.Option(help="Only rows of this split.", show_default="all rows")] = None,
    half: Annotated[Half | None, typer.Option(help="One half of these rows, by a hash of the group.")] = None,
    ladder: Annotated[LadderChoice, typer.Option(help="Degradations to try.")] = LadderChoice.FULL,
    ladder_rows: Annotated[int, typer.Option(help="Rows for the ladder; larger sets are sampled.", min=2)] = 1000,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write all numbers to this file as JSON.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write a Markdown report to this file, with plots next to it.")
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Write path, label and probability of each image or clip to this file as CSV.")
    ] = None,
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples; 0: no intervals.", min=0)] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of bootstrap, ladder sample and noise.", min=0)] = 0,
    fps: Annotated[float, typer.Option(help="For clips: scored frames per second.", min=0.001)] = 2.0,
    detector: FaceDetector = "mtcnn",
    detector_weights: FaceWeights = None,
    backend: Backend = "auto",
    device: Device = "auto",
    workers: ClipsAtOnce = "auto",
) -> None:
    """Measure a detector on labelled crops and clips: metrics with intervals, slices, robustness.

    Exit codes: 0 all scored, 3 some images or clips failed, 2 bad options or input, 130 interrupted.
    """
    with exit_on_error():
        check_exist(manifest)
        check_weights(weights)

    from pipeline.logs import configure_logging
    from pipeline.scanner_options import ScannerOptions
    from pipeline.video.sampling import Fps
    from trainers.evaluation.run import EvaluateOptions
    from trainers.evaluation.run import run as evaluate

    # Standard output is for the numbers only.
    configure_logging(level="warning", as_json=False)
    options = EvaluateOptions(
        manifests=tuple(manifest),
        weights=weights,
        split=split,
        half=None if half is None else half.value,
        ladder=ladder.value,
        ladder_rows=ladder_rows,
        resamples=resamples,
        seed=seed,
        scan=ScannerOptions(
            sampling=Fps(fps),
            face_detector=detector,
            face_weights=detector_weights,
            looks=parse_looks(looks),
            backend=backend,
            device=device,
            workers=clips_at_once(workers),
        ),
        json_path=json_path,
        report=report,
        predictions=predictions,
    )
    raise typer.Exit(evaluate(options))
