"""What the adapters share: arguments, frames by OpenCV, one line of JSON for each clip."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

Image = npt.NDArray[np.uint8]
# The ImageNet statistics that all of these networks were trained with (timm.data.constants).
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def arguments(description: str, **defaults: int) -> argparse.Namespace:
    """Clips, and whole numbers by name.

    Args:
        description: of the adapter.
        defaults: of each number.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("clips", nargs="+", type=Path)
    for name, default in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    return parser.parse_args()


def spread_frames(clip: Path, count: int) -> list[Image]:
    """`count` frames in RGB, evenly spread over the frames that the container declares.

    Each frame before the wanted one is decoded and dropped, as the originals do.
    """
    capture = cv2.VideoCapture(str(clip))
    total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    wanted = set(np.linspace(0, max(total - 1, 0), count, dtype=int).tolist())
    frames = []
    for index in range(total):
        if not capture.grab():
            break
        if index in wanted:
            found, bgr = capture.retrieve()
            if found:
                frames.append(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
    capture.release()
    return frames


def timed_frames(clip: Path, fps: float) -> Iterator[Image]:
    """Frames in RGB, the first at or after each multiple of 1 / `fps` seconds."""
    capture = cv2.VideoCapture(str(clip))
    rate = capture.get(cv2.CAP_PROP_FPS) or 25.0
    index = due = 0
    while True:
        found, bgr = capture.read()
        if not found:
            break
        if index / rate >= due / fps - 1e-3:
            due += 1
            yield cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        index += 1
    capture.release()


def normalised(crops: list[Image]) -> torch.Tensor:
    """float32 [N, 3, S, S] of uint8 crops of one size."""
    batch = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
    return (batch - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


def run(clips: list[Path], judge: Callable[[Path], tuple[int, int, float | None]]) -> None:
    """Judge each clip and print it.

    Args:
        clips: in order.
        judge: gives frames, faces and P(fake) of a clip.
    """
    for clip in clips:
        frames, faces, probability = judge(clip)
        line = {"clip": clip.name, "frames": frames, "faces": faces, "probability": probability}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
