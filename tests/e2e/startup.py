"""What the start of a scan takes, part by part: whole processes, in turns, beside the import of torch and timm.

    python -m tests.e2e.startup CLIP [--rounds 5]

Each line is a process that goes one step further than the one before it. Medians of wall and CPU seconds, with
children; the first scan compiles the networks, later ones read them from the cache.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from pipeline.bench.machine import describe

_GRAPHS = """
from pipeline import assembly
from pipeline.detectors import load
from pipeline.video.sandbox import DecodeServer
server = DecodeServer()
server.start()
with assembly.scanner(load(architecture=None, weights=None, untrained=False), server=server) as scanner:
"""

# Name and program; "scan" is the command itself.
STEPS = {
    "an interpreter": "pass",
    "imports of a scan": "import pipeline.cli, pipeline.commands.scan, pipeline.scan_run, pipeline.assembly",
    "and of OpenVINO": (
        "import pipeline.cli, pipeline.commands.scan, pipeline.scan_run, pipeline.assembly\n"
        "from pipeline import quiet_openvino; quiet_openvino.core()"
    ),
    "graphs loaded": f"{_GRAPHS}    pass",
    "decoders ready": f"{_GRAPHS}    server.isolation",
    "scan": "",
    "torch and timm imported": "import torch, timm",
}


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def measured(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Wall and CPU seconds of a process and its children."""
    before, started_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    wall_s, after = time.perf_counter() - started_s, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    scan = [str(Path(sys.executable).with_name("unmask")), "scan", str(options.clip)]
    found: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "UNMASK_CACHE": cache}
        first = measured(scan, environment)
        for _ in range(options.rounds):
            for name, program in STEPS.items():
                command = scan if name == "scan" else [sys.executable, "-c", program]
                found[name].append(measured(command, environment))
    say(describe())
    say(f"{'':26}{'wall s':>8}{'CPU s':>8}")
    say(f"{'first scan':26}{first[0]:8.2f}{first[1]:8.2f}")
    for name, times in found.items():
        wall_s, cpu_s = (statistics.median(each) for each in zip(*times, strict=True))
        say(f"{name:26}{wall_s:8.2f}{cpu_s:8.2f}")
    ratios = [mine[1] / theirs[1] for mine, theirs in zip(found["scan"], found["torch and timm imported"], strict=True)]
    say(f"CPU of a scan / CPU of importing torch and timm, paired: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
