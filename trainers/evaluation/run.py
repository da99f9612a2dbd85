"""`unmask evaluate` behind its options: detector, sets, outputs, exit code."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from models.atomic import atomic_write
from models.errors import UnmaskError
from models.zoo import split_names
from pipeline.outputs import Output, OutputError, check_outputs
from pipeline.scanner_options import ScannerOptions
from trainers.evaluation.console import announce, complain, say, show
from trainers.evaluation.evaluate import Evaluated, Report, SetResult, evaluate_clips, evaluate_crops, report_on
from trainers.evaluation.ladder import STEPS, LadderName
from trainers.evaluation.panel import Panel, load_panel
from trainers.evaluation.report import write_report
from trainers.evaluation.sets import ClipSet, CropSet, Half, find_sets
from trainers.evaluation.summary import Judging
from trainers.evaluation.tables import overview, tables

EXIT_ALL_SCORED = 0
EXIT_BAD_INPUT = 2
EXIT_SOME_FAILED = 3
EXIT_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """Options of `unmask evaluate`.

    Attributes:
        manifests: .csv or .parquet files, or folders of clips with labels.csv; each is a set.
        weights: a checkpoint's path or name, or several separated by commas; None: the shipped ones.
        split: rows of manifests to use; None: all.
        half: of these rows, the selection half or the reporting half; None: both.
        ladder: of degradations; `short` has three.
        ladder_rows: larger sets are sampled for the ladder.
        resamples: of the bootstrap.
        seed: of bootstrap, sample and noise.
        scan: how clips are read; crops take its looks, backend and device.
        batch: images loaded ahead.
        json_path: file for the report as JSON, see `trainers.evaluation.evaluate.Report`.
        report: file for the report as Markdown, with plots next to it.
        predictions: file for P(fake) of each image or clip, as CSV.
    """

    manifests: tuple[Path, ...]
    weights: str | None = None
    split: str | None = None
    half: Half | None = None
    ladder: LadderName = "full"
    ladder_rows: int = 1000
    resamples: int = 1000
    seed: int = 0
    scan: ScannerOptions = field(default_factory=ScannerOptions)
    batch: int = 64
    json_path: Path | None = None
    report: Path | None = None
    predictions: Path | None = None

    def __post_init__(self) -> None:
        for name in ("ladder_rows", "batch"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name} must be at least 2, got {getattr(self, name)}")
        if self.resamples < 0:
            raise ValueError(f"resamples must not be negative, got {self.resamples}")


def run(options: EvaluateOptions) -> int:
    """Evaluate, show the summary, write the outputs; returns the exit code.

    0: every image and clip was scored; 3: some failed and are listed; 2: bad options or input; 130: interrupted.
    """
    try:
        report, evaluated = evaluate(options)
        written = _write(options, report, evaluated)
        _show(report)
        for what, path in written:
            say(f"{what}: {path}")
    except UnmaskError as error:
        complain(f"Error: {error}")
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        complain("Interrupted")
        return EXIT_INTERRUPTED
    lost = sum(_lost(each) for each in report.sets)
    return EXIT_SOME_FAILED if lost else EXIT_ALL_SCORED


def evaluate(options: EvaluateOptions) -> tuple[Report, list[Evaluated]]:
    """The report, and the data for plots and predictions.

    Raises:
        SetError: nothing to evaluate, or an invalid set.
        ManifestError: a manifest cannot be read.
        ZooError: the weights do not exist, or none are shipped.
        CheckpointError: weights cannot be read.
        ConfigError: the weights have an architecture or option that this version lacks.
        BackendError: the backend is not available or fails.
        DeviceError: the device does not exist.
        OutputError: an output cannot be written, or would replace an input or another output.
    """
    _check_outputs(options)
    return evaluate_sets(find_sets(options.manifests, options.split, options.half), options)


def evaluate_sets(sets: Sequence[CropSet | ClipSet], options: EvaluateOptions) -> tuple[Report, list[Evaluated]]:
    """`evaluate` over given sets; the options' manifests, split and half only go into the report."""
    started_at = time.time()
    weights = options.weights if options.weights is not None else _shipped()
    detector = load_panel(weights, options.scan.looks)
    judging = Judging(detector.info.thresholds is not None, options.resamples, options.seed)
    crops = [each for each in sets if isinstance(each, CropSet)]
    evaluated = {each.name: done for each, done in zip(crops, _crops(crops, detector, judging, options), strict=True)}
    for each in sets:
        if not isinstance(each, CropSet):
            evaluated[each.name] = evaluate_clips(each, detector, judging, options.scan, announce=announce)
    ordered = [evaluated[each.name] for each in sets]
    results = [each.result for each in ordered]
    return report_on(detector, weights, _settings(options), results, started_at), ordered


def _shipped() -> str:
    from models.zoo import default_detector

    return str(default_detector())


def _crops(sets: Sequence[CropSet], detector: Panel, judging: Judging, options: EvaluateOptions) -> list[Evaluated]:
    if not sets:
        return []
    with detector.backend(backend=options.scan.backend, device=options.scan.device) as backend:
        return [
            evaluate_crops(
                each,
                detector,
                backend,
                judging,
                steps=STEPS[options.ladder],
                ladder_rows=options.ladder_rows,
                batch=options.batch,
                announce=announce,
            )
            for each in sets
        ]


def _settings(options: EvaluateOptions) -> dict[str, Any]:
    names = ("split", "half", "ladder", "ladder_rows", "resamples", "seed")
    return {name: getattr(options, name) for name in names}


def _outputs(options: EvaluateOptions) -> list[Output]:
    named = (("--json", options.json_path), ("--report", options.report), ("--predictions", options.predictions))
    return [Output(name, path) for name, path in named if path is not None]


def _check_outputs(options: EvaluateOptions) -> None:
    """Fail before an hour of scoring if an output cannot be written, or would replace what is read."""
    weights = [] if options.weights is None else split_names(options.weights)
    check_outputs(_outputs(options), [str(path) for path in (*options.manifests, *weights)])


def _write(options: EvaluateOptions, report: Report, evaluated: Sequence[Evaluated]) -> list[tuple[str, Path]]:
    try:
        if options.json_path is not None:
            with atomic_write(options.json_path) as file:
                file.write((json.dumps(report.to_dict(), indent=2, allow_nan=False) + "\n").encode())
        if options.report is not None:
            write_report(options.report, report, evaluated)
        if options.predictions is not None:
            with atomic_write(options.predictions) as file:
                file.write(predictions_csv(evaluated).encode())
    except OSError as error:
        raise OutputError(f"an output cannot be written: {error}") from error
    return [(output.option.removeprefix("--"), output.path) for output in _outputs(options)]


def predictions_csv(evaluated: Sequence[Evaluated]) -> str:
    """Path, label and probability of all scored items, in the order of the sets.

    With several sets, a fourth column `set` names them. Items without a score have no line; they are in the report's
    failures or outcomes.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    several = len(evaluated) > 1
    writer.writerow(["path", "label", "probability", *(["set"] if several else [])])
    for each in evaluated:
        for one in each.predictions:
            # Nine digits restore a float32 exactly.
            name = [each.result.name] if several else []
            writer.writerow([one.path, one.label, f"{one.probability:.9g}", *name])
    return text.getvalue()


def _show(report: Report) -> None:
    model = report.model
    say(
        f"{model['name']} ({model['architecture']}, {model['input_spec']['size']} px), sha256 {model['weights_sha256']}"
    )
    show(overview(report))
    for result in report.sets:
        for table in tables(result):
            show(replace(table, title=f"{result.name}: {table.title.lower()}"))
        if lost := _lost(result):
            what = "crops could not be scored" if result.kind == "crops" else "clips ended without a score"
            say(f"{result.name}: {lost} of {result.rows} {what}")


def _lost(result: SetResult) -> int:
    """Crops or clips without a score."""
    scored = (result.outcomes or {}).get("scored", 0)
    return len(result.failures) if result.kind == "crops" else result.rows - scored
