"""Evidence packs of judged videos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from pipeline.commands.errors import exit_on_error, fail
from pipeline.commands.inputs import check_exist
from pipeline.commands.output import check_written, echo
from pipeline.visible import visible
from web.commands.options import Folder, Store, database_of, folder_of

EXIT_FAULTY = 3


class _MakeByDefault(TyperGroup):
    """`unmask evidence ID` makes a pack."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["make", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_MakeByDefault,
    help="Evidence packs of judged videos. `unmask evidence ID` makes one.",
    no_args_is_help=True,
)


@app.command()
def make(
    id: Annotated[str, typer.Argument(metavar="ID", help="Id of a judged video of the service.")],
    out: Annotated[Path | None, typer.Option(help="The zip.", show_default="evidence-ID.zip")] = None,
    with_file: Annotated[bool, typer.Option("--with-file", help="With the video's own file.")] = False,
    comments: Annotated[
        bool, typer.Option("--comments", help="With what reviewers wrote, which may name people.")
    ] = False,
    folder: Folder = None,
    store: Store = None,
) -> None:
    """Write a zip with all that a verdict rests on, signed: report, record, faces, decisions, audit entries, hashes.

    Exit codes: 0 written, 2 bad options, or the video is not judged or not known, 1 its store is away.
    """
    from web.evidence import write_pack
    from web.media_store import media_of
    from web.problems import ProblemError

    with exit_on_error():
        database = database_of(folder)
        target = out or Path(f"evidence-{Path(id).name}.zip")
        check_written({"--out": target}, [])
        try:
            media = media_of(store, folder_of(folder), 1 << 30)
            count = write_pack(target, database, media, id, with_file=with_file, comments=comments)
        except ProblemError as error:
            fail(f"{visible(id)}: {error.detail}", code=1 if error.status >= 500 else 2)
    echo(f"{target}: {count} files")


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="A pack.")],
    public_key: Annotated[
        list[str],
        typer.Option(help="Key of the service, as /.well-known/unmask.json has it, repeatable for earlier ones."),
    ] = [],  # noqa: B006
) -> None:
    """Check a pack on any machine: nothing was changed, added or removed, and the service signed it.

    Without --public-key, the pack's own key is taken: then it may be anybody's.

    Exit codes: 0 whole, 3 changed: each fault is named, 2 not a pack, or bad options.
    """
    from web.evidence import check_pack

    with exit_on_error():
        check_exist([file])
        found = check_pack(file, public_key)
    for fault in found.faults:
        echo(fault, err=True)
    if found.faults:
        echo(f"not whole: {len(found.faults)} faults", err=True)
        raise typer.Exit(EXIT_FAULTY)
    own = "" if public_key else ", the pack's own key: compare it with the service's"
    what = "with the video's file" if found.has_file else "without the video's file"
    echo(
        f"whole: video {found.video}, made {found.made_at}, {found.files} files, {what}, {found.entries} audit entries"
    )
    echo(f"signed by {found.public_key}{own}")
