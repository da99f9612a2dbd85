"""Judge clips on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.options import (
    Backend,
    ClipsAtOnce,
    Device,
    End,
    FaceDetector,
    FaceWeights,
    FollowLinks,
    LooksOption,
    Start,
    Weights,
    clips_at_once,
    parse_looks,
    part_of,
)

# A recorder that writes every few seconds is still recording.
FOLLOW_S = 10.0


def run(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Files, folders, globs or fsspec URIs.")],
    recursive: Annotated[bool, typer.Option("--recursive", help="Include sub-folders.")] = False,
    follow_links: FollowLinks = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Wait for files that still grow: until they did not change for 10 seconds.")
    ] = False,
    fps: Annotated[
        float | None, typer.Option(help="Scored frames a second of video.", show_default="2", min=0.001)
    ] = None,
    frames: Annotated[int | None, typer.Option(help="This many frames, spread over the whole clip.", min=1)] = None,
    every: Annotated[int | None, typer.Option(help="Every n-th frame.", min=1)] = None,
    keyframes: Annotated[
        bool,
        typer.Option(
            "--keyframes", help="Key frames only: fastest, but their scores differ from those of other frames."
        ),
    ] = False,
    adaptive: Annotated[
        bool, typer.Option("--adaptive", help="Few frames where they settle the verdict, else all of these.")
    ] = False,
    start: Start = None,
    end: End = None,
    detector: FaceDetector = "mtcnn",
    detector_weights: FaceWeights = None,
    architecture: Annotated[
        str | None,
        typer.Option(help="Architecture of the deepfake detector.", show_default="xception, or that of the weights"),
    ] = None,
    weights: Weights = None,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="Random weights, to try the pipeline: scores mean nothing.")
    ] = False,
    looks: LooksOption = None,
    backend: Backend = "auto",
    device: Device = "auto",
    workers: ClipsAtOnce = "auto",
    jsonl: Annotated[Path | None, typer.Option(help="Write the records to this file; - is standard output.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write an HTML report to this file.")] = None,
    skipped: Annotated[
        Path | None, typer.Option(help="Write what was left out of folders to this file, with reasons, as JSON lines.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Outputs may replace files that are not earlier outputs; never an input.")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Keep records in the JSONL file of the same bytes, weights and sampling."),
    ] = False,
) -> None:
    """Judge clips on this machine: one record per clip, whatever its outcome.

    Exit codes: 0 all clips scored, 3 some other outcome, 2 bad options or no input, 1 an output could not be written to
    its end, 130 interrupted.
    """
    chosen = {"--fps": fps, "--frames": frames, "--every": every, "--keyframes": keyframes or None}
    if len(given := [name for name, value in chosen.items() if value is not None]) > 1:
        raise typer.BadParameter(f"{' and '.join(given)} exclude each other: choose one way of sampling")
    if adaptive and keyframes:
        raise typer.BadParameter("--adaptive and --keyframes exclude each other: key frames are chosen by the encoder")
    if adaptive and untrained:
        raise typer.BadParameter("--adaptive and --untrained exclude each other: nothing settles a random verdict")
    if untrained and weights is not None:
        raise typer.BadParameter("--weights and --untrained exclude each other")
    if resume and (jsonl is None or str(jsonl) == "-"):
        raise typer.BadParameter("--resume needs --jsonl FILE, which holds the earlier records")
    part = part_of(start, end)
    clips, chosen_looks = clips_at_once(workers), parse_looks(looks)

    from pipeline import scan_run
    from pipeline.scanner_options import ScannerOptions
    from pipeline.video.sampling import Adaptive, Even, Every, Fps, Keyframes

    if frames is not None:
        counted: Even | Every | Fps = Even(frames)
    else:
        counted = Fps(fps or 2.0) if every is None else Every(every)
    sampling = Keyframes() if keyframes else Adaptive(counted) if adaptive else counted
    options = scan_run.Options(
        paths=tuple(paths),
        scanner=ScannerOptions(
            sampling=sampling,
            face_detector=detector,
            face_weights=detector_weights,
            looks=chosen_looks,
            backend=backend,
            device=device,
            workers=clips,
        ),
        recursive=recursive,
        follow_links=follow_links,
        quiet_s=FOLLOW_S if follow else 0.0,
        architecture=architecture,
        weights=weights,
        untrained=untrained,
        jsonl=jsonl,
        report=report,
        skipped=skipped,
        force=force,
        resume=resume,
        part=part,
    )
    raise typer.Exit(scan_run.run(options))
