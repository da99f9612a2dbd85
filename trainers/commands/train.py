"""Train a detector from a recipe; the same command resumes a stopped run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.errors import exit_on_error
from pipeline.commands.inputs import check_exist
from pipeline.commands.options import Device
from pipeline.commands.output import echo


def run(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe; an unknown name lists all.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Config KEY=VALUE, such as optim.lr=1e-3; repeatable. --show prints all."),
    ] = None,
    manifest: Annotated[Path | None, typer.Option(help="Training data: Parquet or CSV.")] = None,
    name: Annotated[
        str | None, typer.Option(help="Folder of the run in $UNMASK_RUNS; default: the recipe's name.")
    ] = None,
    device: Device = "auto",
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete a run of this name first.")] = False,
    branch: Annotated[
        Path | None,
        typer.Option(help="Decay from the last checkpoint of the run in this folder; that run can continue."),
    ] = None,
    measure_input: Annotated[
        bool, typer.Option("--measure-input", help="Time the loading of images alone, and exit.")
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="Print the config and exit.")] = False,
) -> None:
    """Train a detector from a recipe; the same command resumes a stopped or killed run.

    Exit codes: 0 done, 2 bad options or data, 130 interrupted with a checkpoint in place.
    """
    with exit_on_error():
        check_exist([manifest, branch])

    from trainers.run import TrainOptions
    from trainers.run import run as train

    options = TrainOptions(
        recipe=recipe,
        settings=tuple(settings or ()),
        manifest=manifest,
        name=name,
        device=device,
        fresh=fresh,
        branch=branch,
        measure_input=measure_input,
        show=show,
    )
    raise typer.Exit(train(options, say=echo, fail=lambda line: echo(f"Error: {line}", err=True)))
