"""Weights that judge a share of the videos next to the active ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.errors import exit_on_error
from pipeline.commands.options import Redis, Registry
from pipeline.commands.output import echo
from pipeline.visible import visible

if TYPE_CHECKING:
    from pipeline.contracts import Canary
    from pipeline.weights.announced import ActiveWeights
    from pipeline.weights.canary import Arms, Canaries

EXIT_REFUSED = 3
app = typer.Typer(
    help="Weights that judge a share of the videos: `unmask promote --canary 10%` begins it.", no_args_is_help=True
)


@app.command()
def status(redis: Redis = None) -> None:
    """Show what both arms gave so far. Exit code 3: no canary is announced; the last one is shown with why it ended."""
    from pipeline.commands.services import reaching
    from pipeline.weights.canary import NoCanaryError

    with reaching(), exit_on_error():
        canaries, _ = _open(redis)
        try:
            announced = canaries.read()
        except NoCanaryError as error:
            echo(f"{error}", err=True)
            if (last := canaries.last_ended()) is not None:
                arms = canaries.arms(last)
                echo("The last one:")
                _show(last, arms)
                echo(f"ended: {visible(arms.ended)}")
            raise typer.Exit(EXIT_REFUSED) from None
        _show(announced.canary, canaries.arms(announced.canary))


@app.command()
def accept(
    videos: Annotated[int, typer.Option(help="Fewest videos of the canary.", min=1)] = 200,
    force: Annotated[bool, typer.Option("--force", help="Also with fewer.")] = False,
    registry: Registry = None,
    redis: Redis = None,
) -> None:
    """Make the canary's weights the active ones.

    Exit codes: 0 done, 3 no canary, too few videos, or other weights are active, 1 Redis is unreachable, the canary
    ended meanwhile, or its weights are not in the registry.
    """
    from pipeline.commands.services import check_in_registry, reaching

    with reaching(), exit_on_error():
        canaries, active = _open(redis)
        announced = canaries.read()
        canary, arms = announced.canary, canaries.arms(announced.canary)
        _show(canary, arms)
        now = active.read()
        if now is None or now.announcement.sha256 != canary.previous:
            echo("Refused: other weights are active than those that the canary was compared with", err=True)
            raise typer.Exit(EXIT_REFUSED)
        if arms.canary.videos < videos and not force:
            echo(f"Refused: {arms.canary.videos} videos were judged by the canary, {videos} are needed", err=True)
            raise typer.Exit(EXIT_REFUSED)
        check_in_registry(registry, canary.sha256)
        active.announce(
            sha256=canary.sha256,
            name=canary.name,
            uri=canary.uri,
            forced=canary.forced,
            replacing=now,
            size_bytes=canary.size_bytes,
            graph=canary.graph,
            canary=announced.raw,
        )
    echo(f"active: {visible(canary.name)}, sha256 {canary.sha256}")


@app.command()
def end(
    why: Annotated[str, typer.Option(help="Why it ends.")] = "ended by hand",
    redis: Redis = None,
) -> None:
    """End the canary: all videos are judged by the active weights. Exit code 3: no canary is announced."""
    from pipeline.commands.services import reaching
    from pipeline.weights.announced import AnnouncementError
    from pipeline.weights.canary import Announced, NoCanaryError, parse_canary

    with reaching(), exit_on_error():
        canaries, _ = _open(redis)
        if (raw := canaries.raw()) is None:
            raise NoCanaryError("no canary is announced")
        try:
            announced = Announced(parse_canary(raw), raw)
        except AnnouncementError as error:
            done, ended = canaries.remove(raw), f"{error}"
        else:
            done = canaries.end(announced, why)
            ended = f"{visible(announced.canary.name)}, sha256 {announced.canary.sha256}"
        if not done:
            raise NoCanaryError("it was ended or replaced meanwhile")
    echo(f"ended: {ended}")


def _open(redis: str | None) -> tuple[Canaries, ActiveWeights]:
    from pipeline.commands.services import services
    from pipeline.results.store import connect
    from pipeline.weights.announced import ActiveWeights
    from pipeline.weights.canary import Canaries

    client = connect(services(redis=redis).redis)
    return Canaries(client), ActiveWeights(client)


def _show(canary: Canary, arms: Arms) -> None:
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
