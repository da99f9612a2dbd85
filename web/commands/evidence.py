"""Evidence packs of judged videos."""

from __future__ import annotations

from datetime import datetime
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


TsaCa = Annotated[
    Path | None,
    typer.Option(
        help="PEM file of authorities whose time stamps count: a pack with another one, or without, does not pass.",
        envvar="UNMASK_TSA_CA",
    ),
]


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
    rates: Annotated[
        Path | None,
        typer.Option(
            help="Measured error rates of the weights that judged it, by `unmask models rates`; those of packaged "
            "weights come with them.",
            envvar="UNMASK_RATES",
        ),
    ] = None,
    tsa: Annotated[
        str | None,
        typer.Option(
            help="URL of a time-stamping authority (RFC 3161), which gets a hash only. Without its time stamp nothing "
            "is written.",
            envvar="UNMASK_TSA",
        ),
    ] = None,
    tsa_ca: TsaCa = None,
    font: Annotated[
        list[Path],
        typer.Option(
            help="TrueType file for characters of names that the PDF's own font lacks, such as Chinese; repeatable."
        ),
    ] = [],  # noqa: B006
    folder: Folder = None,
    store: Store = None,
) -> None:
    """Write a zip with all that a verdict rests on, signed: reports, record, faces, decisions, audit entries, hashes.

    Exit codes: 0 written, 2 bad options, or the video is not judged or not known, 1 its store or the time-stamping
    authority is away, or the authority's answer does not hold.
    """
    from models.error_rates import read_rates
    from web.evidence.pack import INSTALL_PDF, PackOptions, write_pack
    from web.evidence.stamp import read_authorities
    from web.media_store import media_of
    from web.problems import ProblemError

    with exit_on_error():
        if tsa is not None and not tsa.startswith(("http://", "https://")):
            fail(f"--tsa takes a URL of http or https, got {tsa}")
        table = None if rates is None else read_rates(rates)
        database = database_of(folder)
        target = out or Path(f"evidence-{Path(id).name}.zip")
        check_written({"--out": target}, [rates, *font])
        check_exist(font)
        authorities = () if tsa_ca is None or tsa is None else read_authorities(tsa_ca)
        options = PackOptions(with_file, comments, table, tsa, authorities, tuple(font))
        try:
            media = media_of(store, folder_of(folder), 1 << 30)
            written = write_pack(target, database, media, id, options)
        except ProblemError as error:
            fail(f"{visible(id)}: {error.detail}", code=1 if error.status >= 500 else 2)
    echo(f"{target}: {written.files} files")
    if written.stamp is not None:
        echo(f"time stamp of {_second(written.stamp.at)} by {written.stamp.signer}")
    if not written.has_pdf:
        echo(f"report.pdf is left out: {INSTALL_PDF}", err=True)
    if not written.rates_known:
        echo("no measured error rates of these weights are known: name them by --rates", err=True)


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="A pack.")],
    public_key: Annotated[
        list[str],
        typer.Option(help="Key of the service, as /.well-known/unmask.json has it, repeatable for earlier ones."),
    ] = [],  # noqa: B006
    tsa_ca: TsaCa = None,
) -> None:
    """Check a pack on any machine: nothing was changed, added or removed, and the service signed it.

    Without --public-key, the pack's own key is taken: then it may be anybody's. Without --tsa-ca, the signer of a time
    stamp may be anybody, too: it is named.

    Exit codes: 0 whole, 3 changed: each fault is named, 2 not a pack, or bad options.
    """
    from web.evidence.check import check_pack
    from web.evidence.stamp import INSTALL_STAMP, read_authorities

    with exit_on_error():
        check_exist([file])
        authorities = () if tsa_ca is None else read_authorities(tsa_ca)
        found = check_pack(file, public_key, authorities)
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
    if found.unchecked_stamp:
        echo(f"its time stamp was not checked: {INSTALL_STAMP}", err=True)
    if found.stamp is not None:
        stamp = found.stamp
        who = "" if stamp.is_trusted else "; who that is was not checked: name its authority by --tsa-ca"
        echo(f"time stamp of {_second(stamp.at)} by {stamp.signer}, issued by {stamp.issuer}{who}")


def _second(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
