"""Go back to the weights that were active before."""

from __future__ import annotations

import typer

from pipeline.commands.options import Redis


def run(redis: Redis = None) -> None:
    """Tell all workers to use the weights that were active before these; a second time goes back one further.

    Exit codes: 0 done, 3 there are none to go back to, 2 bad options, 1 Redis is away, or weights were announced at
    the same moment.
    """
    from pipeline.commands.services import services

    settings = services(redis=redis)

    from redis import RedisError

    from pipeline.active import ActiveWeights, AnnouncementError, ChangedMeanwhileError, NothingBeforeError
    from pipeline.results.redis import connect

    try:
        announcement = ActiveWeights(connect(settings.redis)).roll_back()
    except NothingBeforeError as error:
        typer.echo(f"Nothing to go back to: {error}", err=True)
        raise typer.Exit(3) from error
    except (RedisError, AnnouncementError, ChangedMeanwhileError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"active: {announcement.name}, sha256 {announcement.sha256}")
