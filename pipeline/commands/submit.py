"""Submit videos to the workers."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.errors import exit_on_error
from pipeline.commands.options import End, FollowLinks, Kafka, Redis, Start, part_of
from pipeline.commands.output import echo

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.results.store import VerdictStore
    from pipeline.sources import Source
    from pipeline.submit import Item
    from pipeline.video.window import Window


class Class(StrEnum):
    """Classes of sources, each with a topic of its own."""

    UPLOAD = "upload"
    ARCHIVE = "archive"


def run(
    paths: Annotated[list[str], typer.Argument(metavar="PATH|URI...", help="Files, folders, globs or fsspec URIs.")],
    source_class: Annotated[Class, typer.Option("--class", help="Uploads are judged before archives.")] = Class.UPLOAD,
    recursive: Annotated[bool, typer.Option("--recursive", help="Include sub-folders.")] = False,
    follow_links: FollowLinks = False,
    sampling: Annotated[
        str | None,
        typer.Option(
            help="fps=F, frames=N, every=N or keyframes; the first three also with ,adaptive.",
            show_default="the workers' own",
        ),
    ] = None,
    start: Start = None,
    end: End = None,
    watch: Annotated[bool, typer.Option("--watch", help="Wait for the verdicts.")] = False,
    kafka: Kafka = None,
    redis: Redis = None,
) -> None:
    """Submit videos to the workers: paths and URIs as the workers see them.

    The same content is sent once, so an interrupted call can be repeated. Exit codes: 0 all sent, or with --watch
    all scored; 3 some other outcome, or a name that no message can hold; 2 bad options or no input; 1 Kafka or Redis is
    unreachable; 130 interrupted.
    """
    from rich.console import Console
    from rich.progress import Progress

    from pipeline.commands.services import reaching, services
    from pipeline.contracts import SourceClass
    from pipeline.finding import expand
    from pipeline.results.store import VerdictStore, connect
    from pipeline.settings import Settings
    from pipeline.submit import submit
    from pipeline.tracing import exporting
    from pipeline.transport.kafka import Publisher, ensure_topics
    from pipeline.video.sampling import parse_sampling

    settings = services(kafka=kafka, redis=redis)
    try:
        chosen = None if sampling is None else parse_sampling(sampling)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    part = part_of(start, end)
    found = expand(paths, recursive=recursive, follow_links=follow_links, chains=Settings().uri_chains)
    if not found.sources:
        echo(f"No clips: {', '.join(paths)} held {found.why_skipped() or 'nothing'}.", err=True)
        raise typer.Exit(2)
    console = Console(stderr=True)
    try:
        with exit_on_error(), reaching():
            items, unnamed = _items(found.sources, part)
            store = VerdictStore(connect(settings.redis), ttl_s=settings.ttl_s)
            ensure_topics(settings.kafka)
            with (
                exporting("unmask-submit"),
                Publisher(settings.kafka) as publisher,
                Progress(console=console) as progress,
            ):
                bar = progress.add_task("submitting", total=len(items))
                done = submit(
                    items,
                    publisher=publisher,
                    store=store,
                    source_class=SourceClass(source_class),
                    sampling=chosen,
                    sent=lambda count: progress.advance(bar, count),
                )
            echo(f"{done.sent} sent, {done.known} known already")
            if found.skipped:
                echo(f"skipped: {found.why_skipped()}")
            for message in unnamed:
                echo(f"not sent: {message}", err=True)
            if len(items) == 1:
                echo(f"id: {items[0].id}")
            if watch:
                code = _watch(items, store, console)
                raise typer.Exit(code or (3 if unnamed else 0))
            if unnamed:
                raise typer.Exit(3)
    except KeyboardInterrupt as error:
        echo("Interrupted; run the same command to continue.", err=True)
        raise typer.Exit(130) from error


def _items(sources: Sequence[Source], part: Window | None) -> tuple[list[Item], list[str]]:
    """The items, and why others cannot be sent."""
    from pipeline.submit import item_of

    items, unnamed = [], []
    for source in sources:
        try:
            items.append(item_of(source, part))
        except ValueError as error:
            unnamed.append(str(error))
    return items, unnamed


def _watch(items: list[Item], store: VerdictStore, console: Console) -> int:
    from collections import Counter

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from pipeline.contracts import Outcome
    from pipeline.submit import watch

    outcomes: Counter[Outcome] = Counter()
    columns = (
        TextColumn("judging"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("judging", total=len(items), rate="", left="")

        def on_done(outcome: Outcome) -> None:
            outcomes[outcome] += 1
            progress.advance(bar)

        for counts in watch([item.id for item in items], store, on_done=on_done):
            speed = progress.tasks[0].speed
            left = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
            progress.update(bar, rate="" if speed is None else f"{speed:.2f} clips/s", left=left)
    echo(", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())))
    return 0 if set(outcomes) == {Outcome.SCORED} else 3
