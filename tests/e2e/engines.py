"""The same clips by `unmask archive` on each engine and by way of Kafka: speed, and equal records despite kills.

python -m tests.e2e.engines --clips 2000 --engines local ray kafka

The ray engine loses an actor at 55 % of the clips, and its driver at 75 %; `local` loses a process and its driver. The
rate of each is that from 10 to 50 %, so it includes neither start nor deaths.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
from pyarrow import parquet

from tests import media
from tests.e2e.measure import say
from tests.e2e.service import UNMASK, Platform, copies_of, done_count, until

_PATIENCE_S = 3000.0
_PART_FILES = 25
_RATE = (0.10, 0.50)
_KILL_WORKER, _KILL_DRIVER = 0.55, 0.75

Records = dict[str, dict[str, Any]]


def comparable(record: str) -> dict[str, Any]:
    """A record without what differs between two runs: its duration, and its id, which the ways choose differently."""
    found: dict[str, Any] = json.loads(record)
    return found | {"elapsed_s": 0.0, "id": ""}


def rate_between(count: Callable[[], int], total: int, fell: Callable[[], bool] = lambda: False) -> float:
    """Clips a second from 10 to 50 % of them."""
    first, last = (int(share * total) for share in _RATE)
    until(lambda: count() >= first or fell(), _PATIENCE_S)
    from_count, from_s = count(), time.monotonic()
    until(lambda: count() >= last or fell(), _PATIENCE_S)
    return (count() - from_count) / (time.monotonic() - from_s)


def workers_of(driver: psutil.Process, engine: str) -> list[psutil.Process]:
    """The processes in which the engine judges: actors, or processes that the driver has spawned."""
    name = "ray::PartActor" if engine == "ray" else "spawn_main"
    return [
        child
        for child in driver.children(recursive=True)
        if name in " ".join(child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE
    ]


def archived(engine: str, clips: Sequence[Path], folder: Path, processes: int) -> tuple[float, Records, bool]:
    """Clips a second, records by path, and whether each clip is there once although a worker and the driver died."""
    folder.mkdir(parents=True)
    (manifest := folder / "clips.txt").write_text("".join(f"{path}\n" for path in clips))
    out, total = folder / "out", len(clips)
    command = [UNMASK, "archive", str(manifest), "--out", str(out), "--engine", engine, "--workers", "2"]
    command += ["--processes", str(processes), "--part-files", str(_PART_FILES)]

    def count() -> int:
        return min(total, _PART_FILES * len(list(out.glob("part-*.done"))))

    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        rate = rate_between(count, total, lambda: process.poll() is not None)
        driver = psutil.Process(process.pid)
        until(lambda: count() >= _KILL_WORKER * total, _PATIENCE_S)
        victim = workers_of(driver, engine)[0]
        victim.kill()
        until(lambda: count() >= _KILL_DRIVER * total, _PATIENCE_S)
        left = driver.children(recursive=True)
        process.kill()
        process.wait()
        # Those of a killed driver end by themselves.
        psutil.wait_procs(left, timeout=60)
        done = count()
        started_s = time.monotonic()
        code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False).returncode
    rows = [row for part in sorted(out.glob("part-*.parquet")) for row in parquet.read_table(part).to_pylist()]
    once = sorted(row["uri"] for row in rows) == sorted(str(path) for path in clips)
    say(
        f"{engine}: {rate:.2f} clips/s with {processes} processes; killed: process {victim.pid} at "
        f"{_KILL_WORKER:.0%}, the driver at {done} clips; the same command again: exit code {code} after "
        f"{time.monotonic() - started_s:.0f} s, {len(rows)} rows, each clip once: {once}"
    )
    return rate, {row["uri"]: comparable(row["record"]) for row in rows}, once and code == 0


def by_kafka(clips: Sequence[Path], folder: Path, workers: int) -> tuple[float, Records, bool]:
    """The same by tasks in Kafka, workers and Redis."""
    with Platform(folder, options=("--workers", "2")) as platform:
        for _ in range(workers):
            platform.start_worker()
        until(lambda: all(worker.ready for worker in platform.workers), _PATIENCE_S)
        platform.unmask("submit", str(clips[0].parent))
        ids = sorted(platform.tasks().values())
        rate = rate_between(lambda: done_count(platform, ids), len(clips))
        until(lambda: done_count(platform, ids) >= len(clips), _PATIENCE_S)
        found = [record.decode() for record in platform.stored(ids).values() if record is not None]
        published = platform.records()
    once = len(published) == len(clips) and all(len(records) == 1 for records in published.values())
    say(f"kafka: {rate:.2f} clips/s with {workers} workers; each record published once: {once}")
    records = {json.loads(record)["source"]: comparable(record) for record in found}
    return rate, {uri.removeprefix("file://"): record for uri, record in records.items()}, once


def main() -> int:
    """Judge the clips by each way; 1 if a clip is missing, there twice, or has another record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--engines", nargs="+", choices=["local", "ray", "kafka"], default=["local", "kafka"])
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = [folder / f"whole-{seed}.mp4" for seed in range(4)]
        for seed, path in enumerate(whole):
            media.make_clip(path, seconds=1, fps=12, seed=seed, size=(320, 240), face_px=(80, 100))
        clips = list(copies_of(whole, asked.clips, folder / "clips"))
        good, rates, first = True, {}, None
        for engine in asked.engines:
            if engine == "kafka":
                rate, records, whole_once = by_kafka(clips, folder / engine, asked.processes)
            else:
                rate, records, whole_once = archived(engine, clips, folder / engine, asked.processes)
            first = first or records
            differ = sum(records.get(uri) != record for uri, record in first.items())
            say(f"{engine}: {differ} of {len(records)} records differ from those of {asked.engines[0]}")
            good &= whole_once and differ == 0 and len(records) == len(clips)
            rates[engine] = rate
        base = rates[asked.engines[0]]
        say(", ".join(f"{engine} / {asked.engines[0]}: {rate / base:.2f}" for engine, rate in rates.items()))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
