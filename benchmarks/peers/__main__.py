"""Measures whole processes in turns: `unmask scan` and each peer on the same clips.

    python -m benchmarks.peers CLIP... [--rounds 3] [--peers plain,dfdc,dfdc7,deepfakebench]

Prints wall and CPU seconds with children, and the largest resident size: medians, and ratios to `unmask scan` with as
many frames. Run nothing else at the same time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from pipeline.bench.machine import describe

# Each with the sampling of `unmask scan` that reads as many frames.
PEERS = {
    "plain": (["plain_loop"], ["--fps", "2"]),
    "dfdc": (["dfdc_style"], ["--frames", "32"]),
    "dfdc7": (["dfdc_style", "--networks", "7"], ["--frames", "32"]),
    "deepfakebench": (["deepfakebench_style"], ["--frames", "32"]),
}


@dataclass(frozen=True, slots=True)
class Cost:
    """What a process took.

    Attributes:
        wall_s: from start to end.
        cpu_s: of it and its children.
        rss_mib: largest resident size of the largest process.
    """

    wall_s: float
    cpu_s: float
    rss_mib: float

    @classmethod
    def median(cls, costs: list[Cost]) -> Cost:
        """Of each figure."""
        return cls(*(statistics.median(getattr(cost, name) for cost in costs) for name in cls.__slots__))


def measure(command: list[str]) -> Cost:
    """Run a command.

    Raises:
        RuntimeError: it failed.
    """
    # The small process in between has no other children, so its figures are of this command alone.
    program = (
        "import resource, subprocess, sys, time\n"
        "started = time.perf_counter()\n"
        "code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(code, time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", program, *command], capture_output=True, text=True, check=True)
    code, wall_s, cpu_s, rss_mib = done.stdout.split()
    # `unmask scan` ends with 3 where a clip shows no face.
    if code not in ("0", "3"):
        raise RuntimeError(f"{' '.join(command)} ended with {code}")
    return Cost(float(wall_s), float(cpu_s), float(rss_mib))


def main() -> None:
    """Print a line for each peer."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default=",".join(PEERS))
    options = parser.parse_args()
    clips = [str(clip) for clip in options.clips]
    unmask = str(Path(sys.executable).with_name("unmask"))
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # compiling torch at each start would cost the peers ten seconds
    measure([unmask, "scan", *clips])  # the first one compiles
    say(describe())
    say(f"{'':16}{'wall s':>9}{'CPU s':>9}{'MiB':>7}   unmask scan, as many frames: wall, CPU, MiB; times")
    for name in options.peers.split(","):
        (module, *rest), sampling = PEERS[name]
        peer, ours = [], []
        for _ in range(options.rounds):
            peer.append(measure([sys.executable, "-m", f"benchmarks.peers.{module}", *rest, *clips]))
            ours.append(measure([unmask, "scan", *sampling, *clips]))
        theirs, own = Cost.median(peer), Cost.median(ours)
        say(
            f"{name:16}{theirs.wall_s:9.1f}{theirs.cpu_s:9.1f}{theirs.rss_mib:7.0f}   "
            f"{own.wall_s:.1f}, {own.cpu_s:.1f}, {own.rss_mib:.0f}; "
            f"{theirs.wall_s / own.wall_s:.1f} x wall, {theirs.cpu_s / own.cpu_s:.1f} x CPU"
        )


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
