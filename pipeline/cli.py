"""The command `unmask`. Sub-commands come from the entry-point group `unmask.commands`.

A plug-in names a function or a `typer.Typer`; its module must be light to import (heavy imports belong inside the
function), so that `unmask --help` answers at once. Only the called command is loaded, all of them for help.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import EntryPoint, entry_points, version
from typing import Any

import typer

from pipeline.visible import escape_unencodable

GROUP = "unmask.commands"
DESCRIPTION = "Unmask: streaming deepfake detection, from a video to a calibrated, typed verdict."


def commands() -> dict[str, EntryPoint]:
    """The installed sub-commands by name; the first package found wins where two use one name."""
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        found.setdefault(point.name, point)
    return dict(sorted(found.items()))


def build(arguments: list[str]) -> typer.Typer:
    """The command line with the sub-commands that these arguments need.

    Raises:
        typer.Exit: the called plug-in of another package cannot be imported.
    """
    app = typer.Typer(
        name="unmask",
        help=DESCRIPTION,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
    )

    @app.callback(invoke_without_command=True)
    def options(
        show_version: bool = typer.Option(False, "--version", help="Print the version and exit.", is_eager=True),
    ) -> None:
        if show_version:
            typer.echo(version("unmask"))
            raise typer.Exit

    installed = commands()
    called = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, point in installed.items():
        if called in installed and name != called:
            continue
        try:
            target: Any = point.load()
        except ImportError as error:
            typer.echo(f"unmask {name}: cannot be loaded from {point.value}: {error}", err=True)
            if name == called:
                raise typer.Exit(2) from error
            continue
        if isinstance(target, typer.Typer):
            app.add_typer(target, name=name)
        else:
            app.command(name)(target)
    return app


def main() -> None:
    """Entry point of the console script."""
    if sys.argv[1:2] in (["scan"], ["archive"]):
        # numpy's BLAS would start a thread for each core, and nothing here uses them.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    escape_unencodable()
    try:
        app = build(sys.argv[1:])
    except typer.Exit as leave:
        sys.exit(leave.exit_code)
    try:
        app()
    except ModuleNotFoundError as error:
        from pipeline.commands.errors import missing_module

        typer.echo(f"Error: {missing_module(error)}", err=True)
        sys.exit(2)
