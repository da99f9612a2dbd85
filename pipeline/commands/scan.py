"""Judge clips on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.options import (
    AdaptiveFrames,
    Backend,
    ClipsAtOnce,
    Device,
    End,
    EveryFrame,
    FaceDetector,
    FaceWeights,
    FollowLinks,
    Frames,
    FramesPerSecond,
    KeyFrames,
    LooksOption,
    Start,
    Weights,
    clips_at_once,
    parse_looks,
    part_of,
    sampling_of,
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
    fps: FramesPerSecond = None,
    frames: Frames = None,
    every: EveryFrame = None,
    keyframes: KeyFrames = False,
    adaptive: AdaptiveFrames = False,
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
    sampling = sampling_of(fps=fps, frames=frames, every=every, keyframes=keyframes, adaptive=adaptive)
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
