"""What an output may replace: earlier output of the same kind; anything else only if forced, an input never."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from models.atomic import check_writable
from models.errors import UnmaskError

# A file is recognised by its beginning.
_BEGINNING_BYTES = 4096


class OutputError(UnmaskError, ValueError):
    """An output would replace what it must not, or cannot be written; the message names the option."""


@dataclass(frozen=True, slots=True)
class Output:
    """A file that a command is to write.

    Attributes:
        option: its option, for messages.
        path: the file; a link is followed.
        is_ours: given the beginning of an existing file that is not empty, whether it is earlier output of this kind,
            which may be replaced; None: anything may.
        kind: what `is_ours` looks for, for messages.
    """

    option: str
    path: Path
    is_ours: Callable[[bytes], bool] | None = None
    kind: str = ""


def check_outputs(outputs: Iterable[Output], inputs: Iterable[str], *, force: bool = False) -> None:
    """Check outputs before anything is opened for writing. Devices and pipes are accepted.

    Args:
        outputs: all of a command.
        inputs: paths that it reads.
        force: accept files that are not earlier output.

    Raises:
        OutputError: an output is an input (by name or as the same file), two are one file, a file is not earlier
            output, or it cannot be written.
    """
    files = [output for output in outputs if not _is_special(output.path)]
    names: dict[str, Output] = {}
    identities: dict[tuple[int, int], Output] = {}
    for output in files:
        name, identity = os.path.realpath(output.path), _identity(output.path)
        other = names.get(name) or (identities.get(identity) if identity else None)
        if other is not None:
            raise OutputError(f"{other.option} and {output.option} are the same file: {output.path}")
        names[name] = names[os.path.abspath(output.path)] = output  # noqa: PTH100 - a name, perhaps of a link
        if identity is not None:
            identities[identity] = output
    for path in inputs if files else ():
        found = names.get(os.path.abspath(path))  # noqa: PTH100 - it may be missing
        if found is None and identities:
            found = identities.get(_identity(path) or (-1, -1))
        if found is not None:
            raise OutputError(f"{found.option} would replace an input: {path}")
    for output in files:
        _check_one(output, force=force)


def _check_one(output: Output, *, force: bool) -> None:
    try:
        check_writable(output.path)
        if output.is_ours is None or force or not output.path.exists():
            return
        with output.path.open("rb") as file:
            beginning = file.read(_BEGINNING_BYTES)
    except OSError as error:
        raise OutputError(f"{output.option}: {error}") from error
    if beginning and not output.is_ours(beginning):
        raise OutputError(
            f"{output.option}: {output.path} exists and is not {output.kind}; --force replaces it, or name another file"
        )


def _is_special(path: Path) -> bool:
    """Standard output, a device or a pipe."""
    return str(path) == "-" or (path.exists() and not path.is_file() and not path.is_dir())


def _identity(path: str | Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - a name in a folder may be any bytes
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
