"""Makes the figures of docs/scale.md and prints its tables. Run it from the root, with what plan_check measured:

python -m benchmarks.plan_check --out plan-check
python -m docs.images.make_scale_figures plan-check/figures.json
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import time
from pathlib import Path

from docs.images.chart import Axis, Line, chart
from pipeline.planning.figures import Figures, read_figures
from pipeline.planning.plan import Behaviour, Plan, behave, make_plan
from pipeline.planning.replicate import replicate
from pipeline.planning.resources import DAY_S
from pipeline.planning.scenario import Fleet, Keda, Kill, Load, Scenario
from pipeline.planning.sizing import Target, partitions_for
from pipeline.planning.tables import bytes_text, seconds_text

FOLDER = Path(__file__).parent
STREAMS = (1, 10, 100, 1_000, 10_000)
VIDEOS_A_DAY, VIDEO_S = 1_000_000, 30.0
TARGET = Target(p95_s=3.0, shed=0.01)
# Of what a worker can do.
SHARES = (0.3, 0.45, 0.6, 0.75, 0.9, 1.05, 1.2, 1.5)
# A rollout restarts this many workers; seconds between two.
FLEET = 6
INTERVALS_S = (5, 10, 20, 30, 60, 120)
COMMITS = 300


def plans(figures: Figures) -> list[tuple[str, Plan]]:
    """The loads of the table."""
    loads = [(f"{count:,} streams", Load(streams=count)) for count in STREAMS]
    day = Load(videos_s=VIDEOS_A_DAY / DAY_S, video_s=VIDEO_S)
    loads.append((f"{VIDEOS_A_DAY:,} videos of {VIDEO_S:g} s a day", day))
    return [(name, make_plan(figures, load, target=TARGET)) for name, load in loads]


def plan_rows(found: list[tuple[str, Plan]]) -> list[str]:
    """The table of plans."""
    head = (
        "| load | work | workers | partitions | p95 | shed | network | Kafka's disks | Redis' memory | Redis | memory |"
    )
    rows = [head, "|---|---|---|---|---|---|---|---|---|---|---|"]
    for name, plan in found:
        simulated, needed, fleet = plan.sized.summary, plan.resources, plan.sized.fleet
        rows.append(
            f"| {name} | {plan.sized.offered:.2f} | {fleet.workers:,} | {fleet.partitions:,} | "
            f"{seconds_text(simulated.worst_p95_s())} | {simulated.shed.mean:.1%} | "
            f"{bytes_text(needed.network_bytes_s)}/s | {bytes_text(needed.kafka_bytes)} | "
            f"{bytes_text(needed.redis_bytes)} | {needed.redis_calls_s:,.0f} calls/s, "
            f"{bytes_text(needed.redis_bytes_s)}/s | {bytes_text(needed.memory_bytes)} |"
        )
    return rows


def imbalance(figures: Figures) -> str:
    """Shed share by load, of one worker and of many."""
    capacity = 2.0 * figures.tasks_s("segment", 2.0)
    lines = []
    for workers in (1, 4, 16):
        points = []
        for share in SHARES:
            load = Load(streams=max(1, round(share * capacity * workers)))
            fleet = Fleet(workers, partitions=partitions_for(workers))
            found, _ = replicate(Scenario(figures, load, fleet, warmup_s=20, duration_s=40), 3)
            points.append((share, 100 * found.shed.mean))
        lines.append(Line(f"{workers} worker" + ("s" if workers > 1 else ""), points))
    across = Axis("streams, as a share of what the workers can do", 0.3, 1.5)
    return chart("Shed segments: hashes fill partitions unevenly", across, Axis("shed, %", 0, 40), lines)


def rollout(figures: Figures) -> str:
    """Shed share while all workers are restarted one after the other."""
    capacity = 2.0 * figures.tasks_s("segment", 2.0)
    lines = []
    for share in (0.3, 0.5, 0.7):
        load = Load(streams=round(share * capacity * FLEET))
        points = []
        for interval_s in INTERVALS_S:
            kills = tuple(Kill(30.0 + interval_s * number, 0, is_planned=True) for number in range(FLEET))
            fleet = Fleet(FLEET, partitions=partitions_for(FLEET))
            scenario = Scenario(figures, load, fleet, kills=kills, warmup_s=30, duration_s=interval_s * FLEET + 40)
            points.append((float(interval_s), 100 * replicate(scenario, 2)[0].shed.mean))
        lines.append(Line(f"{share:.0%} busy", points))
    across = Axis("seconds between the restarts of two workers", 0, 120)
    return chart(f"Shed segments in a rollout of {FLEET} workers", across, Axis("shed, %", 0, 60), lines)


def burst(figures: Figures) -> tuple[str, list[tuple[str, Behaviour]]]:
    """Ten times the videos for ten minutes: lag and workers with KEDA and without."""
    rate_s = 0.6 * figures.tasks_s("video", figures.clip_s)
    load = Load(videos_s=rate_s, video_s=figures.clip_s)
    fleet = Fleet(1, partitions=32)
    found = [
        ("fixed", behave(figures, load, fleet, burst_s=600, times=10)),
        ("lag 10", behave(figures, load, fleet, keda=Keda(lag=10, most=32), burst_s=600, times=10)),
        ("lag 100", behave(figures, load, fleet, keda=Keda(lag=100, most=32), burst_s=600, times=10)),
    ]
    lines = [Line(name, [(p.at_s / 60, max(1.0, p.lag)) for p in each.curve]) for name, each in found]
    lines += [
        Line(f"workers, {name}", [(p.at_s / 60, max(1.0, p.workers)) for p in each.curve], True)
        for name, each in found[1:]
    ]
    up = Axis("messages; workers", 1, 100_000, is_log=True)
    return chart("Ten times the videos from minute 5 to 15", Axis("minutes", 0, 35), up, lines), found


def growth(found: list[tuple[str, Plan]]) -> str:
    """Workers by streams."""
    sized = [(float(plan.load.streams), plan.sized) for _, plan in found if plan.load.streams]
    lines = [
        Line("workers", [(count, float(each.fleet.workers)) for count, each in sized]),
        Line("work alone", [(count, max(0.1, each.offered)) for count, each in sized]),
    ]
    across, up = Axis("live streams", 1, 10_000, is_log=True), Axis("workers", 0.1, 10_000, is_log=True)
    return chart("Workers for live streams", across, up, lines)


def commits_s() -> float:
    """Commits a second of SQLite as the service opens it: a write-ahead log, on disk before each answer."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        database = sqlite3.connect(Path(folder) / "d.sqlite", isolation_level=None)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT)")
        started_s = time.perf_counter()
        for number in range(COMMITS):
            database.execute("INSERT INTO t VALUES (?, ?)", (number, "x" * 2000))
        database.close()
        return COMMITS / (time.perf_counter() - started_s)


def main() -> None:
    figures = read_figures(Path(sys.argv[1]))
    made = plans(figures)
    curve, bursts = burst(figures)
    for name, text in (
        ("scale-workers", growth(made)),
        ("scale-imbalance", imbalance(figures)),
        ("scale-rollout", rollout(figures)),
        ("scale-burst", curve),
    ):
        (FOLDER / f"{name}.svg").write_text(text)
    print(f"{figures.machine}; {figures.clip}, {figures.backend}")
    print(f"a worker: {figures.tasks_s('video', figures.clip_s):.2f} clips/s, ", end="")
    print(f"{2 * figures.tasks_s('segment', 2.0):.1f} streams; {commits_s():.0f} commits/s")
    print("\n".join(plan_rows(made)))
    for name, each in bursts:
        recovered = "not within 20 minutes" if each.recovered_s is None else f"{each.recovered_s / 60:.1f} min"
        p95 = "" if each.burst_p95_s is None else seconds_text(each.burst_p95_s)
        hours = each.summary.worker_s.mean / 3600
        print(
            f"| {name} | {each.summary.max_lag.mean:,.0f} | {each.most_workers} | {p95} | {recovered} | {hours:.1f} | "
            f"{each.summary.rebalances.mean:.0f} |"
        )


if __name__ == "__main__":
    main()
