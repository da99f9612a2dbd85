"""Kill workers and restart Kafka and Redis while clips are judged; then count everything.

python -m tests.e2e.chaos --clips 200 --kills 20 --kafka-restarts 2 --redis-restarts 2
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.contracts import Topic
from pipeline.transport.history import read_topic
from tests import media
from tests.e2e.service import OffsetWatch, Platform, copies_of, done_count, outcomes, until


@dataclass(frozen=True, slots=True)
class Plan:
    """The events of a run."""

    clips: int
    workers: int = 2
    kills: int = 0
    kafka_restarts: int = 0
    redis_restarts: int = 0  # every second one by kill -9
    seed: int = 0
    patience_s: float = 3000.0


@dataclass(frozen=True, slots=True)
class Result:
    """The counts at the end of a run."""

    clips: int
    seconds: float
    verdicts: int
    outcomes: dict[str, int]
    published: int
    with_two_records: int  # clips with two different records: must be 0
    unequal_to_redis: int  # must be 0
    attempts: dict[int, int]
    dead_letters: int
    offsets_looked_at: int
    offsets_ahead: int  # committed without a verdict: must be 0
    not_committed: int
    restored_equal: int


def run(folder: Path, plan: Plan, say: Callable[[str], None] = lambda text: None) -> Result:
    """Judge clips while services and workers fail."""
    chance = random.Random(plan.seed)
    whole = [folder / f"whole-{seed}.mp4" for seed in range(4)]
    for seed, path in enumerate(whole):
        media.make_clip(path, seconds=2, seed=seed)
    clips = list(copies_of(whole, plan.clips, folder / "clips"))
    with Platform(folder, options=("--workers", "2")) as platform:
        for _ in range(plan.workers):
            platform.start_worker()
        submitted = platform.unmask("submit", str(folder / "clips"))
        if submitted.returncode != 0:
            raise RuntimeError(submitted.stderr)
        say(submitted.stdout.strip())
        tasks = platform.tasks()
        ids = sorted(set(tasks.values()))
        watch = OffsetWatch(platform, tasks)
        started_s = time.monotonic()
        events = ["kill"] * plan.kills + ["kafka"] * plan.kafka_restarts + ["redis"] * plan.redis_restarts
        chance.shuffle(events)
        redis_restarts = 0
        for number, event in enumerate(events):
            # Spread by progress, not by time, so that the run ends on a slow machine too.
            due = int(len(clips) * 0.9 * (number + 1) / (len(events) + 1))
            until(lambda due=due: done_count(platform, ids) >= due, plan.patience_s)
            say(f"{time.monotonic() - started_s:6.1f} s  {done_count(platform, ids):4d} done  {event}")
            if event == "kill":
                victim = chance.choice(platform.workers)
                until(lambda victim=victim: victim.ready, plan.patience_s)
                time.sleep(chance.uniform(0, 1.5))
                victim.kill()
                platform.workers.remove(victim)
                platform.start_worker()
            elif event == "kafka":
                platform.kafka.stop()
                platform.kafka.start()
            else:
                redis_restarts += 1
                platform.redis.kill() if redis_restarts % 2 else platform.redis.stop()
                time.sleep(chance.uniform(0, 1.5))
                platform.redis.start()
        until(lambda: done_count(platform, ids) == len(clips), plan.patience_s)
        seconds = time.monotonic() - started_s
        until(lambda: platform.uncommitted() == 0, plan.patience_s)
        watch.end()
        stored = platform.stored(ids)
        records = platform.records()
        attempts = platform.attempts(ids)
        with platform.client() as client:
            client.flushall()
        restored = platform.unmask("results", "restore")
        say(restored.stdout.strip())
        for worker in platform.workers:
            until(lambda worker=worker: worker.ready, plan.patience_s)
        codes = [worker.leave() for worker in platform.workers]
        if any(codes):
            raise RuntimeError(f"workers left with {codes}")
        restored_records = platform.stored(ids)
        return Result(
            clips=len(clips),
            seconds=round(seconds, 1),
            verdicts=sum(record is not None for record in stored.values()),
            outcomes=dict(outcomes(stored)),
            published=sum(map(len, records.values())),
            with_two_records=sum(len({message.value for message in found}) > 1 for found in records.values()),
            unequal_to_redis=sum(found[-1].value != stored.get(clip) for clip, found in records.items()),
            attempts=dict(sorted(attempts.items())),
            dead_letters=sum(1 for _ in read_topic(platform.kafka.bootstrap, Topic.DEAD)),
            offsets_looked_at=watch.looks,
            offsets_ahead=len(watch.ahead),
            not_committed=platform.uncommitted(),
            restored_equal=sum(restored_records[clip] == stored[clip] for clip in ids),
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("clips", 200), ("workers", 2), ("kills", 20), ("kafka-restarts", 2), ("redis-restarts", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args())
    with tempfile.TemporaryDirectory() as folder:
        result = run(Path(folder), Plan(**options), say=lambda text: print(text, flush=True))
    for name, value in asdict(result).items():
        print(f"{name.replace('_', ' '):20} {value}")
    faults = Counter(
        two=result.with_two_records, unequal=result.unequal_to_redis, ahead=result.offsets_ahead,
        lost=result.clips - result.verdicts, not_committed=result.not_committed,
    )  # fmt: skip
    return int(any(faults.values()))


if __name__ == "__main__":
    sys.exit(main())
