"""Fine-tune the active weights on what reviewers decided, and promote the result if it is better."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.errors import exit_on_error, fail
from pipeline.commands.inputs import check_exist, check_weights
from pipeline.commands.options import Backend, Device, Redis, Registry
from pipeline.commands.output import echo
from trainers.commands.trial import Canary, Tolerance, parse_share, state_of

EXIT_REFUSED, EXIT_INTERRUPTED = 3, 130


class LadderChoice(StrEnum):
    """Which part of the robustness ladder is compared."""

    FULL = "full"
    SHORT = "short"
    NONE = "none"


def run(
    decisions: Annotated[Path, typer.Argument(help="manifest.parquet of `unmask labels export`.")],
    replay: Annotated[
        Path, typer.Option(help="Manifest of the base set: it is replayed in training, and compared on.")
    ],
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH", help="Start from these weights, and only compare.", show_default="the active ones"
        ),
    ] = None,
    registry: Registry = None,
    redis: Redis = None,
    canary: Canary = None,
    tolerance: Tolerance = 0.02,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Compare, and promote nothing.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run.", show_default="one in $UNMASK_RUNS, named by its inputs")
    ] = None,
    samples: Annotated[int, typer.Option(help="Images shown in training, real and fake.", min=64)] = 8000,
    replay_share: Annotated[float, typer.Option(help="Share of the pairs that the base set gives.")] = 0.7,
    margin: Annotated[float, typer.Option(help="Largest loss of AUC on the base set.", min=0.0, max=0.5)] = 0.01,
    ladder: Annotated[LadderChoice, typer.Option(help="Degradations to compare under.")] = LadderChoice.SHORT,
    ladder_rows: Annotated[int, typer.Option(help="Crops for each of them.", min=2)] = 1000,
    fpr: Annotated[float, typer.Option(help="Share of reals that `fake` may call fake.", min=0.0001, max=0.5)] = 0.01,
    calibration_rows: Annotated[
        int | None, typer.Option(help="Most crops to calibrate on, as many reals as fakes.", min=2)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the run.", min=0)] = 0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Config KEY=VALUE of the run, such as optim.lr=5e-5; repeatable.")
    ] = None,
    device: Device = "auto",
    backend: Backend = "auto",
) -> None:
    """Fine-tune the active weights on decisions and a replay of the base set; promote the result if it passes the gate.

    It passes if it is better on decisions that were held out, not worse on the base set, nowhere proven worse, and
    calls no more reals fake than allowed; each by a paired bootstrap over the same videos. The same command resumes an
    interrupted run. report.json in the run's folder has all figures.

    Exit codes: 0 promoted (or passed, where nothing is promoted), 3 refused, 2 bad options or data, 1 the registry or
    Redis is not reachable, 130 interrupted.
    """
    with exit_on_error():
        check_exist([decisions, replay])
        check_weights(weights)

    from pipeline.commands.services import open_registry, reaching, services
    from pipeline.logs import configure_logging

    configure_logging(level="warning", as_json=False)
    from trainers.promote import Trial, promote

    share = None if canary is None else parse_share(canary)
    places = trial = None
    if weights is None:
        from pipeline.results.store import connect
        from pipeline.weights.announced import ActiveWeights
        from pipeline.weights.canary import Canaries

        client = connect(services(redis=redis).redis)
        places = open_registry(registry), ActiveWeights(client)
        if share is not None:
            trial = Trial(Canaries(client), share, tolerance)

    from models.zoo import resolve
    from trainers.evaluation.console import show
    from trainers.loop import StoppedError
    from trainers.retraining.report import table_of
    from trainers.retraining.run import RetrainOptions, retrain

    with reaching(), exit_on_error():
        if places is None:
            start = resolve(weights or "")
        elif (now := places[1].read()) is not None:
            start = places[0].get(now.announcement.sha256)
        else:
            fail("no weights are announced: promote some, or name them by --weights")
        options = RetrainOptions(
            decisions=decisions,
            replay=replay,
            weights=start,
            out=out,
            samples=samples,
            replay_share=replay_share,
            margin=margin,
            ladder=ladder.value,
            ladder_rows=ladder_rows,
            fpr=fpr,
            calibration_rows=calibration_rows,
            seed=seed,
            settings=tuple(settings or ()),
            device=device,
            backend=backend,
        )
        try:
            done = retrain(options, echo)
        except (StoppedError, KeyboardInterrupt) as error:
            echo(f"{error or 'Interrupted; the same command resumes it'}", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from error
        show(table_of(done.checks))
        echo(f"report: {done.folder / 'report.json'}")
        if not done.passed or done.candidate is None:
            failed = ", ".join(check.name for check in done.checks if not check.passed)
            echo(f"Refused: {failed}", err=True)
            raise typer.Exit(EXIT_REFUSED)
        if places is None or dry_run:
            echo(f"passed, not promoted: {done.candidate}")
            return
        promoted = promote(
            done.candidate,
            done.evaluation,
            registry=places[0],
            active=places[1],
            trial=trial,
            evaluation_of_active=done.active,
            unattended=True,
        )
    echo(promoted.message)
    announcement = promoted.announcement
    echo(f"{state_of(announcement)}: {announcement.name}, sha256 {announcement.sha256}")
