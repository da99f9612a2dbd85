"""Predict workers, partitions, bytes and latency for a load."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.commands.errors import exit_on_error
from pipeline.commands.options import JsonTo
from pipeline.commands.output import check_written, echo, written_as_json

_LOAD, _WORKERS, _PRICES, _TIME = "Load", "Workers", "Prices, in a currency of yours", "Over time"


# A hundred years, a day, and the largest price of anything.
_AGE_H, _DAY_S, _PRICE = 876_000, 86_400, 1e9
_TIMES = 1000
# Below these, bytes and simulated times would be out of all bounds.
_LEAST_VIDEOS, _LEAST_STREAM_H = 0.001, 0.001
_MOST_PARTS = 10_000


def _number(value: Any) -> Any:
    """Refuse NaN, which no range refuses."""
    if isinstance(value, float) and math.isnan(value):
        raise typer.BadParameter("nan is not a number")
    return value


def _option(text: str, panel: str, **given: Any) -> Any:
    return typer.Option(help=text, rich_help_panel=panel, callback=_number, **given)


def run(
    context: typer.Context,
    streams: Annotated[int, _option("Live streams.", _LOAD, min=0, max=1_000_000)] = 0,
    videos_per_day: Annotated[float, _option("Uploaded videos, on average.", _LOAD, min=0, max=1e9)] = 0.0,
    video_s: Annotated[
        float | None, _option("Seconds of a video.", _LOAD, min=0.1, max=_DAY_S, show_default="the measured clip's")
    ] = None,
    spread: Annotated[str, _option("Lengths of videos: fixed, or exponential around --video-s.", _LOAD)] = "fixed",
    segment_s: Annotated[float, _option("Seconds of a live segment.", _LOAD, min=0.1, max=60)] = 2.0,
    jitter_s: Annotated[float, _option("Standard deviation of a segment's delay.", _LOAD, min=0, max=60)] = 0.05,
    archive_hours: Annotated[float | None, _option("Hours of video, judged once.", _LOAD, min=0.001, max=1e8)] = None,
    files: Annotated[int | None, _option("Files of the archive.", _LOAD, min=1, max=10**10)] = None,
    within: Annotated[
        float | None, _option("Hours in which the archive must be judged.", _LOAD, min=0, max=_AGE_H)
    ] = None,
    bench: Annotated[
        Path, typer.Option("--bench", help="What `unmask bench --plan --json` wrote, of this or another machine.")
    ] = Path(".plan.json"),
    clip: Annotated[
        str | None, typer.Option("--clip", help="Which clip of that file.", show_default="the first")
    ] = None,
    p95: Annotated[float, _option("Seconds from arrival to verdict.", _WORKERS, min=0.001, max=_DAY_S)] = 5.0,
    shed_max: Annotated[float, _option("Share of live segments that may be shed.", _WORKERS, min=0, max=0.99)] = 0.01,
    workers: Annotated[
        int | None, _option("Simulate so many.", _WORKERS, min=1, max=100_000, show_default="the least that hold both")
    ] = None,
    partitions: Annotated[
        int | None, _option("Of each topic.", _WORKERS, min=1, max=100_000, show_default="as many as the workers need")
    ] = None,
    max_age_s: Annotated[
        float, _option("Older segments are shed.", _WORKERS, min=0.001, max=3600, envvar="UNMASK_LIVE_MAX_AGE_S")
    ] = 5.0,
    split_s: Annotated[
        float,
        _option("Longer videos are judged in parts; 0: never.", _WORKERS, min=0, max=_DAY_S, envvar="UNMASK_SPLIT_S"),
    ] = 600.0,
    start_s: Annotated[
        float, _option("Seconds from a worker's start to its first task.", _WORKERS, min=0, max=3600)
    ] = 30.0,
    shared: Annotated[bool, _option("Kafka and Redis run on the machines of the workers.", _WORKERS)] = False,
    burst: Annotated[str | None, _option("For a while, so many times the load: 10x.", _TIME)] = None,
    burst_minutes: Annotated[float, _option("How long.", _TIME, min=0.1, max=1440)] = 10.0,
    keda: Annotated[bool, _option("KEDA's Kafka scaler changes the number of workers.", _TIME)] = False,
    keda_lag: Annotated[float, _option("lagThreshold: messages per worker.", _TIME, min=0.1, max=1e6)] = 10.0,
    keda_polling_s: Annotated[float, _option("pollingInterval.", _TIME, min=1, max=3600)] = 30.0,
    keda_stabilisation_s: Annotated[float, _option("Window of scaling down.", _TIME, min=0, max=3600)] = 300.0,
    keda_cooldown_s: Annotated[float, _option("cooldownPeriod, before 0 workers.", _TIME, min=0, max=_DAY_S)] = 300.0,
    keda_min: Annotated[int, _option("minReplicaCount.", _TIME, min=0, max=100_000)] = 1,
    keda_max: Annotated[int, _option("maxReplicaCount.", _TIME, min=1, max=100_000)] = 100,
    kill: Annotated[int, _option("So many workers die, a minute apart.", _TIME, min=0, max=1000)] = 0,
    replicas: Annotated[int, _option("Of each partition.", _PRICES, min=1, max=100)] = 3,
    retention_hours: Annotated[float, _option("Kafka keeps messages.", _PRICES, min=0, max=_AGE_H)] = 168.0,
    ttl_days: Annotated[float, _option("Redis keeps verdicts.", _PRICES, min=0, max=36_500)] = 30.0,
    stream_hours: Annotated[float, _option("A stream goes on, on average.", _PRICES, min=0, max=_AGE_H)] = 24.0,
    price_worker_hour: Annotated[float | None, _option("Of a worker's hour.", _PRICES, min=0, max=_PRICE)] = None,
    price_gb: Annotated[float | None, _option("Of network, per 10^9 bytes.", _PRICES, min=0, max=_PRICE)] = None,
    price_storage_gb: Annotated[
        float | None, _option("Of Kafka's disks, per GB and month.", _PRICES, min=0, max=_PRICE)
    ] = None,
    price_redis_gb: Annotated[
        float | None, _option("Of Redis' memory, per GB and month.", _PRICES, min=0, max=_PRICE)
    ] = None,
    budget: Annotated[float | None, _option("What of the archive so much pays for.", _PRICES, min=0, max=1e15)] = None,
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
        _check(context)
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
            from pipeline.planning.notes import notes_over_time
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
                later = notes_over_time(found.summary, found.burst_p95_s, plan.target)
                for note in later:
                    echo(f"Note: {note}.", err=True)
                made["over_time"] = {**found.to_dict(), "notes": later}
        written_as_json(json_to, made)


def _check(context: typer.Context) -> None:
    """Refuse options that do not belong together, before anything is read.

    Raises:
        typer.BadParameter: it names them.
    """
    values = context.params
    sources = {name: context.get_parameter_source(name) for name in values}
    given = {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}

    def needs(names: list[str], of: str) -> None:
        alone = [_flag(name) for name in names if name in given]
        if alone:
            raise typer.BadParameter(f"{', '.join(alone)}: only with {_flag(of)}")

    if values["archive_hours"] is None:
        needs(["files", "within", "budget"], "archive_hours")
        if not values["streams"] and not values["videos_per_day"]:
            raise typer.BadParameter("give --streams, --videos-per-day or --archive-hours")
    else:
        others = ("streams", "videos_per_day", "workers", "partitions", "burst", "keda", "kill")
        both = [_flag(name) for name in others if values[name]]
        if both:
            raise typer.BadParameter(f"--archive-hours makes a plan of its own: leave out {', '.join(both)}")
    if not values["keda"]:
        needs([name for name in values if name.startswith("keda_")], "keda")
    if values["burst"] is None:
        needs(["burst_minutes"], "burst")
    if values["keda_min"] > values["keda_max"]:
        raise typer.BadParameter(f"--keda-min {values['keda_min']} is above --keda-max {values['keda_max']}")
    for name, least in (("videos_per_day", _LEAST_VIDEOS), ("stream_hours", _LEAST_STREAM_H)):
        if 0 < values[name] < least:
            raise typer.BadParameter(f"{_flag(name)} takes 0, or {least:g} and more; got {values[name]:g}")
    if values["split_s"] and (values["video_s"] or 0) > _MOST_PARTS * values["split_s"]:
        raise typer.BadParameter(f"--split-s {values['split_s']:g} makes more than {_MOST_PARTS} parts of a video")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _times(text: str | None) -> float | None:
    """How many times the load a burst is: `10x` or `10`.

    Raises:
        typer.BadParameter: something else.
    """
    if text is None:
        return None
    if re.fullmatch(r"\d+(\.\d+)?x?", text) is None or not 1 <= float(text.rstrip("x")) <= _TIMES:
        raise typer.BadParameter(f"--burst takes a factor from 1 to {_TIMES}, such as 10x; got {text[:40]!r}")
    return float(text.rstrip("x"))
