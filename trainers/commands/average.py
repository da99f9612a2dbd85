"""Average checkpoints of one detector."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.errors import exit_on_error
from pipeline.commands.inputs import check_weights
from pipeline.commands.output import check_written, echo


def run(
    weights: Annotated[list[Path], typer.Argument(help="Checkpoints of the same detector, two or more.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
) -> None:
    """Write the equal mean of checkpoints, such as final weights of runs that started at the same weights.

    Choose thresholds again afterwards (`unmask calibrate`). Exit codes: 0 done, 2 the checkpoints do not match.
    """
    with exit_on_error():
        for each in weights:
            check_weights(each)

    from trainers.average import average

    with exit_on_error():
        check_written({"--out": out}, weights)
        sha256 = average(weights, out)
    echo(f"{out}: mean of {len(weights)}, sha256 {sha256}")
