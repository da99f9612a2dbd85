"""Options that several commands of the service have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[
    Path | None,
    typer.Option(
        help="Of the database and the uploaded files.",
        envvar="UNMASK_SERVE_FOLDER",
        show_default="~/.local/share/unmask",
    ),
]


def folder_of(folder: Path | None) -> Path:
    """The folder that was named, or the default one."""
    return (folder or Path("~/.local/share/unmask")).expanduser()
