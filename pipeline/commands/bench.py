"""Measure the pipeline stage by stage on this machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.errors import exit_on_error
from pipeline.commands.inputs import check_exist, check_weights
from pipeline.commands.options import (
    Backend,
    ClipsAtOnce,
    Device,
    FaceWeights,
    JsonTo,
    LooksOption,
    clips_at_once,
    parse_looks,
)
from pipeline.commands.output import check_written, written_as_json

if TYPE_CHECKING:
    from rich.table import Table

    from pipeline.bench.refine import ClipComparison
    from pipeline.bench.run import Result

# Clips of the research data: several faces in 1080p, one face in 720p.
_DATA_CLIPS = ("street_1080p_many_faces.mp4", "portrait_720p.mp4")


def run(
    clips: Annotated[
        list[Path] | None,
        typer.Argument(help="Clips with faces.", show_default=f"{' and '.join(_DATA_CLIPS)} of UNMASK_DATA"),
    ] = None,
    architecture: Annotated[str, typer.Option(help="One or several, comma-separated.")] = "xception,swin_transformer",
    weights: Annotated[
        str | None,
        typer.Option(
            help="Instead of architectures: checkpoint path or zoo name; a comma-separated list is an ensemble."
        ),
    ] = None,
    looks: LooksOption = None,
    detector: Annotated[str, typer.Option(help="Face detectors, comma-separated.")] = "mtcnn,yunet",
    detector_weights: FaceWeights = None,
    backend: Backend = "auto",
    device: Device = "auto",
    workers: ClipsAtOnce = "auto",
    rounds: Annotated[
        int | None, typer.Option(help="Repeats; the medians are shown.", min=1, show_default="3, or 5 with --against")
    ] = None,
    plain: Annotated[bool, typer.Option(help="Also measure the plain way, for comparison.")] = True,
    streams: Annotated[bool, typer.Option(help="Also live streams at 1, 2 and 5 scored frames a second.")] = True,
    compare_refine: Annotated[
        bool, typer.Option("--compare-refine", help="Only compare refinement with full detection on the clips.")
    ] = False,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Only measure what `unmask plan` needs, of the first network and face detector."),
    ] = False,
    against: Annotated[
        Path | None,
        typer.Option(
            help="What --json wrote earlier on this machine, of the same clips, networks and options: print ratios, "
            "and fail if one is slower by over 10 %."
        ),
    ] = None,
    json_to: JsonTo = None,
) -> None:
    """Measure every stage alone and the whole pipeline, each sampled frame scored, in one run.

    The bound is the sum of the stages, each measured alone on all cores; the whole cannot be faster. Weights are random
    (they take the same time) unless some are named. Run nothing else at the same time.

    Exit codes: 0 measured, 3 slower than --against allows, 2 bad options or no such clip.
    """
    from pipeline.faces.detector import DETECTORS
    from pipeline.settings import data_dir

    # Options first: what follows imports torch.
    chosen_looks, clips_in_parallel = parse_looks(looks), clips_at_once(workers)
    detectors = detector.split(",")
    if unknown := sorted(set(detectors) - set(DETECTORS)):
        raise typer.BadParameter(f"--detector: no {', '.join(unknown)}; there are: {', '.join(DETECTORS)}")
    data = data_dir()
    if not clips:
        if data is None:
            raise typer.BadParameter("name a clip: UNMASK_DATA is not set, so there is no default")
        clips = [data / "videos" / name for name in _DATA_CLIPS]
    if missing := [str(clip) for clip in clips if not clip.is_file()]:
        raise typer.BadParameter(f"no such file: {', '.join(missing)}")
    with exit_on_error():
        check_exist([against])
        if weights is not None:
            check_weights(weights)
        files = [member for member in (weights or "").split(",") if Path(member).is_file()]
        check_written({"--json": json_to}, [*clips, *files, detector_weights])
    if detector_weights is None and data is not None:
        detector_weights = next(iter(sorted((data / "weights").glob("yunet_n_dynamic.onnx"))), None)

    from dataclasses import asdict

    from rich.console import Console

    from pipeline.bench import against as baselines
    from pipeline.bench.costs import measure_figures
    from pipeline.bench.machine import describe
    from pipeline.bench.refine import compare
    from pipeline.bench.run import bench
    from pipeline.planning.figures import to_json
    from pipeline.planning.tables import figures_table
    from pipeline.scanner_options import ScannerOptions
    from pipeline.video.sampling import Every
    from pipeline.visible import markup

    # Wide tables would lose columns at the default width of a pipe.
    console = Console(stderr=str(json_to) == "-", width=None if sys.stdout.isatty() else 140)
    with exit_on_error():
        baseline = None if against is None else baselines.read_baseline(against)
        if baseline is not None:
            baselines.check_clips(clips, baseline)
    machine = describe()
    console.print(machine, soft_wrap=True)
    if baseline is not None and baseline.machine != machine:
        console.print(
            f"[yellow]The baseline is of another machine or other versions:[/] {markup(baseline.machine)}",
            highlight=False,
            soft_wrap=True,
        )
    if plan:
        figures = []
        for clip in clips:
            with console.status(f"{clip.name}: figures of unmask plan"), exit_on_error():
                options = ScannerOptions(
                    face_detector=detectors[0],
                    face_weights=detector_weights if detectors[0] == "yunet" else None,
                    looks=chosen_looks,
                    backend=backend,
                    device=device,
                    workers=clips_in_parallel,
                )
                network = None if weights else architecture.split(",")[0]
                figures.append(
                    measure_figures(clip, machine=machine, architecture=network, weights=weights, options=options)
                )
            console.print(figures_table(figures[-1]))
        with exit_on_error():
            written_as_json(json_to, to_json(figures, machine))
        return
    if compare_refine:
        compared = list(compare(clips, detectors, detector_weights))
        console.print(_refine_table(compared))
        with exit_on_error():
            written_as_json(json_to, {"machine": machine, "refine": [asdict(each) for each in compared]})
        return
    results: list[Result] = []
    for clip in clips:
        for name in [None] if weights else architecture.split(","):
            for faces in detectors:
                with console.status(f"{clip.name}: {name or weights}, {faces}"):
                    result = bench(
                        clip,
                        architecture=name,
                        weights=weights,
                        options=ScannerOptions(
                            sampling=Every(1),
                            face_detector=faces,
                            face_weights=detector_weights if faces == "yunet" else None,
                            looks=chosen_looks,
                            backend=backend,
                            device=device,
                            workers=clips_in_parallel,
                        ),
                        rounds=rounds or (3 if baseline is None else baselines.ROUNDS),
                        streams=streams,
                        # It does not depend on the pipeline's face detector.
                        with_plain=plain and faces == detectors[0],
                    )
                results.append(result)
                console.print(_table(result))
    with exit_on_error():
        written_as_json(json_to, {"machine": machine, "results": [result.to_dict() for result in results]})
        if baseline is not None:
            ratios = baselines.compare(results, baseline)
            for each in ratios:
                verdict = "SLOWER" if each.slower else "as before" if each.ratio < 1 + baselines.ALLOWED else "faster"
                console.print(
                    f"{each.name}: {each.whole_fps:.1f} frames/s, {each.ratio:.2f} of the baseline's "
                    f"{each.baseline_fps:.1f}: {verdict}",
                    highlight=False,
                    soft_wrap=True,
                )
            if any(each.slower for each in ratios):
                raise typer.Exit(3)


def _table(result: Result) -> Table:
    from rich.table import Table

    table = Table(
        title=f"{result.clip}: {result.architecture}, {result.detector}, {result.backend}, {result.sampling}",
        title_justify="left",
    )
    for column in ("stage", "alone", "share of a frame", "%"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    total_ms = sum(result.share_ms.values())
    for stage, alone_ms in result.stages_ms.items():
        unit = "face" if stage in ("crop", "classify") else "frame"
        share_ms = result.share_ms[stage]
        table.add_row(stage, f"{alone_ms:.2f} ms/{unit}", f"{share_ms:.2f} ms", f"{100 * share_ms / total_ms:.0f}")
    table.add_section()
    table.add_row("bound", "", f"{result.bound_fps:.1f} frames/s", "")
    table.add_row(
        "whole",
        f"{result.whole_faces_s:.1f} faces/s",
        f"{result.whole_fps:.1f} frames/s",
        f"{100 * result.of_bound:.0f} of bound",
    )
    if result.plain_fps is not None and result.times_plain is not None:
        table.add_row("plain way", "", f"{result.plain_fps:.2f} frames/s", f"{result.times_plain:.1f} x")
    for fps, count in result.streams.items():
        table.add_row(f"streams at {fps}/s", "", f"{count:.1f}", "")
    table.add_row("bottleneck", result.bottleneck, f"{result.faces_a_frame:.2f} faces/frame", "")
    return table


def _refine_table(compared: Sequence[ClipComparison]) -> Table:
    from rich.table import Table

    table = Table(title="refinement against full detection: faces kept, mean IoU", title_justify="left")
    table.add_column("clip")
    table.add_column("detector")
    for row in compared[0].rows:
        table.add_column(f"after {row.gap_s:g} s", justify="right")
    for column in ("detect ms", "refine ms"):
        table.add_column(column, justify="right")
    for each in compared:
        cells = [
            f"{row.kept}/{row.faces}" + ("" if row.mean_iou is None else f" {row.mean_iou:.2f}") for row in each.rows
        ]
        refine_ms = [row.refine_ms for row in each.rows if row.refine_ms is not None]
        table.add_row(
            each.clip,
            each.detector,
            *cells,
            f"{each.rows[0].detect_ms:.1f}",
            f"{min(refine_ms):.1f}" if refine_ms else "-",
        )
    return table
