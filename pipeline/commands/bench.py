"""Measure the pipeline stage by stage on this machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.options import Backend, ClipsAtOnce, Device, FaceWeights, LooksOption, clips_at_once, parse_looks

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
    rounds: Annotated[int, typer.Option(help="Repeats; the medians are shown.", min=1)] = 3,
    plain: Annotated[bool, typer.Option(help="Also measure the plain way, for comparison.")] = True,
    streams: Annotated[bool, typer.Option(help="Also live streams at 1, 2 and 5 scored frames a second.")] = True,
    compare_refine: Annotated[
        bool, typer.Option("--compare-refine", help="Only compare refinement with full detection on the clips.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
) -> None:
    """Measure every stage alone and the whole pipeline, each sampled frame scored, in one run.

    The bound is the sum of the stages, each measured alone on all cores; the whole cannot be faster. Weights are random
    (they take the same time) unless some are named. Run nothing else at the same time.
    """
    import json
    from dataclasses import asdict

    from rich.console import Console

    from pipeline.bench.machine import describe
    from pipeline.bench.refine import compare
    from pipeline.bench.run import bench
    from pipeline.scanner_options import ScannerOptions
    from pipeline.settings import data_dir
    from pipeline.video.sampling import Every

    # Wide tables would lose columns at the default width of a pipe.
    console = Console(stderr=as_json, width=None if sys.stdout.isatty() else 140)
    data = data_dir()
    if not clips:
        if data is None:
            raise typer.BadParameter("name a clip: UNMASK_DATA is not set, so there is no default")
        clips = [data / "videos" / name for name in _DATA_CLIPS]
    if missing := [str(clip) for clip in clips if not clip.is_file()]:
        raise typer.BadParameter(f"no such file: {', '.join(missing)}")
    if detector_weights is None and data is not None:
        detector_weights = next(iter(sorted((data / "weights").glob("yunet_n_dynamic.onnx"))), None)
    chosen_looks = parse_looks(looks)
    machine = describe()
    if not as_json:
        console.print(machine, soft_wrap=True)
    if compare_refine:
        compared = list(compare(clips, detector.split(","), detector_weights))
        if as_json:
            typer.echo(json.dumps({"machine": machine, "refine": [asdict(each) for each in compared]}, indent=2))
        else:
            console.print(_refine_table(compared))
        return
    results: list[Result] = []
    for clip in clips:
        for name in [None] if weights else architecture.split(","):
            for faces in detector.split(","):
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
                            workers=clips_at_once(workers),
                        ),
                        rounds=rounds,
                        streams=streams,
                        # It does not depend on the pipeline's face detector.
                        with_plain=plain and faces == detector.split(",")[0],
                    )
                results.append(result)
                if not as_json:
                    console.print(_table(result))
    if as_json:
        typer.echo(json.dumps({"machine": machine, "results": [result.to_dict() for result in results]}, indent=2))


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
