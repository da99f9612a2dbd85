"""Predict workers, partitions, bytes and latency for a load."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.commands.errors import exit_on_error
from pipeline.commands.options import JsonTo
from pipeline.commands.output import check_written, echo, written_as_json

_LOAD, _WORKERS, _PRICES, _TIME = "Load", "Workers", "Prices, in a currency of yours", "Over time"


def _option(text: str, panel: str, **given: Any) -> Any:
    return typer.Option(help=text, rich_help_panel=panel, **given)


def run(
    streams: Annotated[int, _option("Live streams.", _LOAD, min=0)] = 0,
    videos_per_day: Annotated[float, _option("Uploaded videos, on average.", _LOAD, min=0)] = 0.0,
    video_s: Annotated[
        float | None, _option("Seconds of a video.", _LOAD, min=0.1, show_default="the measured clip's")
    ] = None,
    spread: Annotated[str, _option("Lengths of videos: fixed, or exponential around --video-s.", _LOAD)] = "fixed",
    segment_s: Annotated[float, _option("Seconds of a live segment.", _LOAD, min=0.1)] = 2.0,
    jitter_s: Annotated[float, _option("Standard deviation of a segment's delay.", _LOAD, min=0)] = 0.05,
    archive_hours: Annotated[float | None, _option("Hours of video, judged once.", _LOAD, min=0)] = None,
    files: Annotated[int | None, _option("Files of the archive.", _LOAD, min=1)] = None,
    within: Annotated[float | None, _option("Hours in which the archive must be judged.", _LOAD, min=0)] = None,
    bench: Annotated[
        Path, typer.Option("--bench", help="What `unmask bench --plan --json` wrote, of this or another machine.")
    ] = Path(".plan.json"),
    clip: Annotated[
        str | None, typer.Option("--clip", help="Which clip of that file.", show_default="the first")
    ] = None,
    p95: Annotated[float, _option("Seconds from arrival to verdict.", _WORKERS, min=0.001)] = 5.0,
    shed_max: Annotated[float, _option("Share of live segments that may be shed.", _WORKERS, min=0, max=0.99)] = 0.01,
    workers: Annotated[
        int | None, _option("Simulate so many.", _WORKERS, min=1, show_default="the least that hold both")
    ] = None,
    partitions: Annotated[
        int | None, _option("Of each topic.", _WORKERS, min=1, show_default="as many as the workers need")
    ] = None,
    max_age_s: Annotated[
        float, _option("Older segments are shed.", _WORKERS, min=0.001, envvar="UNMASK_LIVE_MAX_AGE_S")
    ] = 5.0,
    split_s: Annotated[
        float, _option("Longer videos are judged in parts; 0: never.", _WORKERS, min=0, envvar="UNMASK_SPLIT_S")
    ] = 600.0,
    start_s: Annotated[float, _option("Seconds from a worker's start to its first task.", _WORKERS, min=0)] = 30.0,
    shared: Annotated[bool, _option("Kafka and Redis run on the machines of the workers.", _WORKERS)] = False,
    burst: Annotated[str | None, _option("For a while, so many times the load: 10x.", _TIME)] = None,
    burst_minutes: Annotated[float, _option("How long.", _TIME, min=0.1)] = 10.0,
    keda: Annotated[bool, _option("KEDA's Kafka scaler changes the number of workers.", _TIME)] = False,
    keda_lag: Annotated[float, _option("lagThreshold: messages per worker.", _TIME, min=0.1)] = 10.0,
    keda_polling_s: Annotated[float, _option("pollingInterval.", _TIME, min=1)] = 30.0,
    keda_stabilisation_s: Annotated[float, _option("Window of scaling down.", _TIME, min=0)] = 300.0,
    keda_cooldown_s: Annotated[float, _option("cooldownPeriod, before 0 workers.", _TIME, min=0)] = 300.0,
    keda_min: Annotated[int, _option("minReplicaCount.", _TIME, min=0)] = 1,
    keda_max: Annotated[int, _option("maxReplicaCount.", _TIME, min=1)] = 100,
    kill: Annotated[int, _option("So many workers die, a minute apart.", _TIME, min=0)] = 0,
    replicas: Annotated[int, _option("Of each partition.", _PRICES, min=1)] = 3,
    retention_hours: Annotated[float, _option("Kafka keeps messages.", _PRICES, min=0)] = 168.0,
    ttl_days: Annotated[float, _option("Redis keeps verdicts.", _PRICES, min=0)] = 30.0,
    stream_hours: Annotated[float, _option("A stream goes on, on average.", _PRICES, min=0)] = 24.0,
    price_worker_hour: Annotated[float | None, _option("Of a worker's hour.", _PRICES, min=0)] = None,
    price_gb: Annotated[float | None, _option("Of network, per 10^9 bytes.", _PRICES, min=0)] = None,
    price_storage_gb: Annotated[float | None, _option("Of Kafka's disks, per GB and month.", _PRICES, min=0)] = None,
    price_redis_gb: Annotated[float | None, _option("Of Redis' memory, per GB and month.", _PRICES, min=0)] = None,
    budget: Annotated[float | None, _option("What of the archive so much pays for.", _PRICES, min=0)] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the simulation.")] = 0,
    json_to: JsonTo = None,
) -> None:
    """Predict workers, partitions, network, storage, Redis and latency for a load, from figures of this machine.

    A simulation of Kafka, workers and, with --keda, the autoscaler; the same options give the same plan. Costs appear
    only where prices are given. docs/scale.md has the limits.

    Exit codes: 0 planned, 2 bad options, no figures, or a target that no number of workers holds.
    """
    with exit_on_error():
        check_written({"--json": json_to}, [bench])

        from dataclasses import asdict

        from rich.console import Console

        from pipeline.planning import tables
        from pipeline.planning.archive import plan_archive
        from pipeline.planning.figures import read_figures
        from pipeline.planning.resources import DAY_S, Keeping, Prices
        from pipeline.planning.scenario import Fleet, Keda, Load
        from pipeline.planning.sizing import Target

        if spread not in ("fixed", "exponential"):
            raise typer.BadParameter(f"--spread takes fixed or exponential, got {spread!r}")
        if archive_hours is None and (files or within or budget):
            raise typer.BadParameter("--files, --within and --budget need --archive-hours")
        if archive_hours is None and not streams and not videos_per_day:
            raise typer.BadParameter("give --streams, --videos-per-day or --archive-hours")
        times = _times(burst)
        figures = read_figures(bench, clip)
        prices = Prices(price_worker_hour, price_gb, price_storage_gb, price_redis_gb)
        console = Console(stderr=str(json_to) == "-", width=100)
        console.print(f"{figures.machine}; {figures.clip}, {figures.backend}", soft_wrap=True, highlight=False)
        made: dict[str, object] = {}
        if archive_hours is not None:
            archive = plan_archive(figures, archive_hours, files, within_h=within, prices=prices, budget=budget)
            console.print(tables.archive_table(archive))
            made["archive"] = asdict(archive)
        if streams or videos_per_day:
            from pipeline.planning.plan import behave, make_plan

            load = Load(
                streams=streams,
                segment_s=segment_s,
                jitter_s=jitter_s,
                videos_s=videos_per_day / DAY_S,
                video_s=video_s or figures.clip_s,
                spread="exponential" if spread == "exponential" else "fixed",
            )
            settings = Fleet(1, max_age_s=max_age_s, split_s=split_s, start_s=start_s, colocated=shared)
            with console.status("simulating"):
                plan = make_plan(
                    figures,
                    load,
                    target=Target(p95, shed_max),
                    settings=settings,
                    workers=workers,
                    partitions=partitions,
                    keeping=Keeping(retention_hours, replicas, ttl_days, stream_hours),
                    prices=prices,
                    seed=seed,
                )
            console.print(tables.plan_table(plan))
            for note in plan.notes:
                echo(f"Note: {note}.", err=True)
            made["plan"] = plan.to_dict()
            if times is not None or keda or kill:
                scaler = None
                if keda:
                    scaler = Keda(
                        lag=keda_lag,
                        polling_s=keda_polling_s,
                        least=keda_min,
                        most=keda_max,
                        stabilisation_s=keda_stabilisation_s,
                        cooldown_s=keda_cooldown_s,
                    )
                with console.status("simulating over time"):
                    found = behave(
                        figures,
                        load,
                        plan.sized.fleet,
                        keda=scaler,
                        burst_s=None if times is None else 60 * burst_minutes,
                        times=times or 1.0,
                        kills=kill,
                        seed=seed,
                    )
                console.print(tables.behaviour_table(found))
                made["over_time"] = found.to_dict()
        written_as_json(json_to, made)


def _times(text: str | None) -> float | None:
    """How many times the load a burst is: `10x` or `10`.

    Raises:
        typer.BadParameter: something else.
    """
    if text is None:
        return None
    if re.fullmatch(r"\d+(\.\d+)?x?", text) is None or float(text.rstrip("x")) < 1:
        raise typer.BadParameter(f"--burst takes a factor from 1 on, such as 10x; got {text!r}")
    return float(text.rstrip("x"))
