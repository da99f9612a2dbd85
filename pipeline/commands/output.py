"""What commands print."""

from __future__ import annotations

import sys

import typer

from pipeline.visible import masked, visible, visible_lines


def echo_record(record: str) -> None:
    """Print a record as it is; on a terminal, characters that would control it become JSON's escapes."""
    typer.echo(visible(record) if sys.stdout.isatty() else record)


def echo(text: object = "", *, err: bool = False) -> None:
    """Print text with names, keys and errors of others: they neither control the terminal nor show passwords.

    Args:
        text: lines; tabs and line feeds stay.
        err: to standard error.
    """
    typer.echo(visible_lines(masked(str(text))), err=err)
