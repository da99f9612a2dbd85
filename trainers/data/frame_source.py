"""The frames of a source video: a file, read in the sandbox as a scan reads it, or a folder of pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.types import Frame, Image
from pipeline.video.clip import DecodeError
from pipeline.video.sampling import Even, Every
from trainers.data.layouts.listing import frame_files

if TYPE_CHECKING:
    from pipeline.video.sandbox import DecodeServer


@dataclass(frozen=True, slots=True)
class OpenClip:
    """A clip that is being read.

    Attributes:
        frames: the sampled ones; an image is valid until the next frame is asked for.
        duration_s: seconds; None if unknown.
        interval_s: seconds between two frames.
    """

    frames: Iterator[Frame]
    duration_s: float | None
    interval_s: float


# Used if a container does not give its frame rate.
_USUAL_FPS = 25.0


@contextmanager
def open_clip(path: Path, clip_id: str, sampling: Even | Every, server: DecodeServer) -> Iterator[OpenClip]:
    """Open a video, a picture, or a folder of frames.

    Frames of a folder are ordered by the numbers in their names and treated as one second apart, since the real
    distance is unknown: far enough for the face tracker to search each of them again.

    Raises:
        DecodeError: it cannot be opened or decoded; iterating `frames` can raise it too.
    """
    if path.is_dir():
        files = frame_files(path)
        if not files:
            raise DecodeError("undecodable", f"{path} has no pictures")
        yield OpenClip(_pictures(files, clip_id, sampling, server), float(len(files)), 1.0)
        return
    with server.open(path, clip_id, sampling) as reader:
        yield OpenClip(reader, reader.info.duration_s, 1 / (reader.info.fps or _USUAL_FPS))


def read_picture(path: Path, server: DecodeServer) -> Image:
    """A picture, uint8 [H, W, 3], RGB, decoded in the sandbox with its limits, as a scan reads it.

    Raises:
        DecodeError: it cannot be opened or decoded, or exceeds a limit.
    """
    with server.open(path, path.name, Even(1)) as reader:
        for frame in reader:
            return frame.image.copy()
    raise DecodeError("undecodable", f"{path.name}: has no picture")


def _pictures(files: list[Path], clip_id: str, sampling: Even | Every, server: DecodeServer) -> Iterator[Frame]:
    numbers = [_number(file) for file in files]
    if len(set(numbers)) < len(numbers):
        numbers = list(range(len(files)))
    for position in _sampled(len(files), sampling):
        file, number = files[position], numbers[position]
        yield Frame(read_picture(file, server), float(number), number, clip_id)


def _sampled(count: int, sampling: Even | Every) -> list[int]:
    """Which of `count` frames are taken: evenly spread, in the middle of each time share."""
    if isinstance(sampling, Every):
        return list(range(0, count, sampling.n))
    return sorted({int((share + 0.5) * count / sampling.count) for share in range(sampling.count)})


def _number(file: Path) -> int:
    """The last number in a frame's name; -1 without one."""
    found = re.findall(r"\d+", file.stem)
    return int(found[-1]) if found else -1
