"""Average checkpoints of one detector."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def run(
    weights: Annotated[list[Path], typer.Argument(help="Checkpoints of the same detector, two or more.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
) -> None:
    """Write the equal mean of checkpoints, such as the ends of runs that began at the same weights.

    Choose thresholds anew afterwards (`unmask calibrate`). Exit codes: 0 done, 2 they do not go together.
    """
    from models.checkpoint import CheckpointError
    from trainers.average import average

    try:
        sha256 = average(weights, out)
    except (CheckpointError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    typer.echo(f"{out}: mean of {len(weights)}, sha256 {sha256}")
