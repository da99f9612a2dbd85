"""Judged videos again by other weights, and what that changes."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from pipeline.commands.errors import exit_on_error, fail
from pipeline.commands.inputs import check_exist, check_weights
from pipeline.commands.options import ClipsAtOnce, FaceWeights, JsonTo, Redis, Weights, clips_at_once
from pipeline.commands.output import check_written, echo, written_as_json
from pipeline.visible import visible
from web.commands.options import Folder, Store, database_of, folder_of

if TYPE_CHECKING:
    from rich.console import Console

    from web.commands.rescore_run import Replay
    from web.database import Database
    from web.rescores import Run

EXIT_DIFFER = 3
EXIT_INTERRUPTED = 130
_DAY = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]
_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}

RunName = Annotated[str, typer.Argument(metavar="RUN", help="Name of a run, as `unmask rescore list` shows it.")]


class _RunByDefault(TyperGroup):
    """`unmask rescore --weights NEW` runs."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_RunByDefault,
    help="Judged videos again by other weights, and what that changes. `unmask rescore --weights NEW` begins a run.",
    no_args_is_help=True,
)


@app.command()
def run(
    weights: Weights = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--run", help="Name of the run; an interrupted one goes on.", show_default="of the weights and their sha256"
        ),
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(help="Of videos that were judged from then on, UTC.", formats=_DAY, show_default="all"),
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(help="Of videos that were judged before, UTC.", formats=_DAY, show_default="all")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="So many videos this time.", min=1, show_default="all")] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Compare what these weights judged with what they judge now; nothing is kept."),
    ] = False,
    folder: Folder = None,
    store: Store = None,
    redis: Redis = None,
    detector_weights: FaceWeights = None,
    workers: ClipsAtOnce = "auto",
    json_to: JsonTo = None,
) -> None:
    """Judge the judged videos of a service again by other weights, and show what changes.

    No verdict is replaced: new ones are kept beside them, under the name of the run, in the service's database and, if
    UNMASK_REDIS is set, in Redis. Sampling, face detector, looks and part are those of each record. The service may be
    running.

    Exit codes: 0 done, 3 with --check: records differ or nothing was compared, 2 bad options or nothing to do, 1 the
    store, Redis or the database is away, 130 interrupted: the same command goes on.
    """
    with exit_on_error(), _reaching(), closing(database_of(folder)) as database:
        since_s, until_s = _range(since, until)
        if weights is None and not check:
            fail("name the weights by --weights")
        if check and name is not None:
            fail("--check and --run exclude each other: a check keeps nothing")
        check_exist([detector_weights])
        check_weights(weights)
        clips = clips_at_once(workers)
        check_written({"--json": json_to}, [])

        from web.commands.rescore_run import Wanted, check_replay, rescore

        wanted = Wanted(weights, since_s, until_s, limit, folder_of(folder), store, detector_weights, clips)
        try:
            if check:
                _show_replay(check_replay(wanted, database), json_to)
            else:
                _show(database, rescore(wanted, database, name, redis), json_to)
        except KeyboardInterrupt:
            echo("Interrupted: nothing was compared." if check else "Interrupted: the same command goes on.", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None


@app.command()
def diff(run: RunName, folder: Folder = None, json_to: JsonTo = None) -> None:
    """Show again what a run changes: labels, log-odds, and what people decided.

    Exit codes: 0 shown, 2 there is no such run.
    """
    from web.rescores import Rescores

    with exit_on_error(), closing(database_of(folder)) as database:
        check_written({"--json": json_to}, [])
        _show(database, Rescores(database).get(run), json_to)


@app.command("list")
def show(folder: Folder = None) -> None:
    """List the runs."""
    from web.rescore_text import runs_shown
    from web.rescores import Rescores

    with exit_on_error(), closing(database_of(folder)) as database:
        found = Rescores(database).all()
    if found:
        _console().print(runs_shown(found))
    else:
        echo("no runs")


@app.command()
def notify(
    run: RunName,
    after: Annotated[str, typer.Option(help="From the end of the run, such as 24h, 30m or 2d.")] = "24h",
    yes: Annotated[bool, typer.Option("--yes", help="Send; without it, what would be sent is shown.")] = False,
    folder: Folder = None,
) -> None:
    """Send webhooks that the label of videos is another one by the weights of a run: `video.rescored`, once for each.

    A run of which notices were sent cannot be dropped.

    Exit codes: 0 sent or shown, 2 it is too early, there is no such run, or bad options, 1 the database is locked.
    """
    from web.rescore_notices import check_due, notices_of, send
    from web.rescore_runs import alone
    from web.rescore_text import notices_shown
    from web.rescores import Rescores
    from web.webhooks import enqueue

    with exit_on_error(), _reaching(), closing(database_of(folder)) as database, alone(folder_of(folder)):
        after_s = _seconds(after)
        found = Rescores(database).get(run)
        check_due(found, after_s, time.time())
        notices = notices_of(database, found)
        console = _console()
        for part in notices_shown(notices):
            console.print(part)
        if not yes:
            echo("nothing was sent: give --yes")
            return
        count = send(database, enqueue, found, notices.videos)
    echo(f"notices about {count} videos are sent by the service")


@app.command()
def drop(run: RunName, folder: Folder = None, redis: Redis = None) -> None:
    """Delete a run with its records, before notices of it are sent.

    Exit codes: 0 deleted, 2 there is no such run, or its notices were sent, 1 Redis or the database is away.
    """
    from pipeline.settings import Settings
    from web.commands.rescore_run import keys_of
    from web.rescore_keys import check_not_in_redis
    from web.rescore_runs import Runs, alone
    from web.rescores import Rescores

    with exit_on_error(), _reaching(), closing(database_of(folder)) as database, alone(folder_of(folder)):
        runs, found = Runs(database), Rescores(database).get(run)
        runs.check_not_notified(found)
        keys = keys_of(database, redis, Settings())
        if keys is None:
            check_not_in_redis(database, found)
        else:
            keys.drop(found)
        count = runs.drop(found)
    echo(f"{run}: deleted, with {count} records")


def _show(database: Database, run: Run, json_to: Path | None) -> None:
    from web.rescore_diff import as_json, diff_of
    from web.rescore_runs import Runs
    from web.rescore_text import diff_shown
    from web.rescores import Rescores

    found = diff_of(Rescores(database), run, len(Runs(database).todo(run)))
    if written_as_json(json_to, as_json(found)):
        return
    console = _console()
    for part in diff_shown(found):
        console.print(part)


def _show_replay(found: Replay, json_to: Path | None) -> None:
    """Raises typer.Exit where records differ, or nothing was compared."""
    equal = found.compared - len(found.differences)
    facts = {
        "compared": found.compared,
        "equal": equal,
        "differences": found.differences,
        "other_weights": found.other_weights,
        "left_out": {reason.value: count for reason, count in found.left_out.items()},
    }
    if not written_as_json(json_to, facts):
        echo(f"{equal} of {found.compared} records are equal")
        for id_, difference in list(found.differences.items())[:1]:
            echo(f"first difference: {visible(id_)}: {visible(difference)}")
        if found.other_weights:
            echo(f"{found.other_weights} were judged by other weights: not compared")
        for reason, count in found.left_out.items():
            echo(f"{count} {reason.text}")
    if found.differences or not found.compared:
        raise typer.Exit(EXIT_DIFFER)


def _range(since: datetime | None, until: datetime | None) -> tuple[float | None, float | None]:
    """As Unix seconds; the command ends with an error if there is nothing between them."""
    since_s, until_s = (None if day is None else day.replace(tzinfo=UTC).timestamp() for day in (since, until))
    if since_s is not None and since_s > time.time():
        fail("--since is in the future")
    if since_s is not None and until_s is not None and since_s >= until_s:
        fail("--until is not after --since")
    return since_s, until_s


def _seconds(text: str) -> float:
    """From a text such as 24h; the command ends with an error if it is not one."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if found is None:
        fail(f"--after is a number with s, m, h or d behind it, such as 24h; got {visible(text)!r}")
    return float(found[1]) * _UNITS_S[found[2]]


@contextmanager
def _reaching() -> Iterator[None]:
    """End with exit code 1 and the reason if Redis, the store or the database cannot be used now."""
    from redis import RedisError

    from web.media import StoreAwayError

    try:
        yield
    except (RedisError, StoreAwayError, sqlite3.OperationalError) as error:
        what = "the service's database: " if isinstance(error, sqlite3.Error) else ""
        fail(f"{what}{error}; the same command goes on later", code=1)


def _console() -> Console:
    import sys

    from rich.console import Console

    # Tables wider than the default of a pipe would lose their columns.
    return Console(width=None if sys.stdout.isatty() else 140)
