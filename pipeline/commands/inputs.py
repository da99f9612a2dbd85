"""Checks of what a command is to read, before anything is imported that takes seconds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from models.errors import UnmaskError


class InputError(UnmaskError):
    """A file that a command is to read does not exist."""


def check_weights(weights: str | Path | None) -> None:
    """Return if these weights, or the members of an ensemble, are here and have a header of this version.

    Args:
        weights: names or paths; None: the default ones.

    Raises:
        ZooError: they are neither a name nor a file, or are not on this machine.
        CheckpointError: not a checkpoint.
    """
    from models.checkpoint_header import read_info
    from models.zoo import default_detector, resolve, split_names

    for name in split_names(weights or default_detector()):
        read_info(resolve(name))


def check_exist(paths: Iterable[Path | None]) -> None:
    """Return if these files or folders exist; None is no file.

    Raises:
        InputError: one does not.
    """
    for path in paths:
        if path is not None and not path.exists():
            raise InputError(f"{path}: no such file")
