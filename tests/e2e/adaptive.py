"""Adaptive sampling against the whole scan of the same clips: frames, seconds, labels, AUC.

python -m tests.e2e.adaptive CLIPS... [--scan "--fps 2"] [--truth labels.csv]
"""

from __future__ import annotations

import argparse
import csv
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from pipeline.contracts import Verdict
from pipeline.results.jsonl import read_verdicts
from tests.e2e.measure import say
from tests.e2e.service import UNMASK
from trainers.metrics import roc_auc


@dataclass(frozen=True)
class Scan:
    """The records by source, and what the process took."""

    verdicts: dict[str, Verdict]
    wall_s: float
    cpu_s: float

    @property
    def frames(self) -> int:
        """Frames that were looked at, in early looks and in whole scans."""
        return sum(frames_of(verdict) for verdict in self.verdicts.values())


def frames_of(verdict: Verdict) -> int:
    """Frames that a verdict took."""
    adapted = verdict.adapted
    early = adapted.looked_at if adapted is not None and not adapted.early else 0
    return verdict.frames_sampled + early


def scanned(clips: list[str], options: list[str], out: Path) -> Scan:
    """One `unmask scan` of all clips, a process of its own."""
    before, started = psutil.cpu_times(), time.monotonic()
    done = subprocess.run([UNMASK, "scan", *clips, *options, "--jsonl", out], capture_output=True, text=True)
    wall_s, after = time.monotonic() - started, psutil.cpu_times()
    if done.returncode not in (0, 3):
        sys.exit(done.stderr)
    cpu_s = (after.user + after.system) - (before.user + before.system)
    return Scan({verdict.source: verdict for verdict in read_verdicts(out)}, wall_s, cpu_s)


def auc_of(scan: Scan, truth: dict[str, int]) -> float | None:
    """Over the clips that are scored and have a truth; None without both classes."""
    pairs = [
        (truth[Path(source).name], verdict.probability)
        for source, verdict in scan.verdicts.items()
        if verdict.probability is not None and Path(source).name in truth
    ]
    if len({label for label, _ in pairs}) < 2:
        return None
    return float(roc_auc(np.array([label for label, _ in pairs]), np.array([score for _, score in pairs])))


def truth_of(path: Path) -> dict[str, int]:
    """By file name, 1 for fakes."""
    with path.open() as file:
        return {row["file"]: int(row["label"] == "fake") for row in csv.DictReader(file)}


def described(verdict: Verdict) -> str:
    """Outcome, label, probability and frames."""
    return f"{verdict.outcome} {verdict.label} {verdict.probability} in {verdict.frames_sampled} frames"


def main() -> int:
    """Print the comparison; 1 if less than 98 % of the labels are equal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="+")
    parser.add_argument("--scan", default="", help="options of `unmask scan` in both runs")
    parser.add_argument("--truth", type=Path, help="labels.csv: file, label")
    options = parser.parse_args()
    shared = shlex.split(options.scan)
    with tempfile.TemporaryDirectory() as folder:
        adaptive = scanned(options.clips, [*shared, "--adaptive"], Path(folder, "adaptive.jsonl"))
        whole = scanned(options.clips, shared, Path(folder, "whole.jsonl"))
    equal = 0
    settled: Counter[str] = Counter()
    for source, verdict in whole.verdicts.items():
        other = adaptive.verdicts[source]
        same = (verdict.outcome, verdict.label) == (other.outcome, other.label)
        equal += same
        early = other.adapted is not None and other.adapted.early
        settled[f"{other.frames_sampled} frames" if early else "whole scan"] += 1
        if not same:
            say(f"{source}: {described(verdict)}, adaptive {described(other)}")
    say(f"{len(whole.verdicts)} clips, settled by: {dict(sorted(settled.items()))}")
    truth = truth_of(options.truth) if options.truth is not None else {}
    for name, scan in (("whole", whole), ("adaptive", adaptive)):
        found = auc_of(scan, truth)
        say(
            f"{name}: {scan.frames} frames, {scan.wall_s:.1f} s wall, {scan.cpu_s:.1f} s of CPU of the machine"
            + ("" if found is None else f", AUC {found:.3f}")
        )
    say(
        f"ratios: frames {whole.frames / adaptive.frames:.2f}, wall {whole.wall_s / adaptive.wall_s:.2f}, "
        f"CPU {whole.cpu_s / adaptive.cpu_s:.2f}; equal labels and outcomes: {equal} of {len(whole.verdicts)}"
    )
    return 0 if equal >= 0.98 * len(whole.verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
