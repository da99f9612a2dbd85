"""Keys of `unmask serve`, made and revoked on its machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.errors import exit_on_error
from pipeline.commands.output import echo
from web.commands.options import Folder, database_of

if TYPE_CHECKING:
    from web.keys import Keys

app = typer.Typer(help="Keys of the HTTP API and the review page.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="The person or program that will hold it.")],
    role: Annotated[
        str, typer.Option(help="submit, review, senior or admin; each includes those before it.")
    ] = "submit",
    days: Annotated[float | None, typer.Option(help="Until it expires.", min=0.001, show_default="never")] = None,
    folder: Folder = None,
) -> None:
    """Make a key and print it; it is stored nowhere, so it cannot be shown again."""
    import time

    from web.keys import Role

    with exit_on_error():
        expires_s = None if days is None else time.time() + days * 86400
        key, text = _keys(folder).create(name, Role.of(role), expires_s=expires_s)
    echo(text)
    echo(
        f"{key.id}: role {key.role.text}, {'never expires' if days is None else f'expires in {days:g} days'}", err=True
    )


@app.command("list")
def show(folder: Folder = None) -> None:
    """List the keys, without their secrets."""
    import time

    with exit_on_error():
        keys = _keys(folder).all()
    for key in keys:
        state = "valid" if key.is_valid(time.time()) else "revoked" if key.revoked_s is not None else "expired"
        echo(f"{key.id}  {key.role.text:6}  {state:7}  {key.name}")


@app.command()
def revoke(id: Annotated[str, typer.Argument(metavar="ID", help="As in `list`.")], folder: Folder = None) -> None:
    """End a key and its sessions now, also in a running service."""
    with exit_on_error():
        key = _keys(folder).revoke(id)
    echo(f"{key.id}: revoked")


def _keys(folder: Path | None) -> Keys:
    from web.keys import Keys

    return Keys(database_of(folder))
