"""Labels from what reviewers decided."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.errors import exit_on_error, fail
from pipeline.commands.options import FaceDetector, FaceWeights
from pipeline.commands.output import echo
from pipeline.visible import visible
from trainers.commands.data import (
    EXIT_INTERRUPTED,
    EXIT_SOME_FAILED,
    console_of,
    print_listing,
    print_prepared,
    progress,
)
from web.commands.options import Folder, Store, database_of, folder_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from rich.console import Console

    from web.quality import Quality, QualityReport

# Agreement above it is "substantial": Landis and Koch, "The measurement of observer agreement for categorical data",
# Biometrics 33, 1977.
SUBSTANTIAL = 0.6
app = typer.Typer(help="Labels from what reviewers decided.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Without it, a single command would take the group's place."""


@app.command()
def export(
    out: Annotated[
        Path,
        typer.Argument(
            help="Folder for shards and manifest. An interrupted run in it is resumed, if nothing new was decided."
        ),
    ],
    folder: Folder = None,
    store: Store = None,
    disputed: Annotated[
        bool,
        typer.Option("--disputed", help="Also where people disagreed: then the answer of the review is the label."),
    ] = False,
    without: Annotated[
        list[str] | None,
        typer.Option(help="Id of a key whose decisions do not count; repeatable. The table of reviewers names them."),
    ] = None,
    trust: Annotated[
        list[str] | None,
        typer.Option(help="Id of a key whose decisions count although the person agrees too little; repeatable."),
    ] = None,
    sources: Annotated[
        Path | None,
        typer.Option(
            help="CSV with columns video (id, sha256 or file name) and source: those of one source are in one split."
        ),
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            help="Of videos that were judged from this day on, UTC.", formats=["%Y-%m-%d"], show_default="all"
        ),
    ] = None,
    val_share: Annotated[float, typer.Option(help="Share of the videos for validation.")] = 0.15,
    test_share: Annotated[float, typer.Option(help="Share of the videos that are held out for tests.")] = 0.15,
    dataset: Annotated[str, typer.Option(help="Name of the set in the manifest.")] = "decisions",
    frames: Annotated[int, typer.Option(help="Of each person, at most.", min=1)] = 12,
    size: Annotated[int, typer.Option(help="Side of the crops in px.", min=16)] = 224,
    quality: Annotated[int, typer.Option(help="Of JPEG.", min=1, max=100)] = 95,
    detector: FaceDetector = "mtcnn",
    detector_weights: FaceWeights = None,
    workers: Annotated[int | None, typer.Option(help="Threads.", show_default="cores + 1", min=1)] = None,
) -> None:
    """Cut the faces of people on whom reviewers decided: tar shards and manifest.parquet, to train on.

    A person counts if the review of the video is closed and nobody disagreed. Copies of a video are in one split.
    Faces leave the service for training by this command only; it is noted in the audit log. A table shows how far each
    reviewer agrees with the others. While one agrees too little, nothing is exported: leave them out by --without, or
    take them by --trust.

    Copies of a video are found by its pictures. Fakes of a video and other videos of its people are not: name them by
    --sources if they are known, or a network that learns who is in a video passes for one that learns what is forged.

    Exit codes: 0 done, 3 some people have no crops (failures.csv), or a reviewer agrees too little, 2 bad options or no
    labels, 130 interrupted.
    """
    from models.cores import available_cores
    from models.spec import InputSpec
    from pipeline.faces.create import create_detector
    from pipeline.video.sandbox import DecodeServer
    from trainers.data.decided import DecidedCutter, listing_of, name_of
    from trainers.data.layouts import Shares
    from trainers.data.prepare import PrepareOptions, prepare
    from web.audit import Kind, append
    from web.keys import Keys
    from web.labels import keep_splits, labels, same_source
    from web.media_store import media_of
    from web.quality import QualityReport

    at = folder_of(folder)
    threads = workers or available_cores() + 1
    console = console_of()
    try:
        with exit_on_error():
            shares = Shares(val_share, test_share)
            since_s = 0.0 if since is None else since.replace(tzinfo=UTC).timestamp()
            database = database_of(folder)
            keys = {key.id: key.name for key in Keys(database).all()}
            if unknown := sorted(set(without or ()) - keys.keys()):
                fail(f"no key {unknown[0]}: `unmask keys list` shows them")
            found = labels(database, faces=frames, disputed=disputed, since_s=since_s, without=without or ())
            report = QualityReport(database)
            doubtful = doubtful_reviewers(report, [*(without or ()), *(trust or ())])
            print_reviewers(console, report.quality(without=without or ()), keys, doubtful)
            alike = [*found.alike, *same_source(database, read_sources(sources))]
            listing = listing_of(found.people, alike, found.splits, found.left_out, at, shares=shares, dataset=dataset)
            print_listing(console, listing, "people with a label")
            if not listing.videos:
                fail("nobody in a video has a label: nothing to export")
            if doubtful:
                names = ", ".join(f"{visible(keys.get(key, ''))} ({key})" for key in doubtful)
                echo(
                    f"Refused: {names} agree too little with others: leave them out (--without), or --trust them",
                    err=True,
                )
                raise typer.Exit(EXIT_SOME_FAILED)
            media = media_of(store, at, 16 << 30)
            with database.write() as rows:  # before anything leaves
                people = {name_of(person): person for person in found.people}
                keep_splits(rows, {people[each.source_video].video: each.split for each in listing.videos})
                append(rows, Kind.EXPORTED, what="labels", people=len(found.people), without=sorted(without or ()))
            faces = create_detector(detector, weights=detector_weights, streams=threads)
            with DecodeServer() as server, progress(console) as bar:
                task = bar.add_task("people", total=len(listing.videos))
                cutter = DecidedCutter(faces, server, InputSpec(size), frames, people=people, media=media)
                prepared = prepare(
                    listing,
                    out,
                    cutter,
                    PrepareOptions("jpeg", quality, pairs=False),
                    workers=threads,
                    progress=lambda done: bar.update(task, completed=done.videos_done),
                )
    except KeyboardInterrupt:
        console.print(f"[yellow]Interrupted.[/] The same command resumes from {out}.", highlight=False)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    print_prepared(console_of(stderr=False), prepared, out)
    raise typer.Exit(EXIT_SOME_FAILED if prepared.failures else 0)


def doubtful_reviewers(report: QualityReport, known: Sequence[str]) -> list[str]:
    """Ids of the keys of reviewers the whole interval of whose kappa is below `SUBSTANTIAL`.

    One who is wrong lowers the kappa of all who are compared with them. So the lowest one is taken, and the others are
    compared without them, until all agree; of equal ones, as two who are only compared with each other, nobody knows
    who is wrong.

    Args:
        report: of the service.
        known: ids of keys that a person has decided on: they are left out of it.
    """
    found: list[str] = []
    while True:
        reviewers = report.quality(without=[*known, *found]).reviewers
        low = {
            each.key_id: each.agreement.kappa
            for each in reviewers
            if each.agreement.kappa is not None and (each.agreement.high or 0.0) < SUBSTANTIAL
        }
        if not low:
            return found
        found += [key for key, kappa in sorted(low.items()) if kappa == min(low.values())]


def print_reviewers(console: Console, quality: Quality, names: Mapping[str, str], doubtful: Collection[str]) -> None:
    """A line for each reviewer whose decisions can be compared, the least agreement first."""
    from rich.table import Table

    from pipeline.visible import markup

    table = Table("reviewer", "key", "decisions", "compared", "kappa", "95 % interval", "known answers", "")
    known = [each for each in quality.reviewers if each.agreement.clips or each.golden.of]
    for each in sorted(known, key=lambda each: 2.0 if each.agreement.kappa is None else each.agreement.kappa):
        found = each.agreement
        table.add_row(
            markup(names.get(each.key_id, "")),
            each.key_id,
            str(each.decisions),
            str(found.clips),
            "-" if found.kappa is None else f"{found.kappa:.2f}",
            "-" if found.low is None else f"{found.low:.2f} to {found.high:.2f}",
            f"{each.golden.hits} of {each.golden.of}" if each.golden.of else "-",
            "[red]agrees too little[/]" if each.key_id in doubtful else "",
        )
    if known:
        console.print(table)


def read_sources(path: Path | None) -> list[tuple[str, str]]:
    """The rows of `--sources`; ends with exit code 2 if the file cannot be read."""
    import csv

    if path is None:
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            if missing := {"video", "source"} - set(rows.fieldnames or ()):
                fail(f"{path}: column {' and '.join(sorted(missing))} missing; expected video and source")
            found = [(row["video"], row["source"]) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        fail(f"{path}: cannot be read: {error}")
    for number, row in enumerate(found, 1):
        if not all(row):
            fail(f"{path}: row {number}: expected a video and a source")
    return found
