"""Figures and plans as tables for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.planning.figures import Cost, Figures

if TYPE_CHECKING:
    from rich.table import Table

    from pipeline.planning.archive import ArchivePlan
    from pipeline.planning.plan import Behaviour, Plan
    from pipeline.planning.replicate import Estimate

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def bytes_text(value: float) -> str:
    """With a decimal unit: 1.2 MB."""
    unit = 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {_UNITS[unit]}" if value < 100 else f"{value:.0f} {_UNITS[unit]}"


def seconds_text(value: float) -> str:
    """In ms below a second."""
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.2f} s"


def rows_table(title: str, rows: list[tuple[str, str]]) -> Table:
    """Names and values."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column("name")
    table.add_column("value", justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def figures_table(figures: Figures) -> Table:
    """What `unmask bench --plan` measured."""

    def cost(name: str, each: Cost) -> list[tuple[str, str]]:
        return [
            (f"{name}: fixed", f"{1000 * each.fixed_s:.1f} CPU ms"),
            (f"{name}: per second of video", f"{1000 * each.video_s:.1f} CPU ms"),
            (f"{name}: per sampled frame, without scores", f"{1000 * each.frame_s:.1f} CPU ms"),
            (f"{name}: cores of one task alone", f"{each.parallel:.2f}"),
        ]

    rows = [
        *cost("video", figures.video),
        *cost("segment", figures.segment),
        *(
            (f"batch of {batch.crops}", f"{1000 * batch.wall_s:.1f} ms, {1000 * batch.cpu_s:.1f} CPU ms")
            for batch in figures.batches
        ),
        ("busy cores when saturated", f"{figures.efficiency:.0%} of {figures.cores}"),
        ("faces a frame", f"{figures.faces_a_frame:.2f}"),
        ("record", f"{bytes_text(figures.sizes.record_fixed)} + {bytes_text(figures.sizes.record_frame)} a frame"),
        ("segment's message", bytes_text(figures.sizes.segment)),
        ("state of a stream", bytes_text(figures.sizes.stream_state)),
        ("resident", bytes_text(figures.sizes.resident)),
        ("saturated worker", f"{figures.tasks_s('video', figures.clip_s):.2f} such clips/s"),
        (
            "saturated worker, live",
            f"{figures.sizes.segment_s * figures.tasks_s('segment', figures.sizes.segment_s):.1f} streams",
        ),
    ]
    return rows_table(f"{figures.clip}: {figures.network}, {figures.detector}, {figures.backend}", rows)


def plan_table(plan: Plan) -> Table:
    """A plan."""
    fleet, simulated, found = plan.sized.fleet, plan.sized.summary, plan.resources
    rows = [
        ("workers", str(fleet.workers)),
        ("partitions of each topic", str(fleet.partitions)),
        ("work, if it were spread evenly", f"{plan.sized.offered:.2f} workers"),
        ("utilisation", _share(simulated.utilisation)),
    ]
    for kind, latency in simulated.latency_s.items():
        name = "video" if kind == "video" else "live segment"
        rows += [(f"{name}, arrival to verdict, {each}", _seconds(found)) for each, found in latency.items()]
    if plan.load.streams:
        rows.append(("shed", _share(simulated.shed)))
    rows += [
        ("senders to Kafka", f"{bytes_text(found.to_kafka_bytes_s)}/s"),
        ("between brokers", f"{bytes_text(found.between_brokers_bytes_s)}/s"),
        ("to workers", f"{bytes_text(found.to_workers_bytes_s)}/s"),
        ("Kafka's disks", bytes_text(found.kafka_bytes)),
        ("Redis' memory", bytes_text(found.redis_bytes)),
        ("Redis", f"{found.redis_calls_s:.0f} calls/s, {bytes_text(found.redis_bytes_s)}/s written"),
        ("memory of the workers", bytes_text(found.memory_bytes)),
    ]
    if plan.stream_hour is not None:
        rows.append(("cost of a stream-hour", f"{plan.stream_hour:.4g}"))
    if plan.video_hour is not None:
        rows.append(("cost of an hour of video", f"{3600 * plan.video_hour:.4g}"))
    return rows_table("plan", rows)


def behaviour_table(found: Behaviour) -> Table:
    """What happens in a burst, with an autoscaler, or after failures."""
    simulated = found.summary
    rows = [
        ("lag, at most", f"{simulated.max_lag.mean:.0f} messages"),
        ("workers, at most", str(found.most_workers)),
        ("worker-hours", f"{simulated.worker_s.mean / 3600:.2f} in {found.scenario.end_s / 3600:.2f} h"),
        ("rebalances", f"{simulated.rebalances.mean:.0f}"),
        ("delivered again", f"{simulated.redelivered.mean:.0f} messages"),
        ("shed", _share(simulated.shed)),
    ]
    if found.burst_p95_s is not None:
        rows.append(("arrival to verdict in the burst, p95", seconds_text(found.burst_p95_s)))
    recovered = "not within this time" if found.recovered_s is None else f"{found.recovered_s:.0f} s later"
    rows.append(("lag as before", recovered))
    if found.share < 1:
        rows.insert(0, ("simulated part of workers and load", f"{found.share:.1%}"))
    return rows_table("over time", rows)


def archive_table(found: ArchivePlan) -> Table:
    """What an archive takes."""
    rows = [
        ("files", str(found.files)),
        ("hours of video", f"{found.hours_of_video:g}"),
        ("worker-hours", f"{found.worker_hours:.3g}"),
        ("workers", str(found.workers)),
        ("hours until the end", f"{found.hours:.3g}"),
        ("read", bytes_text(found.bytes)),
        ("records", bytes_text(found.output_bytes)),
    ]
    if found.cost is not None and found.cost_archive_hour is not None:
        rows += [("cost", f"{found.cost:.4g}"), ("cost of an hour of archive", f"{found.cost_archive_hour:.4g}")]
    if found.covered is not None:
        rows.append(("the budget covers", f"{found.covered:.1%}"))
    return rows_table("archive", rows)


def _seconds(found: Estimate) -> str:
    return f"{seconds_text(found.mean)} ({seconds_text(max(0.0, found.low))} to {seconds_text(found.high)})"


def _share(found: Estimate) -> str:
    return f"{found.mean:.1%} ({max(0.0, found.low):.1%} to {found.high:.1%})"
