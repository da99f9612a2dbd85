"""What commands print."""

from __future__ import annotations

import typer

from pipeline.visible import masked, visible_lines


def echo(text: object = "", *, err: bool = False) -> None:
    """Print text with names, keys and errors of others: they neither control the terminal nor show passwords.

    Args:
        text: lines; tabs and line feeds stay.
        err: to standard error.
    """
    typer.echo(visible_lines(masked(str(text))), err=err)
