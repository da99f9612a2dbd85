"""Which frames of a clip are sampled."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

# Containers round timestamps, Matroska to whole milliseconds: a frame this much early is still on time.
TOLERANCE_S = 1e-3
# More than any camera and any video has: beyond, arithmetic with times would overflow.
MAX_FPS = 1000.0
MAX_FRAMES = 1_000_000_000


def _number(value: float) -> str:
    return repr(float(value)).removesuffix(".0")


@dataclass(frozen=True, slots=True)
class Fps:
    """The first frame at or after each instant k / fps, k = 0, 1, 2 ..."""

    fps: float = 2.0
    total: ClassVar[None] = None

    def __post_init__(self) -> None:
        if not (0 < self.fps <= MAX_FPS):
            raise ValueError(f"fps must be a positive number up to {MAX_FPS:g}, got {self.fps}")

    def due(self, index: int, t_s: float, duration_s: float | None) -> int:
        """How many samples are due by the frame `index` at `t_s`; it is taken if that is more than before."""
        return math.floor((t_s + TOLERANCE_S) * self.fps) + 1

    def describe(self) -> str:
        """The form that `parse_sampling` reads, for provenance."""
        return f"fps={_number(self.fps)}"


@dataclass(frozen=True, slots=True)
class Even:
    """`count` frames spread over the whole clip, each at the middle of its share.

    The middle, not the edge: first and last frames are often black or a title. A clip of fewer frames yields each
    of them at most once.
    """

    count: int

    def __post_init__(self) -> None:
        if not (1 <= self.count <= MAX_FRAMES):
            raise ValueError(f"count must be from 1 to {MAX_FRAMES}, got {self.count}")

    @property
    def total(self) -> int:
        """How many samples are due by the end of the clip."""
        return self.count

    def due(self, index: int, t_s: float, duration_s: float | None) -> int:
        """How many samples are due by the frame at `t_s`; it is taken if that is more than before.

        Raises:
            ValueError: the duration is unknown. The reader measures it first.
        """
        if duration_s is None:
            raise ValueError("evenly spread samples need the duration of the clip")
        if duration_s <= 0:
            return 1
        return min(self.count, math.floor((t_s + TOLERANCE_S) / duration_s * self.count + 0.5))

    def describe(self) -> str:
        """The form that `parse_sampling` reads, for provenance."""
        return f"frames={self.count}"


@dataclass(frozen=True, slots=True)
class Every:
    """Each n-th frame, the first one included."""

    n: int
    total: ClassVar[None] = None

    def __post_init__(self) -> None:
        if not (1 <= self.n <= MAX_FRAMES):
            raise ValueError(f"n must be from 1 to {MAX_FRAMES}, got {self.n}")

    def due(self, index: int, t_s: float, duration_s: float | None) -> int:
        """How many samples are due by the frame `index`; it is taken if that is more than before."""
        return index // self.n + 1

    def describe(self) -> str:
        """The form that `parse_sampling` reads, for provenance."""
        return f"every={self.n}"


@dataclass(frozen=True, slots=True)
class Keyframes:
    """All key frames; other frames are not decoded."""

    total: ClassVar[None] = None

    def due(self, index: int, t_s: float, duration_s: float | None) -> int:
        """Grows with every frame that the reader meets: it meets key frames only."""
        return index + 1

    def describe(self) -> str:
        """The form that `parse_sampling` reads, for provenance."""
        return "keyframes"


Sampling = Fps | Even | Every | Keyframes


def parse_sampling(text: str) -> Sampling:
    """The sampling that `describe` wrote: "fps=2", "frames=20", "every=5" or "keyframes".

    Raises:
        ValueError: the text is not one of these, or its number is out of range.
    """
    name, _, value = text.strip().partition("=")
    try:
        match name:
            case "fps":
                return Fps(float(value))
            case "frames":
                return Even(int(value))
            case "every":
                return Every(int(value))
            case "keyframes" if not value:
                return Keyframes()
    except ValueError as error:
        raise ValueError(f"sampling {text!r}: {error}") from error
    raise ValueError(f"unknown sampling {text!r}; give fps=F, frames=N, every=N or keyframes")
