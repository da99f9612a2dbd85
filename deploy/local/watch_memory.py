"""Run a command and watch the memory of all its processes: does it grow with the length of its input?

    .venv/bin/python deploy/local/watch_memory.py .venv/bin/unmask scan long.mp4 --untrained

Prints the resident memory every ten seconds and, at the end, how much it grew after the first minute: the median of the
last fifth of the samples against the median of the first ten seconds after that minute. A page that several processes
share counts once for each of them.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import psutil

SETTLE_S = 60.0
SAMPLE_S = 0.5
REPORT_S = 10.0


def resident_bytes(process: psutil.Process) -> int:
    """Resident bytes of a process and all its descendants; one that has just ended counts as 0."""
    total = 0
    for member in (process, *process.children(recursive=True)):
        try:
            total += member.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def main() -> int:
    """Run the command given as arguments; returns its exit code."""
    command = subprocess.Popen(sys.argv[1:])
    process = psutil.Process(command.pid)
    started = time.monotonic()
    samples: list[tuple[float, int]] = []
    reported = 0.0
    while command.poll() is None:
        at_s = time.monotonic() - started
        try:
            samples.append((at_s, resident_bytes(process)))
        except psutil.NoSuchProcess:
            break
        if at_s - reported >= REPORT_S:
            reported = at_s
            print(f"{at_s:6.0f} s  {samples[-1][1] / 2**20:8.1f} MiB", flush=True)
        time.sleep(SAMPLE_S)
    code = command.wait()
    # The process shuts down in the last second.
    steady = [(at_s, size) for at_s, size in samples if SETTLE_S <= at_s < samples[-1][0] - 1]
    if len(steady) < 20:
        print(f"ran {samples[-1][0]:.0f} s only: too short to measure")
        return code
    base = statistics.median(size for at_s, size in steady if at_s < SETTLE_S + REPORT_S)
    end = statistics.median(size for _, size in steady[-len(steady) // 5 :])
    peak = max(size for _, size in steady)
    print(
        f"after {SETTLE_S:.0f} s: {base / 2**20:.1f} MiB, at the end {end / 2**20:.1f} MiB: "
        f"{100 * (end / base - 1):+.2f} % (peak {100 * (peak / base - 1):+.2f} %)"
    )
    return code


if __name__ == "__main__":
    sys.exit(main())
