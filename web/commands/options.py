"""Options that several commands of the service have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from pipeline.commands.errors import fail

if TYPE_CHECKING:
    from web.database import Database

DATABASE: Final = "unmask.sqlite3"

Folder = Annotated[
    Path | None,
    typer.Option(
        help="Of the database and the uploaded files.",
        envvar="UNMASK_SERVE_FOLDER",
        show_default="~/.local/share/unmask",
    ),
]

Store = Annotated[
    str | None,
    typer.Option(
        help="Where the service keeps uploaded files, as for `unmask serve`.",
        envvar="UNMASK_SERVE_STORE",
        show_default="in the folder",
    ),
]


def folder_of(folder: Path | None) -> Path:
    """The folder that was named, or the default one."""
    return (folder or Path("~/.local/share/unmask")).expanduser()


def database_of(folder: Path | None) -> Database:
    """The database of a service that was started before; the command ends with an error if there is no such."""
    from web.database import Database

    file = folder_of(folder) / DATABASE
    if not file.is_file():
        fail(f"{file}: no such file; `unmask serve` makes it, or name its folder by --folder")
    return Database(file)
