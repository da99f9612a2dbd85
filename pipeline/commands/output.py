"""What commands print."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import typer

from models.atomic import atomic_write
from pipeline.outputs import Output, check_outputs
from pipeline.visible import masked, visible, visible_lines


def echo_record(record: str) -> None:
    """Print a record as it is; on a terminal, characters that would control it become JSON's escapes."""
    typer.echo(visible(record) if sys.stdout.isatty() else record)


def check_written(outputs: Mapping[str, Path | None], inputs: Iterable[str | Path | None]) -> None:
    """Refuse outputs that would replace an input or each other, before anything is written.

    Args:
        outputs: by option; None and `-` are no files.
        inputs: paths that the command reads; None is no file.

    Raises:
        OutputError: an output is an input, two are one file, or it cannot be written.
    """
    check_outputs(
        [Output(option, path) for option, path in outputs.items() if path is not None],
        [str(path) for path in inputs if path is not None],
    )


def written_as_json(target: Path | None, value: object) -> bool:
    """Write a value for `--json`; True if it went to standard output, which then holds nothing else.

    Args:
        target: a file, or `-` for standard output; None: nothing is written.
        value: what `json` can write.

    Raises:
        OSError: the file cannot be written.
    """
    if target is None:
        return False
    text = json.dumps(value, indent=2)
    if str(target) == "-":
        echo(text)
        return True
    with atomic_write(target) as file:
        file.write(f"{text}\n".encode())
    return False


def echo(text: object = "", *, err: bool = False) -> None:
    """Print text with names, keys and errors of others: they neither control the terminal nor show passwords.

    Args:
        text: lines; tabs and line feeds stay.
        err: to standard error.
    """
    typer.echo(visible_lines(masked(str(text))), err=err)
