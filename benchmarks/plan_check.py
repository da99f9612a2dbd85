"""Checks `unmask plan` on this machine: predictions are written down first, then measured with real Kafka and Redis.

    python -m benchmarks.plan_check [--short] [--out FOLDER]

1. `unmask bench --plan` on one core, and what Kafka and Redis add to single tasks: figures.json.
2. The simulation of each load, with the very schedule that will be sent: predictions.json.
3. The loads: clips of two seconds by one worker and by two, 8 and 45 live streams by two; a core for each worker.
4. A table: predicted, measured, difference.

Eight tens at most. Run nothing else at the same time: workers, Kafka, Redis and the senders share the machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import psutil

from benchmarks.plan_load import PARTITIONS, Result, Schedule, copies, send_streams, send_videos, streams, videos
from pipeline.bench.costs import busy_s
from pipeline.live.cutter import Cut, cut
from pipeline.planning.figures import Figures, Kind, Services, read_figures, to_json
from pipeline.planning.scenario import Fleet, Load, Scenario
from pipeline.planning.simulate import simulate
from pipeline.transport.kafka import ensure_topics
from tests import media
from tests.e2e.service import UNMASK, Platform, until

CLIP_S = 2.0
# Of what a worker can do: idle enough, busy, overloaded.
SHARES = (0.4, 0.7, 1.2)
STREAMS = (8, 45)
# How much differs at most: latency and throughput by 15 %, shed share by three points.
ALLOWED_SHARE, ALLOWED_POINTS = 0.15, 3.0
PATIENCE_S = 120.0
# Of other processes, above which measurements are not what was predicted.
OTHERS_CORES = 0.2
_IDLE_S = 4.0
KINDS: tuple[Kind, ...] = ("video", "segment")


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


@dataclass(frozen=True, slots=True)
class Case:
    """A schedule and the number of workers that serve it."""

    workers: int
    schedule: Schedule


def bench(folder: Path, clips: Sequence[Path]) -> list[Figures]:
    """Figures of one core."""
    path = folder / "bench.json"
    command = [UNMASK, "bench", *map(str, clips), "--weights", "unmask-small", "--workers", "2", "--plan"]
    subprocess.run(["taskset", "-c", "0", *command, "--json", str(path)], check=True, stdout=subprocess.DEVNULL)
    return [read_figures(path, clip.name) for clip in clips]


def combined(video: Figures, live: Figures) -> Figures:
    """Videos of one clip and segments of another, which has other faces: their cost per frame includes the scores."""
    return replace(video, segment=live.segment, sizes=replace(video.sizes, segment=live.sizes.segment))


def predict(figures: Figures, case: Case) -> Result:
    """The simulation of exactly this schedule."""
    schedule = case.schedule
    fleet = Fleet(case.workers, partitions=PARTITIONS, colocated=case.workers > 1)
    load = Load(trace=schedule.arrivals)
    run = simulate(Scenario(figures, load, fleet, warmup_s=0, duration_s=schedule.duration_s, drain_s=300), 0)
    if run.queued:
        raise RuntimeError(f"{schedule.name}: {run.queued} arrivals without an end")
    latencies_s = [latency_s for _, latency_s in run.timed_s]
    return Result.of(
        latencies_s, within=run.completed_scored, duration_s=schedule.duration_s, shed=run.shed / run.arrived
    )


class Bench:
    """A platform with one worker on one core, later two on two."""

    def __init__(self, folder: Path, clips: Sequence[Path], pieces: Sequence[Cut]) -> None:
        self.platform = Platform(folder / "platform", options=("--workers", "2", "--log-level", "debug"))
        self._clips, self._pieces, self._folder = clips, pieces, folder

    def add_worker(self) -> None:
        """Start one on a core of its own, and wait until all have their partitions."""
        self.platform.start_worker(core=len(self.platform.workers))
        for each in self.platform.workers:
            until(partial(getattr, each, "ready"), PATIENCE_S)
        time.sleep(4.0)  # the group settles
        self.warm(f"warm-{len(self.platform.workers)}")

    def worked_s(self) -> float:
        """CPU seconds of the workers."""
        return sum(busy_s(psutil.Process(worker.process.pid)) for worker in self.platform.workers)

    def warm(self, name: str) -> None:
        """Serve a bit of everything: the first tasks of a process take longer."""
        self.measure(videos(f"{name}-videos", 4.0, 4.0, CLIP_S, seed=9))
        self.measure(streams(f"{name}-streams", 6, 2))

    def measure(self, schedule: Schedule) -> Result:
        """Send a schedule, and wait for its end."""
        if schedule.is_live:
            return send_streams(self.platform, schedule, self._pieces)
        return send_videos(self.platform, schedule, copies(self._clips, schedule, self._folder / schedule.name))

    def services(self, figures: Figures, schedule: Schedule) -> Services:
        """What Kafka, Redis and the sender add to single tasks, by CPU seconds and by the time until a verdict."""
        kind: Kind = schedule.arrivals[0].kind
        worker = psutil.Process(self.platform.workers[0].process.pid)
        servers = [self.platform.kafka.process, self.platform.redis.process]
        others = [psutil.Process(), *(psutil.Process(each.pid) for each in servers if each is not None)]

        def used() -> tuple[float, float, float]:
            own = [sum(process.cpu_times()[:2]) for process in others]
            return busy_s(worker), sum(own), time.monotonic()

        before = used()
        time.sleep(_IDLE_S)
        middle = used()
        found = self.measure(schedule)
        after = used()
        idle = [(b - a) / (middle[2] - before[2]) for a, b in zip(before[:2], middle[:2], strict=True)]
        tasks, seconds = len(schedule.arrivals), after[2] - middle[2]
        busy = [max(0.0, b - a - rate * seconds) / tasks for a, b, rate in zip(middle, after, idle, strict=False)]
        alone = predict(figures, Case(1, schedule))
        return Services(
            wait_s=max(0.0, found.p50_s - alone.p50_s),
            cpu_s=max(0.0, busy[0] - figures.task_cpu_s(kind, schedule.arrivals[0].video_s)),
            broker_cpu_s=busy[1],
            idle_cores=idle[0],
        )


def check(folder: Path, *, short: bool) -> bool:
    """All of it; whether everything is within what is allowed."""
    started_s = time.monotonic()
    paths = [folder / f"whole-{seed}.mp4" for seed in range(4)]
    for seed, path in enumerate(paths):
        media.make_clip(path, seconds=CLIP_S, seed=seed)
    live = folder / "live.mp4"
    media.make_clip(live, seconds=10, size=(1280, 720), face_px=(150, 170))
    say("figures of one core")
    figures = combined(*bench(folder, [paths[0], live]))
    runner = Bench(folder / "run", paths, list(cut(str(live))))
    with runner.platform as platform:
        ensure_topics(platform.kafka.bootstrap, partitions=PARTITIONS)
        runner.add_worker()
        figures = replace(
            figures,
            video_services=runner.services(figures, videos("one", 1.0, 12.0, CLIP_S, seed=1)),
            segment_services=runner.services(figures, streams("single", 2, 6)),
        )
        (folder / "figures.json").write_text(json.dumps(to_json([figures], figures.machine), indent=2))
        say(f"videos: {asdict(figures.video_services)}\nsegments: {asdict(figures.segment_services)}")
        tasks_ms = [1000 * figures.task_cpu_s(kind, CLIP_S) for kind in KINDS]
        say(f"expected: {tasks_ms[0]:.0f} CPU ms a video, {tasks_ms[1]:.0f} a segment that is not shed")
        cases = cases_of(figures, short=short)
        predicted = [predict(figures, case) for case in cases]
        text = json.dumps(
            [{**asdict(case), "predicted": asdict(found)} for case, found in zip(cases, predicted, strict=True)]
        )
        (folder / "predictions.json").write_text(text)
        measured: list[Result] = []
        others = []
        for case in cases:
            if case.workers > len(platform.workers):
                runner.add_worker()
            before, from_s, worked_s = _others_s(runner), time.monotonic(), runner.worked_s()
            measured.append(runner.measure(case.schedule))
            others.append((_others_s(runner) - before) / (time.monotonic() - from_s))
            task_ms = 1000 * (runner.worked_s() - worked_s) / len(case.schedule.arrivals)
            say(f"{case.schedule.name}: {measured[-1]}; {task_ms:.0f} CPU ms a task, others {others[-1]:.2f} cores")
    (folder / "measured.json").write_text(json.dumps([asdict(found) for found in measured]))
    good = table(cases, predicted, measured)
    if max(others) > OTHERS_CORES:
        say(f"other processes took up to {max(others):.2f} cores: these measurements do not test the predictions")
    say(f"{time.monotonic() - started_s:.0f} s")
    return good


def _others_s(runner: Bench) -> float:
    """CPU seconds of all processes of the machine but ours, since it started."""
    machine = psutil.cpu_times()
    servers = [runner.platform.kafka.process, runner.platform.redis.process]
    ours = [worker.process for worker in runner.platform.workers] + [each for each in servers if each is not None]
    own = sum(busy_s(psutil.Process(each.pid)) for each in ours) + sum(psutil.Process().cpu_times()[:2])
    return float(machine.user + machine.nice + machine.system - own)


def cases_of(figures: Figures, *, short: bool) -> list[Case]:
    """The loads, by what the figures say that a worker can do."""
    seconds = 12.0 if short else 25.0
    capacity_s = figures.tasks_s("video", CLIP_S)
    cases = [
        Case(workers, videos(f"{workers}x{share:g}", share * workers * capacity_s, seconds, CLIP_S, seed=index))
        for workers in (1, 2)
        for index, share in enumerate(SHARES)
    ]
    return cases + [Case(2, streams(f"live{count}", count, 6 if short else 12)) for count in STREAMS]


def table(cases: Sequence[Case], predicted: Sequence[Result], measured: Sequence[Result]) -> bool:
    """Print both and their differences; whether all are within what is allowed."""
    good = True
    say("| load | workers | figure | predicted | measured | difference | |\n|---|---|---|---|---|---|---|")
    for case, before, after in zip(cases, predicted, measured, strict=True):
        rows = [
            ("p95", 1000 * before.p95_s, 1000 * after.p95_s, "ms"),
            ("throughput", before.throughput_s, after.throughput_s, "/s"),
        ]
        for name, expected, found, unit in rows:
            share = expected / found - 1 if found else float("inf")
            ok = abs(share) <= ALLOWED_SHARE
            good &= ok
            line = f"| {case.schedule.name} | {case.workers} | {name} | {expected:.4g} {unit} | {found:.4g} {unit}"
            say(f"{line} | {share:+.0%} | {'' if ok else 'off'} |")
        if case.schedule.is_live:
            points = 100 * (before.shed - after.shed)
            ok = abs(points) <= ALLOWED_POINTS
            good &= ok
            line = f"| {case.schedule.name} | {case.workers} | shed | {before.shed:.1%} | {after.shed:.1%}"
            say(f"{line} | {points:+.1f} points | {'' if ok else 'off'} |")
    return good


def main() -> int:
    """Exit code 0 where all is within what is allowed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="half as long, with fewer tasks")
    parser.add_argument("--out", type=Path, help="keep figures, predictions and measurements here")
    options = parser.parse_args()
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        return 0 if check(options.out.absolute(), short=options.short) else 1
    with tempfile.TemporaryDirectory() as folder:
        return 0 if check(Path(folder), short=options.short) else 1


if __name__ == "__main__":
    sys.exit(main())
