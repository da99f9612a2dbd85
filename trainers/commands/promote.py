"""Make weights the active ones: workers load them while they serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.errors import exit_on_error
from pipeline.commands.options import Redis
from pipeline.commands.output import echo


def run(
    weights: Annotated[str, typer.Argument(metavar="NAME|PATH", help="A checkpoint, or named weights.")],
    evaluation: Annotated[
        Path | None, typer.Option(help="What `unmask evaluate --json` wrote of these weights.", exists=True)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Override the gate; never for an invalid file.")] = False,
    registry: Annotated[
        str | None, typer.Option(help="Folder or URI of the registry.", envvar="UNMASK_REGISTRY")
    ] = None,
    redis: Redis = None,
) -> None:
    """Put weights into the registry and announce them to all workers, if they are not worse than the active ones.

    Exit codes: 0 done, 3 refused, 2 bad options or no such file, 1 the registry or Redis is not reachable.
    """
    from pipeline.commands.services import open_registry, reaching, services

    settings = services(redis=redis)
    shelf = open_registry(registry)

    from pipeline.results.store import connect
    from pipeline.weights.announced import ActiveWeights
    from trainers.promote import promote

    with reaching(), exit_on_error():
        text = None if evaluation is None else evaluation.read_bytes()
        done = promote(weights, text, registry=shelf, active=ActiveWeights(connect(settings.redis)), force=force)
    announcement = done.announcement
    if announcement.forced and done.news:
        echo(f"Forced despite: {done.message}", err=True)
    else:
        echo(done.message)
    echo(f"active: {announcement.name}, sha256 {announcement.sha256}")
    if announcement.graph is None:
        echo("Without a graph: workers need torch. `pip install openvino` lets promote make it.", err=True)
