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
class EvenWithin:
    """`count` frames spread over a part of a clip, each at the middle of its share of it; see `Even`."""

    count: int
    start_s: float
    end_s: float

    def __post_init__(self) -> None:
        if not (1 <= self.count <= MAX_FRAMES and 0 <= self.start_s < self.end_s < math.inf):
            raise ValueError(f"count must be from 1 to {MAX_FRAMES} and end_s after start_s, got {self}")

    @property
    def total(self) -> int:
        """How many samples are due by the end of the part."""
        return self.count

    def due(self, index: int, t_s: float, duration_s: float | None) -> int:
        """How many samples are due by the frame at `t_s`; it is taken if that is more than before."""
        share = (t_s - self.start_s + TOLERANCE_S) / (self.end_s - self.start_s)
        return max(0, min(self.count, math.floor(share * self.count + 0.5)))

    def describe(self) -> str:
        """The form that the decode child reads; records and tasks have others."""
        return f"within={self.count},{self.start_s!r},{self.end_s!r}"


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


@dataclass(frozen=True, slots=True)
class Look:
    """The frames of one early look at a clip, spread over all of it.

    Look 0 takes 5 frames, each later one as many as all before it together, between theirs: after look k there are
    5 x 2^k, evenly spread, each the first one at or after its instant. Key frames would be cheaper, but their scores
    differ from those of other frames, by clip: docs/benchmarks.md.
    """

    number: int
    _CELLS: ClassVar[int] = 32  # of the finest grid, for each frame of look 0
    _FIRST: ClassVar[int] = 5
    LOOKS: ClassVar[int] = 6

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.LOOKS:
            raise ValueError(f"a look's number must be from 0 to {self.LOOKS - 1}, got {self.number}")

    @property
    def total(self) -> int:
        """How many frames it takes."""
        return len(self.shares)

    @property
    def together(self) -> int:
        """How many frames it and all before it take."""
        return self._FIRST << self.number

    @property
    def shares(self) -> tuple[float, ...]:
        """Its instants, as shares of the duration, growing."""
        step = self._CELLS >> max(0, self.number - 1)
        first = (self._CELLS // 2, 0)[self.number] if self.number < 2 else step // 2
        cells = self._FIRST * self._CELLS
        return tuple((cell + 0.5) / cells for cell in range(first, cells, step))

    def due(self, index: int, t_s: float, duration_s: float | None) -> int:
        """How many samples are due by the frame at `t_s`; it is taken if that is more than before.

        Raises:
            ValueError: the duration is unknown.
        """
        if duration_s is None:
            raise ValueError("spread samples need the duration of the clip")
        return sum(share * duration_s <= t_s + TOLERANCE_S for share in self.shares)

    def describe(self) -> str:
        """The form that the decode child reads; records and tasks have others."""
        return f"look={self.number}"


FixedSampling = Fps | Even | Every | Keyframes


@dataclass(frozen=True, slots=True)
class Adaptive:
    """Few frames where they settle the verdict, see `Look`; else those of `full`."""

    full: Fps | Even | Every

    def planned(self, duration_s: float | None, fps: float | None) -> int | None:
        """How many frames `full` takes of a clip, about; None if that is unknown.

        Args:
            duration_s: of the clip.
            fps: its average frame rate.
        """
        if duration_s is None:
            return None
        frames = None if fps is None else int(duration_s * fps)
        match self.full:
            case Fps(rate):
                planned = int(duration_s * rate) + 1
            case Even(count):
                planned = count
            case Every(n):
                if frames is None:
                    return None
                planned = frames // n + 1
        return planned if frames is None else min(planned, max(1, frames))

    def describe(self) -> str:
        """The form that `parse_sampling` reads, for provenance."""
        return f"{self.full.describe()},adaptive"


Sampling = FixedSampling | Adaptive
# What a decoder is asked for.
DecodedSampling = FixedSampling | Look | EvenWithin


def parse_decoded(text: str) -> DecodedSampling:
    """What the decode child is asked for: a sampling that is not adaptive, an early look, or frames within a part.

    Raises:
        ValueError: the text is neither.
    """
    name, _, value = text.partition("=")
    if name == "look":
        return Look(int(value))
    if name == "within":
        count, start_s, end_s = value.split(",")
        return EvenWithin(int(count), float(start_s), float(end_s))
    return _parse_fixed(text)


def within(sampling: FixedSampling, start_s: float, end_s: float, least: int) -> DecodedSampling:
    """The frames of a part of a clip: as many of it as of a clip of its length.

    Args:
        sampling: of whole clips.
        start_s: of the part.
        end_s: of the part or of the clip, whichever is first; infinity if unknown.
        least: frames that a short part gets at least, where the rate gives fewer.
    """
    length_s = end_s - start_s
    if not 0 < length_s < math.inf:
        return sampling
    if isinstance(sampling, Even):
        return EvenWithin(sampling.count, start_s, end_s)
    if isinstance(sampling, Fps) and length_s * sampling.fps < least:
        return EvenWithin(least, start_s, end_s)
    return sampling


def fixed(sampling: Sampling) -> FixedSampling:
    """The frames of a whole scan."""
    return sampling.full if isinstance(sampling, Adaptive) else sampling


def parse_sampling(text: str) -> Sampling:
    """The sampling that `describe` wrote: "fps=2", "frames=20" or "every=5", each alone or with ",adaptive" behind it,
    or "keyframes".

    Raises:
        ValueError: the text is not one of these, or its number is out of range.
    """
    frames, comma, word = text.strip().partition(",")
    full = _parse_fixed(frames)
    if not comma:
        return full
    if word.strip() != "adaptive":
        raise ValueError(f"sampling {text!r}: only 'adaptive' may follow the comma")
    if isinstance(full, Keyframes):
        raise ValueError(f"sampling {text!r}: key frames are not chosen by what they show; leave 'adaptive' out")
    return Adaptive(full)


def _parse_fixed(text: str) -> FixedSampling:
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
    raise ValueError(
        f"unknown sampling {text!r}; give fps=F, frames=N, every=N or keyframes, the first three also with ,adaptive"
    )
