"""Go back to the weights that were active before."""

from __future__ import annotations

from pipeline.commands.errors import exit_on_error
from pipeline.commands.options import Redis, Registry
from pipeline.commands.output import echo


def run(registry: Registry = None, redis: Redis = None) -> None:
    """Make all workers use the weights that were active before these; a second call goes back one further.

    Exit codes: 0 done, 3 no earlier weights, 2 bad options, 1 Redis is unreachable, weights were announced at the same
    time, or the earlier ones are not in the registry any more.
    """
    from pipeline.commands.services import check_in_registry, reaching, services

    settings = services(redis=redis)

    from pipeline.results.store import connect
    from pipeline.weights.announced import ActiveWeights

    with reaching(), exit_on_error():
        active = ActiveWeights(connect(settings.redis))
        check_in_registry(registry, active.before().sha256)
        announcement = active.roll_back()
    echo(f"active: {announcement.name}, sha256 {announcement.sha256}")
