"""Copy a service's folder while it runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.errors import exit_on_error, fail
from pipeline.commands.output import echo
from web.commands.options import DATABASE, Folder, folder_of


def run(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="The tar file to write; - is standard output.")],
    folder: Folder = None,
) -> None:
    """Copy the folder of `unmask serve` into one tar file: database, signing key, uploaded files.

    The service may run and write. The file has the key that signs and the hashes of all keys: keep it as secret as the
    folder. To restore it, unpack it into an empty folder and start the service there (docs/operations.md).

    Exit codes: 0 written, 1 the database is damaged, 2 bad options, or a file cannot be read or written.
    """
    from models.atomic import atomic_write, check_writable
    from web.backup import write_backup

    source = folder_of(folder)
    if not (source / DATABASE).is_file():
        fail(f"{source / DATABASE}: no such file; `unmask serve` makes it, or name its folder by --folder")
    with exit_on_error():
        if str(out) == "-":
            if sys.stdout.isatty():
                fail("a tar file does not go to a terminal: unmask backup - > service.tar")
            found = write_backup(source, DATABASE, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        else:
            if out.resolve().is_relative_to(source.resolve()):
                fail(f"{out} is in the folder itself: name a file elsewhere")
            check_writable(out)
            with atomic_write(out) as file:
                # It has keys.
                os.fchmod(file.fileno(), 0o600)
                found = write_backup(source, DATABASE, file)
    echo(f"{found.files} files and the database (tables {found.tables}), {found.size_bytes / 2**20:.1f} MiB", err=True)
