"""Choose calibration and thresholds, and write the detector to ship."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.errors import exit_on_error
from pipeline.commands.inputs import check_exist, check_weights
from pipeline.commands.options import Device
from pipeline.commands.output import echo


def run(
    weights: Annotated[Path, typer.Argument(help="A run's best.safetensors.")],
    manifest: Annotated[Path, typer.Option(help="Parquet or CSV with the validation split.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    name: Annotated[str, typer.Option(help="Name in verdicts; default: the recipe's name.")] = "",
    split: Annotated[str, typer.Option(help="Split whose selection half is used.")] = "val",
    held_out: Annotated[
        str, typer.Option(help="Split of reals from another source; they can only raise the fake threshold.")
    ] = "held_out",
    fpr: Annotated[float, typer.Option(help="Share of reals that `fake` may call fake.")] = 0.01,
    misses: Annotated[float, typer.Option(help="Share of fakes that `real` may call real.")] = 0.10,
    fp32: Annotated[bool, typer.Option("--fp32", help="Store fp32 instead of fp16.")] = False,
    device: Device = "auto",
    rows: Annotated[
        int | None, typer.Option(min=2, help="Most crops to use, as many reals as fakes: for trials.")
    ] = None,
) -> None:
    """Choose calibration and thresholds on the selection half of a split, and write a detector without training state.

    Trust in quality, thresholds and bounds of likelihood ratios come from the original pictures and from degraded
    copies of them.

    Exit codes: 0 done, 2 bad options or not enough data.
    """
    with exit_on_error():
        check_exist([manifest])
        check_weights(weights)

    from trainers.calibrate import CalibrateOptions
    from trainers.calibrate import run as calibrate

    options = CalibrateOptions(weights, manifest, out, name, split, held_out, fpr, misses, not fp32, device, rows)
    raise typer.Exit(calibrate(options, say=echo, fail=lambda line: echo(f"Error: {line}", err=True)))
