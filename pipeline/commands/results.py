"""Verdicts of the workers."""

from __future__ import annotations

import sys
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from models.atomic import atomic_write
from pipeline.commands.errors import exit_on_error
from pipeline.commands.options import JsonTo, Kafka, Redis
from pipeline.commands.output import echo, echo_record
from pipeline.visible import markup, visible

if TYPE_CHECKING:
    from pipeline.contracts import Verdict

app = typer.Typer(help="Verdicts of the workers.", no_args_is_help=True)


@app.command()
def show(
    clip_id: Annotated[str, typer.Argument(metavar="ID", help="Id of a clip.")],
    json_to: JsonTo = None,
    redis: Redis = None,
) -> None:
    """Show the verdict or state of a clip. Exit codes: 0 it has its verdict, 3 not yet, 1 it is unknown."""
    from pipeline.commands.services import reaching, services
    from pipeline.contracts import Verdict
    from pipeline.results.store import VerdictStore, connect

    settings = services(redis=redis)
    with exit_on_error(), reaching():
        store = VerdictStore(connect(settings.redis), ttl_s=settings.ttl_s)
        record, state = store.record(clip_id), store.state(clip_id)
    if record is not None:
        if json_to is not None and str(json_to) != "-":
            with exit_on_error(), atomic_write(json_to) as file:
                file.write(record + b"\n")
        if str(json_to) == "-":
            echo_record(record.decode())
        else:
            _show(Verdict.model_validate_json(record))
        return
    if state is None:
        echo(f"{clip_id}: unknown; `unmask results restore` restores an expired verdict", err=True)
        raise typer.Exit(1)
    echo(f"{clip_id}: {state}")
    raise typer.Exit(3)


@app.command()
def tail(
    beginning: Annotated[bool, typer.Option("--from-beginning", help="First show all existing ones.")] = False,
    json_to: JsonTo = None,
    kafka: Kafka = None,
) -> None:
    """Show verdicts as they come, until interrupted."""
    from pipeline.commands.services import reaching, services
    from pipeline.contracts import Topic
    from pipeline.results.restore import record_line
    from pipeline.transport.history import read_topic

    settings = services(kafka=kafka)
    try:
        with ExitStack() as stack:
            stack.enter_context(exit_on_error())
            stack.enter_context(reaching())
            in_file = json_to is not None and str(json_to) != "-"
            file = stack.enter_context(json_to.open("ab")) if json_to is not None and in_file else None
            for message in read_topic(settings.kafka, Topic.VERDICTS, follow=True, beginning=beginning):
                if file is not None and message.value is not None:
                    file.write(message.value + b"\n")
                    file.flush()
                if str(json_to) == "-":
                    if message.value is not None:
                        echo_record(message.value.decode("utf-8", "replace"))
                else:
                    echo(visible(record_line(message)))
    except KeyboardInterrupt as error:
        raise typer.Exit(130) from error


@app.command()
def export(
    out: Annotated[Path | None, typer.Option(help="A JSONL file.", show_default="standard output")] = None,
    kafka: Kafka = None,
) -> None:
    """Write all published records as JSON lines, one per clip."""
    from pipeline.commands.services import reaching, services
    from pipeline.results.restore import latest_records

    settings = services(kafka=kafka)
    count = 0
    with exit_on_error(), reaching(), nullcontext(sys.stdout.buffer) if out is None else atomic_write(out) as file:
        for record in latest_records(settings.kafka):
            file.write(record + b"\n")
            count += 1
    echo(f"{count} records", err=True)


@app.command()
def restore(kafka: Kafka = None, redis: Redis = None) -> None:
    """Restore verdicts to Redis from the topic of published verdicts; existing ones stay.

    Exit codes: 0 all are restored, 3 some messages are not records, 1 Kafka or Redis is unreachable.
    """
    from pipeline.commands.services import reaching, services
    from pipeline.results.restore import restore as bring_back
    from pipeline.results.store import VerdictStore, connect

    settings = services(kafka=kafka, redis=redis)
    with exit_on_error(), reaching():
        done = bring_back(settings.kafka, VerdictStore(connect(settings.redis), ttl_s=settings.ttl_s))
    purged = f", {done.purged} purged" if done.purged else ""
    echo(f"{done.restored} restored, {done.existing} already present, {done.invalid} invalid{purged}")
    raise typer.Exit(3 if done.invalid else 0)


def _show(verdict: Verdict) -> None:
    from rich.console import Console

    console = Console()
    result = verdict.label or verdict.outcome
    chance = "" if verdict.probability is None else f"  P(fake) {verdict.probability:.3f}"
    console.print(f"{markup(verdict.id)}  [bold]{result}[/]{chance}", highlight=False)
    console.print(visible(verdict.source), markup=False, highlight=False)
    if verdict.error:
        console.print(visible(verdict.error), markup=False, highlight=False)
    for person in verdict.people:
        console.print(
            f"person {person.track}: P(fake) {person.probability:.3f}, {person.frames} frames, "
            f"{person.first_s:.1f} to {person.last_s:.1f} s",
            highlight=False,
        )
    provenance = verdict.provenance
    weights = ", ".join(sha256[:16] for sha256 in provenance.weights_sha256)
    model = markup(provenance.model)
    console.print(f"{model} ({weights}), {provenance.detector}, {provenance.sampling}", highlight=False)
