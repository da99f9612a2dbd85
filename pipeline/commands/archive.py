"""Judge the files of a manifest as one batch."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from pipeline.commands.errors import exit_on_error
from pipeline.commands.inputs import check_weights
from pipeline.commands.options import (
    AdaptiveFrames,
    Backend,
    ClipsAtOnce,
    Device,
    End,
    EveryFrame,
    FaceDetector,
    FaceWeights,
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


def run(
    manifest: Annotated[
        str,
        typer.Argument(
            metavar="MANIFEST",
            help="CSV, Parquet or JSON lines with a column uri, and optional ones id and size_bytes; or .txt, a path "
            "or URI in each line.",
        ),
    ],
    out: Annotated[str, typer.Option("--out", metavar="FOLDER|URI", help="Where the output goes.")],
    engine: Annotated[
        Literal["local", "ray"], typer.Option("--engine", help="Processes of this machine, or actors of a Ray cluster.")
    ] = "local",
    processes: Annotated[
        int | None,
        typer.Option("--processes", help="Processes or actors.", show_default="one for each four cores", min=1),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option("--ray-address", help="Join this Ray cluster, or auto.", show_default="one on this machine"),
    ] = None,
    part_files: Annotated[
        int | None,
        typer.Option("--part-files", help="Most files of a part.", show_default="16 to 500, by their number", min=1),
    ] = None,
    part_mib: Annotated[
        int | None, typer.Option("--part-mib", help="Most MiB of a part.", show_default="8192", min=1)
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Judge again what was unavailable, model_error or shed.")
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
    weights: Weights = None,
    looks: LooksOption = None,
    backend: Backend = "auto",
    device: Device = "auto",
    workers: ClipsAtOnce = "auto",
) -> None:
    """Judge the files of a manifest as one batch: a row in a Parquet file for each, whatever its outcome.

    The same command again goes on where the last one ended.

    Exit codes: 0 all files scored, 3 some other outcome, 2 bad options or manifest, 1 the output could not be written,
    130 interrupted.
    """
    sampling = sampling_of(fps=fps, frames=frames, every=every, keyframes=keyframes, adaptive=adaptive)
    part = part_of(start, end)
    clips, chosen_looks = clips_at_once(workers), parse_looks(looks)
    if ray_address is not None and engine != "ray":
        raise typer.BadParameter("--ray-address needs --engine ray")
    with exit_on_error():
        check_weights(weights)

        from pipeline.archive.run import Options
        from pipeline.archive.run import run as run_archive
        from pipeline.scanner_options import ScannerOptions

        options = Options(
            manifest=manifest,
            out=out,
            scanner=ScannerOptions(
                sampling=sampling,
                face_detector=detector,
                face_weights=None if detector_weights is None else detector_weights.absolute(),
                looks=chosen_looks,
                backend=backend,
                device=device,
                workers=clips,
            ),
            engine=engine,
            processes=processes,
            weights=weights,
            part=part,
            part_files=part_files,
            part_bytes=None if part_mib is None else part_mib << 20,
            retry_failed=retry_failed,
            ray_address=ray_address,
        )
        code = run_archive(options)
    raise typer.Exit(code)
