"""Messages that could not be processed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.errors import exit_on_error
from pipeline.commands.options import Kafka, Redis
from pipeline.commands.output import echo
from pipeline.visible import visible

if TYPE_CHECKING:
    from pipeline.dead import Letter

app = typer.Typer(help="Messages that could not be processed, and why.", no_args_is_help=True)


@app.command("list")
def list_letters(
    stage: Annotated[str | None, typer.Option(help="Only those of a stage: parse, score or publish.")] = None,
    kafka: Kafka = None,
    redis: Redis = None,
) -> None:
    """List the dead letters, the oldest first."""
    from pipeline.commands.services import reaching, services
    from pipeline.dead import letters
    from pipeline.results.store import connect

    settings = services(kafka=kafka, redis=redis)
    with exit_on_error(), reaching():
        for letter in letters(settings.kafka, connect(settings.redis)):
            if stage in (None, letter.stage):
                fields = (letter.place, letter.when, letter.stage, letter.key, letter.error)
                echo("  ".join(map(visible, fields)) + ("  (sent again)" if letter.requeued else ""))


@app.command()
def show(
    place: Annotated[str, typer.Argument(help="PARTITION:OFFSET, as `dead list` shows it.")],
    kafka: Kafka = None,
    redis: Redis = None,
) -> None:
    """Show one dead letter with its headers and its value. Exit code 1: it does not exist."""
    from pipeline.commands.services import reaching, services
    from pipeline.dead import letters
    from pipeline.results.store import connect

    settings = services(kafka=kafka, redis=redis)
    with exit_on_error(), reaching():
        for letter in letters(settings.kafka, connect(settings.redis)):
            if letter.place == place:
                _show(letter)
                return
    echo(f"no dead letter {place}", err=True)
    raise typer.Exit(1)


@app.command()
def requeue(
    places: Annotated[list[str] | None, typer.Argument(help="PARTITION:OFFSET, as `dead list` shows it.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All that were not sent again.")] = False,
    stage: Annotated[str | None, typer.Option(help="With --all: only those of a stage.")] = None,
    kafka: Kafka = None,
    redis: Redis = None,
) -> None:
    """Send dead letters to their topic again; a clip that ended as model_error is judged again.

    Exit codes: 0 all were sent, 3 some cannot be (the reason is shown), 2 bad options, 1 Kafka or Redis is unreachable.
    """
    if bool(places) == every:
        raise typer.BadParameter("name the letters (PARTITION:OFFSET), or give --all")
    from pipeline.commands.services import reaching, services
    from pipeline.dead import RequeueError, letters
    from pipeline.dead import requeue as send_again
    from pipeline.results.store import VerdictStore, connect
    from pipeline.transport.kafka import Publisher

    settings = services(kafka=kafka, redis=redis)
    client = connect(settings.redis)
    store = VerdictStore(client, ttl_s=settings.ttl_s)
    wanted = set(places or ())
    sent, failed = 0, 0
    with exit_on_error(), reaching(), Publisher(settings.kafka) as publisher:
        for letter in letters(settings.kafka, client):
            if letter.place in wanted if wanted else not letter.requeued and stage in (None, letter.stage):
                wanted.discard(letter.place)
                try:
                    send_again(letter, publisher=publisher, store=store, client=client)
                    sent += 1
                except RequeueError as error:
                    failed += 1
                    echo(f"{letter.place}: {error}", err=True)
                if places and not wanted:
                    break
    for place in sorted(wanted):
        failed += 1
        echo(f"{place}: no such dead letter", err=True)
    echo(f"{sent} sent again")
    raise typer.Exit(3 if failed else 0)


def _show(letter: Letter) -> None:
    echo(f"place: {letter.place}\nwhen: {letter.when}\nkey: {visible(letter.key)}")
    for name, text in letter.message.headers:
        echo(f"{visible(name)}: {visible((text or b'').decode('utf-8', 'backslashreplace'))}")
    value = letter.message.value or b""
    echo()
    echo(value[:4096].decode("utf-8", "backslashreplace"))
    if len(value) > 4096:
        echo(f"... {len(value)} bytes in all")
