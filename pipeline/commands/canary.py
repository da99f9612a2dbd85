"""Weights that judge a share of the videos next to the active ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.errors import exit_on_error
from pipeline.commands.options import Redis
from pipeline.commands.output import echo
from pipeline.visible import visible

if TYPE_CHECKING:
    from pipeline.weights.announced import ActiveWeights
    from pipeline.weights.canary import Announced, Arms, Canaries

EXIT_REFUSED = 3
app = typer.Typer(
    help="Weights that judge a share of the videos: `unmask promote --canary 10%` begins it.", no_args_is_help=True
)


@app.command()
def status(redis: Redis = None) -> None:
    """Show what both arms gave so far. Exit code 3: no canary is announced."""
    from pipeline.commands.services import reaching

    with reaching(), exit_on_error():
        canaries, _ = _open(redis)
        announced = canaries.read()
        _show(announced, canaries.arms(announced.canary))


@app.command()
def accept(
    videos: Annotated[int, typer.Option(help="Fewest videos of the canary.", min=1)] = 200,
    force: Annotated[bool, typer.Option("--force", help="Also with fewer.")] = False,
    redis: Redis = None,
) -> None:
    """Make the canary's weights the active ones.

    Exit codes: 0 done, 3 no canary, too few videos, or other weights are active, 1 Redis is unreachable.
    """
    from pipeline.commands.services import reaching

    with reaching(), exit_on_error():
        canaries, active = _open(redis)
        announced = canaries.read()
        canary, arms = announced.canary, canaries.arms(announced.canary)
        _show(announced, arms)
        now = active.read()
        if now is None or now.announcement.sha256 != canary.previous:
            echo("Refused: other weights are active than those that the canary was compared with", err=True)
            raise typer.Exit(EXIT_REFUSED)
        if arms.canary.videos < videos and not force:
            echo(f"Refused: {arms.canary.videos} videos were judged by the canary, {videos} are needed", err=True)
            raise typer.Exit(EXIT_REFUSED)
        active.announce(
            sha256=canary.sha256,
            name=canary.name,
            uri=canary.uri,
            forced=canary.forced,
            replacing=now,
            size_bytes=canary.size_bytes,
            graph=canary.graph,
        )
    echo(f"active: {visible(canary.name)}, sha256 {canary.sha256}")


@app.command()
def end(
    why: Annotated[str, typer.Option(help="Why it ends.")] = "ended by hand",
    redis: Redis = None,
) -> None:
    """End the canary: all videos are judged by the active weights. Exit code 3: no canary is announced."""
    from pipeline.commands.services import reaching

    with reaching(), exit_on_error():
        canaries, _ = _open(redis)
        announced = canaries.read()
        canaries.end(announced, why)
    echo(f"ended: {visible(announced.canary.name)}, sha256 {announced.canary.sha256}")


def _open(redis: str | None) -> tuple[Canaries, ActiveWeights]:
    from pipeline.commands.services import services
    from pipeline.results.store import connect
    from pipeline.weights.announced import ActiveWeights
    from pipeline.weights.canary import Canaries

    client = connect(services(redis=redis).redis)
    return Canaries(client), ActiveWeights(client)


def _show(announced: Announced, arms: Arms) -> None:
    canary = announced.canary
    echo(f"{visible(canary.name)}, sha256 {canary.sha256}, judges {canary.share:.1%} of the videos")
    echo(f"beside sha256 {canary.previous}; a difference of {canary.tolerance:.1%} called fake is tolerated")
    for name, arm in (("canary", arms.canary), ("active", arms.active)):
        echo(
            f"{name}: {arm.videos} videos, {arm.failed} errors; {arm.scored} scored: {arm.fake} fake, "
            f"{arm.inconclusive} inconclusive, {arm.real} real"
        )
    if arms.shadow:
        echo(
            f"on {arms.shadow['crops']:.0f} live crops P(fake) differs by {arms.shadow['mean']:.4f} in the mean, "
            f"{arms.shadow['p95']:.4f} at 95 %, {arms.shadow['max']:.4f} at most"
        )
