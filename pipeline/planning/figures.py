"""What `unmask bench --plan` measured of a machine, as the simulation needs it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal

from models.errors import UnmaskError

DEFAULT_FILE: Final = Path(".plan.json")
HOW_TO_MEASURE: Final = "unmask bench CLIP --plan --json .plan.json"
SCHEMA: Final = 1

Kind = Literal["video", "segment"]


class FiguresError(UnmaskError):
    """There are no figures, or the file is not what `unmask bench --plan --json` writes."""


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds of a task, without scoring: `fixed_s + video_s * duration + frame_s * sampled frames`.

    Attributes:
        fixed_s: opening, the decode child, the verdict.
        video_s: per second of video: decoding what is not sampled, too.
        frame_s: per sampled frame: finding, following, rating and cutting faces.
        parallel: cores that one task keeps busy while it is alone; below 1 where it waits for something.
        more_frames: sampled beyond the rate times the duration: the first and the last frame both count.
        first_s: more for the first segment of a stream, whose people may turn out not to be upright.
    """

    fixed_s: float
    video_s: float
    frame_s: float
    parallel: float = 1.0
    more_frames: float = 0.0
    first_s: float = 0.0

    def frames(self, video_s: float, fps: float) -> float:
        """Sampled frames of a task of this length."""
        return video_s * fps + self.more_frames

    def cpu_s(self, video_s: float, frames: float) -> float:
        """CPU seconds of a task of this length."""
        return self.fixed_s + self.video_s * video_s + self.frame_s * frames


@dataclass(frozen=True, slots=True)
class Batch:
    """The cost of one batch of `crops`: wall seconds with nothing else running, and CPU seconds."""

    crops: int
    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Services:
    """What Kafka and Redis add to a task; all 0 where it was not measured.

    Attributes:
        wait_s: from a message's arrival to its start in an idle worker, and from the verdict to its readers.
        cpu_s: of the worker, for polling, storing and publishing, per task.
        broker_cpu_s: of Kafka and Redis, per task; counts only where they share the worker's machine.
        idle_cores: that a worker takes without tasks, for its poller.
    """

    wait_s: float = 0.0
    cpu_s: float = 0.0
    broker_cpu_s: float = 0.0
    idle_cores: float = 0.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes on the wire and in Redis.

    Attributes:
        record_fixed: of a verdict without its frames.
        record_frame: of a verdict, per sampled frame.
        segment: of a live segment's message.
        segment_s: seconds of video in it.
        stream_state: of a stream's state in Redis, without the list of its faces.
        clip: of the measured clip's file.
        resident: of a worker with its decoders, in memory.
    """

    record_fixed: float
    record_frame: float
    segment: float
    segment_s: float
    stream_state: float
    clip: float
    resident: float

    def record(self, frames: float) -> float:
        """Bytes of a verdict with so many sampled frames."""
        return self.record_fixed + self.record_frame * frames


@dataclass(frozen=True, slots=True)
class Figures:
    """One clip on one machine.

    Attributes:
        device: `cpu`: scoring takes the same cores as reading; else it has a device of its own.
        cores: that a worker may keep busy.
        clips_at_once: of a worker, and as many segments.
        efficiency: share of the cores' time that a saturated worker turns into work, 0 to 1.
        faces_a_frame: scored faces per sampled frame.
        fps: sampled frames per second of video.
        clip_s: seconds of the measured clip.
        batches: by number of crops.
        batches_at_once: of the scorer.
        any_batch: batches of other sizes than the measured ones are possible, at a cost in between.
    """

    machine: str
    clip: str
    network: str
    detector: str
    backend: str
    device: str
    cores: int
    clips_at_once: int
    efficiency: float
    faces_a_frame: float
    fps: float
    clip_s: float
    video: Cost
    segment: Cost
    batches: tuple[Batch, ...]
    batches_at_once: int
    any_batch: bool
    sizes: Sizes
    video_services: Services = field(default_factory=Services)
    segment_services: Services = field(default_factory=Services)

    def __post_init__(self) -> None:
        if self.cores < 1 or self.clips_at_once < 1 or self.batches_at_once < 1:
            raise ValueError("cores, clips_at_once and batches_at_once must be at least 1")
        if not 0 < self.efficiency <= 1:
            raise ValueError(f"efficiency must be in 0..1, got {self.efficiency}")
        numbers = (self.faces_a_frame, self.fps, self.clip_s, *_numbers(asdict(self)))
        if not all(math.isfinite(number) and number >= 0 for number in numbers):
            raise ValueError("figures must be finite and not negative")
        if self.clip_s <= 0 or self.sizes.segment_s <= 0 or any(batch.crops < 1 for batch in self.batches):
            raise ValueError("clips and segments must be longer than 0 s, and batches have at least one crop")
        if self.faces_a_frame and not self.batches:
            raise ValueError("faces are scored, but no batch was measured")

    def scoring_cpu_s(self, crops: float) -> float:
        """CPU seconds of scoring so many crops in the largest batches; 0 where a device of its own scores."""
        if self.device != "cpu" or not self.batches:
            return 0.0
        largest = max(self.batches, key=lambda batch: batch.crops)
        return crops * largest.cpu_s / largest.crops

    def of(self, kind: Kind) -> tuple[Cost, Services]:
        """The costs of a kind of task."""
        return (self.segment, self.segment_services) if kind == "segment" else (self.video, self.video_services)

    @property
    def usable_cores(self) -> float:
        """Cores that a saturated worker turns into work."""
        return max(0.05, self.cores * self.efficiency - self.video_services.idle_cores)

    def task_cpu_s(self, kind: Kind, video_s: float) -> float:
        """CPU seconds of a task with its scores and messages."""
        cost, services = self.of(kind)
        frames = cost.frames(video_s, self.fps)
        return cost.cpu_s(video_s, frames) + self.scoring_cpu_s(frames * self.faces_a_frame) + services.cpu_s

    def device_s(self, crops: float) -> float:
        """Seconds of the scoring device for so many crops in the largest batches; 0 on a CPU."""
        if self.device == "cpu" or not self.batches:
            return 0.0
        largest = max(self.batches, key=lambda batch: batch.crops)
        return crops * largest.wall_s / largest.crops / self.batches_at_once

    def tasks_s(self, kind: Kind, video_s: float) -> float:
        """Tasks a second of one saturated worker."""
        cpu = self.task_cpu_s(kind, video_s) / self.usable_cores
        return 1 / max(cpu, self.device_s(self.of(kind)[0].frames(video_s, self.fps) * self.faces_a_frame), 1e-9)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def _numbers(value: Any) -> list[float]:
    if isinstance(value, Mapping):
        return [number for each in value.values() for number in _numbers(each)]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [number for each in value for number in _numbers(each)]
    return [float(value)] if isinstance(value, int | float) else []


# JSON's values for the plain fields of a class, by annotation; true and false are no numbers.
_TYPES: Final[dict[str, tuple[type, ...]]] = {"str": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}


def _plain(kind: type[Any], given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The given values; raises TypeError where one is of another type than its field."""
    for each in fields(kind):
        types = _TYPES.get(str(each.type))
        if types is None or each.name not in given:
            continue
        value = given[each.name]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise TypeError(f"{each.name}: expected {each.type}, got {type(value).__name__}")
    return given


def figures_of(found: Mapping[str, Any]) -> Figures:
    """From what `Figures.to_dict` wrote; raises KeyError, TypeError or ValueError where it is something else."""
    given = dict(found)
    for key in ("video", "segment", "sizes", "video_services", "segment_services"):
        if not isinstance(given.get(key, {}), Mapping):
            raise TypeError(f"{key}: expected an object")
    return Figures(
        **{
            **_plain(Figures, given),
            "video": Cost(**_plain(Cost, given["video"])),
            "segment": Cost(**_plain(Cost, given["segment"])),
            "batches": tuple(Batch(**_plain(Batch, batch)) for batch in given["batches"]),
            "sizes": Sizes(**_plain(Sizes, given["sizes"])),
            "video_services": Services(**_plain(Services, given.get("video_services", {}))),
            "segment_services": Services(**_plain(Services, given.get("segment_services", {}))),
        }
    )


def to_json(figures: Sequence[Figures], machine: str) -> dict[str, Any]:
    """The content of a file of figures."""
    return {"schema": SCHEMA, "machine": machine, "plan": [each.to_dict() for each in figures]}


def read_figures(path: Path, clip: str | None = None) -> Figures:
    """The figures of a file: of `clip`, by name, or the first.

    Raises:
        FiguresError: there is no such file or clip, or it is something else. The message says how to measure.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise FiguresError(
            f"{path}: no figures of this machine; measure them by `{HOW_TO_MEASURE}` "
            "with a clip like yours and nothing else running, or name a file by --bench"
        ) from error
    except OSError as error:
        raise FiguresError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise FiguresError(f"{path}: not JSON; write it by `{HOW_TO_MEASURE}`") from error
    try:
        if content["schema"] != SCHEMA:
            raise ValueError(f"schema {content['schema']}: expected {SCHEMA}")
        figures = [figures_of(each) for each in content["plan"]]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise FiguresError(
            f"{path}: not what `unmask bench --plan --json` writes ({type(error).__name__}: {error}); "
            f"write it by `{HOW_TO_MEASURE}`"
        ) from error
    for each in figures:
        if clip in (None, each.clip):
            return each
    raise FiguresError(f"{path}: no figures of {clip or 'any clip'}; there are: {', '.join(f.clip for f in figures)}")
