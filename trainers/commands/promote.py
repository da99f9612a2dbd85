"""Make weights the active ones: workers load them while they serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.errors import exit_on_error
from pipeline.commands.options import Redis, Registry
from pipeline.commands.output import echo
from trainers.commands.trial import Canary, Tolerance, parse_share, state_of


def run(
    weights: Annotated[str, typer.Argument(metavar="NAME|PATH", help="A checkpoint, or named weights.")],
    evaluation: Annotated[
        Path | None, typer.Option(help="What `unmask evaluate --json` wrote of these weights.", exists=True)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Override the gate; never for an invalid file.")] = False,
    canary: Canary = None,
    tolerance: Tolerance = 0.02,
    registry: Registry = None,
    redis: Redis = None,
) -> None:
    """Put weights into the registry and announce them to all workers, if they are not worse than the active ones.

    With --canary they judge a share of the videos first, until `unmask canary accept` or `end`. Workers end it if its
    videos are called fake, or end in an error, at another rate than the others.

    Exit codes: 0 done, 3 refused, 2 bad options or no such file, 1 the registry or Redis is not reachable.
    """
    from pipeline.commands.services import open_registry, reaching, services

    settings = services(redis=redis)
    shelf = open_registry(registry)

    from pipeline.results.store import connect
    from pipeline.weights.announced import ActiveWeights
    from pipeline.weights.canary import Canaries
    from trainers.promote import Trial, promote

    share = None if canary is None else parse_share(canary)
    with reaching(), exit_on_error():
        text = None if evaluation is None else evaluation.read_bytes()
        client = connect(settings.redis)
        trial = None if share is None else Trial(Canaries(client), share, tolerance)
        done = promote(weights, text, registry=shelf, active=ActiveWeights(client), force=force, trial=trial)
    announcement = done.announcement
    if announcement.forced and done.news:
        echo(f"Forced despite: {done.message}", err=True)
    else:
        echo(done.message)
    echo(f"{state_of(announcement)}: {announcement.name}, sha256 {announcement.sha256}")
    if announcement.graph is None:
        echo("Without a graph: workers need torch. `pip install openvino` lets promote make it.", err=True)
