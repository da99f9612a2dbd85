"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipeline.faces.views import Looks
    from pipeline.video.sampling import Sampling
    from pipeline.video.window import Window

Kafka = Annotated[str | None, typer.Option("--kafka", help="Bootstrap servers.", envvar="UNMASK_KAFKA")]
Redis = Annotated[str | None, typer.Option("--redis", help="URL of Redis.", envvar="UNMASK_REDIS")]
Registry = Annotated[
    str | None, typer.Option("--registry", help="Folder or URI of the registry.", envvar="UNMASK_REGISTRY")
]

JsonTo = Annotated[
    Path | None, typer.Option("--json", metavar="PATH|-", help="Write JSON to this file; - is standard output.")
]

FollowLinks = Annotated[
    bool, typer.Option("--follow-links", help="With --recursive: include linked folders, each once.")
]

FaceDetector = Annotated[
    str, typer.Option("--detector", help="Face detector: mtcnn or yunet.", envvar="UNMASK_DETECTOR")
]
FaceWeights = Annotated[
    Path | None,
    typer.Option("--detector-weights", help="File of the face detector's network, if not the default or a pulled one."),
]
Weights = Annotated[
    str | None,
    typer.Option(
        "--weights", help="Checkpoint path or zoo name; a comma-separated list is an ensemble.", envvar="UNMASK_WEIGHTS"
    ),
]
LooksOption = Annotated[
    str | None,
    typer.Option(
        "--looks",
        help="Further looks at each face, comma-separated: flip (twice the cost), scales (three times).",
        envvar="UNMASK_LOOKS",
    ),
]
Backend = Annotated[
    str, typer.Option("--backend", help="auto, openvino, torch or torch-compiled.", envvar="UNMASK_BACKEND")
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps ...", envvar="UNMASK_DEVICE")]
Start = Annotated[float | None, typer.Option("--start", help="Judge only from this second of each video on.", min=0.0)]
End = Annotated[float | None, typer.Option("--end", help="Judge only up to this second of each video.", min=0.0)]
FramesPerSecond = Annotated[
    float | None, typer.Option("--fps", help="Scored frames a second of video.", show_default="2", min=0.001)
]
Frames = Annotated[int | None, typer.Option("--frames", help="This many frames, spread over the whole clip.", min=1)]
EveryFrame = Annotated[int | None, typer.Option("--every", help="Every n-th frame.", min=1)]
KeyFrames = Annotated[
    bool,
    typer.Option("--keyframes", help="Key frames only: fastest, but their scores differ from those of other frames."),
]
AdaptiveFrames = Annotated[
    bool, typer.Option("--adaptive", help="Few frames where they settle the verdict, else all of these.")
]
ClipsAtOnce = Annotated[
    str,
    typer.Option(
        "--workers", help="Clips at once: a number, or auto for one more than cores.", envvar="UNMASK_WORKERS"
    ),
]


def part_of(start: float | None, end: float | None) -> Window | None:
    """The part of each video that `Start` and `End` give; None for all of it.

    Raises:
        typer.BadParameter: it ends before it begins, or is too far away.
    """
    from pipeline.video.window import asked_part

    try:
        return asked_part(start, end)
    except ValueError as error:
        raise typer.BadParameter(f"--start and --end: {error}") from error


def sampling_of(
    *, fps: float | None, frames: int | None, every: int | None, keyframes: bool, adaptive: bool
) -> Sampling:
    """The sampling that the options of these names give; 2 frames a second without any.

    Raises:
        typer.BadParameter: they exclude each other.
    """
    chosen = {"--fps": fps, "--frames": frames, "--every": every, "--keyframes": keyframes or None}
    if len(given := [name for name, value in chosen.items() if value is not None]) > 1:
        raise typer.BadParameter(f"{' and '.join(given)} exclude each other: choose one way of sampling")
    if adaptive and keyframes:
        raise typer.BadParameter("--adaptive and --keyframes exclude each other: key frames are chosen by the encoder")

    from pipeline.video.sampling import Adaptive, Even, Every, Fps, Keyframes

    if keyframes:
        return Keyframes()
    if frames is not None:
        counted: Even | Every | Fps = Even(frames)
    else:
        counted = Fps(fps or 2.0) if every is None else Every(every)
    return Adaptive(counted) if adaptive else counted


def clips_at_once(text: str) -> int | None:
    """The number that `ClipsAtOnce` gives; None for auto.

    Raises:
        typer.BadParameter: the text is neither.
    """
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"--workers takes a number from 1 on, or auto; got {text!r}")
    return int(text)


def parse_looks(text: str | None) -> Looks:
    """The looks that `LooksOption` names.

    Raises:
        typer.BadParameter: there is no such look.
    """
    from pipeline.faces.views import Looks

    try:
        return Looks.parse(text)
    except ValueError as error:
        raise typer.BadParameter(f"--looks: {error}") from error
