"""Cost of decoding a window of a long clip: `python -m tests.pipeline.video.measure_windows`."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pipeline.parts.join import plan_parts
from pipeline.video.clip import Limits
from pipeline.video.reader import VideoReader
from pipeline.video.sampling import Fps
from pipeline.video.window import Window
from tests import media

MINUTES = 10
ROUNDS = 3


def cpu_s(path: Path, *windows: Window | None) -> float:
    """CPU seconds of decoding and converting two frames a second of these windows, all threads together."""
    started_s = time.process_time()
    for window in windows:
        fd = os.open(path, os.O_RDONLY)
        reader = VideoReader(fd, Fps(2), Limits(), threads=2, window=window)
        for picture in reader:
            width, height = picture.size
            reader.write(picture, np.empty((height, width, 3), np.uint8))
        os.close(fd)
    return time.process_time() - started_s


def main() -> None:
    """Print CPU seconds, the median of alternating rounds."""
    end_s = MINUTES * 60
    jobs: dict[str, tuple[Window | None, ...]] = {
        "first 30 s": (Window(0, 30),),
        "last 30 s": (Window(end_s - 30),),
        "whole": (None,),
        "4 parts": plan_parts(end_s, end_s / 4),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.mp4"
        media.make_long_clip(path, minutes=MINUTES)
        rounds = [{name: cpu_s(path, *windows) for name, windows in jobs.items()} for _ in range(ROUNDS)]
    for name in jobs:
        sys.stdout.write(f"{name}: {statistics.median(costs[name] for costs in rounds):.2f} CPU s\n")


if __name__ == "__main__":
    main()
