"""Frames of a judged clip by the times that its record has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from pipeline.sources import Opened
from pipeline.types import Frame
from pipeline.video.sampling import Every
from pipeline.video.sandbox import DecodeServer, Limits
from pipeline.video.window import Window

# Records have times in whole milliseconds.
_SAME_S: Final = 0.0006
# Frames that are closer are read in one go: a new start costs a process and the frames since a key frame.
_CLOSE_S: Final = 5.0


def frames_at(
    times_s: Iterable[float],
    opened: Opened,
    server: DecodeServer,
    clip_id: str,
    *,
    limits: Limits | None = None,
    stream: int = 0,
) -> Iterator[tuple[float, Frame]]:
    """The frames at these times, each with its time as it was asked for; those that are not found are missing.

    Args:
        times_s: presentation times in seconds, to a millisecond.
        opened: the clip.
        server: decodes it.
        clip_id: of the clip.
        limits: of the decoder; the defaults if not given.
        stream: number of the file's video stream.

    Returns:
        By time. A frame's image is valid until the next one is asked for.

    Raises:
        DecodeError: it cannot be decoded.
    """
    for group in _together(sorted(set(times_s))):
        # A picture has no times to go to.
        window = Window(group[0] - _SAME_S, group[-1] + _SAME_S) if group[0] > _SAME_S else None
        left = list(group)
        with server.open(opened.fd, clip_id, Every(1), limits, window, stream=stream) as reader:
            for frame in reader:
                while left and left[0] < frame.t_s - _SAME_S:
                    left.pop(0)
                if not left:
                    break
                if abs(left[0] - frame.t_s) <= _SAME_S:
                    yield left.pop(0), frame


def _together(times_s: Sequence[float]) -> Iterator[list[float]]:
    """Ascending times, in groups without a gap of `_CLOSE_S`."""
    group: list[float] = []
    for t_s in times_s:
        if group and t_s - group[-1] > _CLOSE_S:
            yield group
            group = []
        group.append(t_s)
    if group:
        yield group
