"""Promote weights repeatedly while a worker judges at full load; then count everything.

python -m tests.e2e.swaps --swaps 10 --minutes 2
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from models.zoo import resolve
from pipeline.contracts import Verdict
from tests import media
from tests.e2e.service import Platform, WorkerProcess, copies_of, done_count, until
from tests.weights import shifted

# Poll interval of the batch counter.
_POLL_S = 0.02
_PATIENCE_S = 600


def evaluation_of(sha256: str, path: Path, auc: float = 0.9) -> Path:
    """The part of `unmask evaluate --json` that the gate reads, for made-up rows."""
    interval = {"value": auc, "low": auc - 0.02, "high": auc + 0.02, "reason": None}
    crops = {
        "name": "made up",
        "kind": "crops",
        "manifest_sha256": "0" * 64,
        "rows_sha256": "0" * 64,
        "split": "val",
        "half": "report",
        "video": {"counts": {"total": 2, "real": 1, "fake": 1}, "metrics": {"auc": interval}},
    }
    path.write_text(json.dumps({"schema": 1, "model": {"weights_sha256": sha256}, "sets": [crops]}))
    return path


def metrics_of(worker: WorkerProcess) -> dict[str, float]:
    """Every sample by name and labels; empty if there is no answer."""
    lines = (line for line in worker.get("/metrics")[1].splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


@dataclass
class Gaps:
    """Gaps without a finished batch, seen from outside: accurate to 20 ms plus the response time."""

    worker: WorkerProcess
    seconds: list[float] = field(default_factory=list)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Poll while the block runs."""
        end = threading.Event()
        thread = threading.Thread(target=self._run, args=[end])
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()

    def _run(self, end: threading.Event) -> None:
        batches, since_s = -1.0, time.monotonic()
        while not end.wait(_POLL_S):
            found = metrics_of(self.worker).get("unmask_engine_batches_total", batches)
            if found > batches:
                now_s = time.monotonic()
                if batches >= 0:
                    self.seconds.append(now_s - since_s)
                batches, since_s = found, now_s

    def __str__(self) -> str:
        longest = sorted(self.seconds)[-3:][::-1]
        return (
            f"longest {', '.join(f'{1000 * s:.0f}' for s in longest)} ms, "
            f"p99 {1000 * float(np.quantile(self.seconds, 0.99)):.0f} ms of {len(self.seconds)}"
        )


@contextmanager
def loaded(platform: Platform, folder: Path) -> Iterator[None]:
    """Keep the worker's queue filled with new clips while the block runs."""
    whole = [folder / f"whole-{seed}.mp4" for seed in range(4)]
    for seed, path in enumerate(whole):
        media.make_clip(path, seconds=2, seed=seed)
    end = threading.Event()
    sent = 0

    def send() -> None:
        nonlocal sent
        while not end.is_set():
            place = folder / f"clips-{sent}"
            list(copies_of(whole, 40, place))
            # Clip numbers repeat in each folder, so the folder's number is appended too.
            for path in place.iterdir():
                with path.open("ab") as file:
                    file.write((8 + 8).to_bytes(4, "big") + b"free" + sent.to_bytes(8, "big"))
            platform.unmask("submit", str(place))
            sent += 1
            ids = sorted(platform.tasks().values())
            while not end.wait(0.5) and done_count(platform, ids) < len(ids) - 20:
                pass

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def run(folder: Path, swaps: int, minutes: float) -> bool:
    """First a quarter of the time without promotions as a baseline, then promotions at even intervals."""
    platform = Platform(
        folder / "platform",
        options=("--workers", "2"),
        UNMASK_REGISTRY=str(folder / "registry"),
        UNMASK_CACHE=str(folder / "cache"),
    )
    with platform:
        worker = platform.start_worker()
        until(lambda: worker.ready, _PATIENCE_S)
        with loaded(platform, folder):
            until(lambda: metrics_of(worker).get("unmask_engine_batches_total", 0) > 20, _PATIENCE_S)
            before, during = Gaps(worker), Gaps(worker)
            with before.watched():
                time.sleep(60 * minutes / 4)
            resident = [psutil.Process(worker.process.pid).memory_info().rss >> 20]
            started_s = time.monotonic()
            announced = []
            with during.watched():
                for number in range(swaps):
                    due_s = started_s + number * 60 * minutes / swaps
                    time.sleep(max(0.0, due_s - time.monotonic()))
                    path = folder / f"weights-{number}.safetensors"
                    sha256 = shifted(resolve("unmask-small"), path, 0.1 * (number + 1))
                    evaluation = evaluation_of(sha256, folder / "evaluation.json")
                    done = platform.unmask("promote", str(path), "--evaluation", str(evaluation))
                    if done.returncode:
                        raise RuntimeError(done.stderr)
                    announced.append(sha256)
                    resident.append(psutil.Process(worker.process.pid).memory_info().rss >> 20)
                until(lambda: json.loads(worker.get("/readyz")[1])["weights"] == announced[-1], _PATIENCE_S)
                time.sleep(max(0.0, started_s + 60 * minutes - time.monotonic()))
            resident.append(psutil.Process(worker.process.pid).memory_info().rss >> 20)
        metrics = metrics_of(worker)
        code = worker.leave()
        records = [found[0].value for found in platform.records().values()]
        verdicts = [Verdict.model_validate_json(record or b"") for record in records]
        logs = [json.loads(line) for line in worker.log.read_text().splitlines()]
    by = Counter(verdict.provenance.weights_sha256[0] for verdict in verdicts)
    several = sum(len(verdict.provenance.weights_sha256) != 1 for verdict in verdicts)
    loads_s = [line["loaded_s"] for line in logs if line["event"] == "weights swapped"]
    counts = {name: int(metrics[f'unmask_swaps_total{{result="{name}"}}']) for name in ("swapped", "refused", "failed")}
    print(f"promotions {swaps}, swaps {counts['swapped']}, refused {counts['refused']}, failed {counts['failed']}")
    print(f"crops {metrics['unmask_engine_crops_total']:.0f}, failed {metrics['unmask_engine_failed_crops_total']:.0f}")
    print(f"verdicts {len(verdicts)} {dict(Counter(str(verdict.outcome) for verdict in verdicts))}")
    print(f"weights named by verdicts {len(by)}, verdicts that name several {several}")
    print(f"from the announcement to ready, s: {loads_s}")
    print(f"gaps between batches without promotions: {before}")
    print(f"gaps between batches with promotions:    {during}")
    print(f"resident memory of the worker, MiB: {resident}; exit code {code}")
    return counts == {"swapped": swaps, "refused": 0, "failed": 0} and not several and not code


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--swaps", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=2.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return 0 if run(Path(folder), options.swaps, options.minutes) else 1


if __name__ == "__main__":
    sys.exit(main())
