"""The audit log of `unmask serve`, on its machine."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.errors import exit_on_error, fail
from pipeline.commands.inputs import check_exist
from pipeline.commands.output import echo
from pipeline.visible import visible
from web.commands.options import Folder, database_of

if TYPE_CHECKING:
    from web.audit import Seal

EXIT_FAULTY = 3
_SHOWN = 50

app = typer.Typer(help="The audit log of the HTTP API and the review page.", no_args_is_help=True)


@app.command()
def verify(
    folder: Folder = None,
    seals: Annotated[
        Path | None, typer.Option(help="Seals that were kept elsewhere: what `unmask audit seals` printed.")
    ] = None,
    public_key: Annotated[
        list[str],
        typer.Option(help="Key of the service, as /.well-known/unmask.json has it, repeatable for earlier ones."),
    ] = [],  # noqa: B006
) -> None:
    """Check that no entry of the log was changed, removed, added or moved.

    Without --public-key, the key in the service's folder is taken; it may have been changed together with the log.

    Exit codes: 0 the log is whole, 3 it is not: each fault is named, 2 bad options or no log.
    """
    from web.audit import check
    from web.signing import verifier

    with exit_on_error():
        database = database_of(folder)
        check_exist([seals])
        kept = [] if seals is None else _read(seals)
        has_signed = verifier(public_key or [database.signer.public])
        try:
            found = check(database.read(), has_signed, kept)
        except sqlite3.Error as error:
            fail(f"not whole: the log cannot be read: {error}", code=EXIT_FAULTY)
    for fault in found.faults[:_SHOWN]:
        echo(fault, err=True)
    if len(found.faults) > _SHOWN:
        echo(f"and {len(found.faults) - _SHOWN} more", err=True)
    if found.faults:
        echo(f"not whole: {len(found.faults)} faults in {found.entries} entries", err=True)
        raise typer.Exit(EXIT_FAULTY)
    elsewhere = f", {len(kept)} seals kept elsewhere agree" if kept else ""
    echo(f"whole: {found.entries} entries, {found.seals} days sealed{elsewhere}")


@app.command("list")
def show(
    folder: Folder = None,
    after: Annotated[int, typer.Option(help="Only entries behind this number.", min=0)] = 0,
    video: Annotated[str | None, typer.Option(help="Only entries about this video.", show_default="all")] = None,
) -> None:
    """Print the entries as lines of JSON, by time."""
    from web.audit import entries

    with exit_on_error():
        database = database_of(folder)
    for entry in entries(database.read(), after):
        if video is None or entry.values["video"] == video:
            echo(str(entry.text))


@app.command("seals")
def show_seals(folder: Folder = None) -> None:
    """Print the seals of all days as lines of JSON: keep them elsewhere."""
    from web.audit import seals

    with exit_on_error():
        database = database_of(folder)
    for each in seals(database.read()):
        echo(json.dumps(asdict(each)))


def _read(file: Path) -> list[Seal]:
    from web.audit import Seal

    try:
        found = [Seal(**json.loads(line)) for line in file.read_text().splitlines() if line.strip()]
        for each in found:
            bytes.fromhex(each.signature)
    except (OSError, ValueError, TypeError) as error:
        fail(f"{visible(str(file))}: not what `unmask audit seals` prints: {error}")
    return found
