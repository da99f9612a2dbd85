"""One benchmark: a clip, a deepfake detector, a face detector; stages, whole and plain way in the same run."""

from __future__ import annotations

import hashlib
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

from pipeline import assembly
from pipeline.bench import plain
from pipeline.bench.stages import CountingDetector, Material, StageTimes, collect, measure
from pipeline.detectors import load_all
from pipeline.scan import Scanner
from pipeline.scan_many import scan_all
from pipeline.scanner_options import ScannerOptions
from pipeline.sources import Source
from pipeline.video.sampling import Fps

# The whole is timed over at least this long, and over whole rounds of one clip per worker.
WHOLE_S = 8.0
# Scored frames per second of the live streams.
STREAM_FPS = (1.0, 2.0, 5.0)
# The plain way is slow and steady: a dozen frames are enough.
PLAIN_FRAMES = 12


@dataclass(frozen=True)
class WholeRun:
    """Counts of one timed pass of the whole pipeline."""

    elapsed_s: float
    frames: int
    faces: int
    video_s: float
    detected: int
    refined: int


@dataclass(frozen=True)
class Result:
    """Figures of one combination; medians over the rounds.

    Attributes:
        clip: its name.
        clip_sha256: of its bytes.
        network: architecture and backbone.
        input_spec: as in records, with the looks.
        stages_ms: each stage alone, wall milliseconds with every core busy: per sampled frame (decode, detect,
            refine, track) or face (crop, classify).
        share_ms: cost of each stage per scored frame of this clip, in wall milliseconds; the sum is the bound.
        bound_fps: sampled frames per second if the stages just added up.
        whole_fps: sampled frames per second of the whole pipeline.
        whole_faces_s: scored faces per second of the whole pipeline.
        of_bound: whole_fps / bound_fps.
        bottleneck: stage with the largest share.
        streams: how many live streams of this kind the machine can follow, by scored frames per second.
        plain_fps: frames per second of the plain way; None if not measured.
        times_plain: whole_fps / plain_fps.
    """

    clip: str
    clip_sha256: str
    architecture: str
    network: str
    input_spec: str
    detector: str
    backend: str
    sampling: str
    workers: int
    rounds: int
    faces_a_frame: float
    detections_a_frame: float
    stages_ms: dict[str, float]
    share_ms: dict[str, float]
    bound_fps: float
    whole_fps: float
    whole_faces_s: float
    of_bound: float
    bottleneck: str
    streams: dict[str, float]
    plain_fps: float | None
    times_plain: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def bench(
    clip: Path,
    *,
    architecture: str | None,
    options: ScannerOptions,
    weights: str | None = None,
    rounds: int = 3,
    streams: bool = True,
    with_plain: bool = True,
) -> Result:
    """Measure the stages alone and the whole pipeline in turns, so that drift of the machine affects all of them.

    Args:
        clip: shows at least one face in its first frames.
        architecture: with random weights; None: that of the weights.
        options: how the clip is read and scored.
        weights: checkpoints or zoo names, with commas between; random weights take the same time.
        rounds: how often everything is measured; medians are reported.
        streams: also measure the whole at `STREAM_FPS`.
        with_plain: also measure the plain way.

    Raises:
        ValueError: the clip shows no face, or a name is unknown.
    """
    detectors = load_all(architecture=architecture, weights=weights, untrained=weights is None)
    scored = "+".join(detector.architecture for detector in detectors)
    workers = options.clips_at_once
    with assembly.scanner(detectors, options, portraits=False) as scanner:
        material = collect(scanner, clip)
        stages: list[StageTimes] = []
        wholes: list[WholeRun] = []
        plains: list[float] = []
        for _ in range(rounds):
            stages.append(measure(scanner, material, workers))
            wholes.append(_timed(scanner, clip, workers))
            if with_plain:
                plains.append(plain.seconds_a_frame(detectors[0].model(), clip, frames=PLAIN_FRAMES))
        live = {f"{fps:g}": _streams(scanner, clip, workers, fps) for fps in STREAM_FPS} if streams else {}
        return _result(clip, scored, scanner, material, workers, stages, wholes, live, plains)


def sha256_of(clip: Path) -> str:
    """Of a clip's bytes."""
    with clip.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _timed(scanner: Scanner, clip: Path, workers: int) -> WholeRun:
    """One pass of at least `WHOLE_S`, in whole rounds of as many copies of the clip as there are workers."""
    once = _whole(scanner, clip, workers, workers)
    if once.elapsed_s >= WHOLE_S:
        return once
    return _whole(scanner, clip, workers, workers * math.ceil(WHOLE_S / once.elapsed_s))


def _whole(scanner: Scanner, clip: Path, workers: int, copies: int) -> WholeRun:
    counting = CountingDetector(scanner.detector)
    counted = replace(scanner, detector=counting)
    frames = faces = 0
    video_s = 0.0
    started = time.perf_counter()
    for _, report in scan_all(counted, repeat(Source(str(clip)), copies), workers=workers):
        if report is None or report.verdict.error is not None:
            raise ValueError(f"{clip}: {report.verdict.error if report else 'was not scanned'}")
        frames += report.verdict.frames_sampled
        faces += len(report.verdict.frames)
        video_s += report.verdict.duration_s or 0.0
    elapsed_s = time.perf_counter() - started
    return WholeRun(elapsed_s, frames, faces, video_s, counting.detected, counting.refined)


def _streams(scanner: Scanner, clip: Path, workers: int, fps: float) -> float:
    """Seconds of video judged per second of wall clock: the live streams that the machine can follow."""
    live = replace(scanner, sampling=Fps(fps))
    run = _timed(live, clip, workers)
    return run.video_s / run.elapsed_s


def _result(
    clip: Path,
    architecture: str,
    scanner: Scanner,
    material: Material,
    workers: int,
    stages: Sequence[StageTimes],
    wholes: Sequence[WholeRun],
    streams: dict[str, float],
    plains: Sequence[float],
) -> Result:
    one = {name: statistics.median(getattr(times, name) for times in stages) for name in StageTimes.__annotations__}
    run = wholes[0]
    a_frame = {
        "decode_s": 1.0,
        "detect_s": run.detected / run.frames,
        "refine_s": run.refined / run.frames,
        "track_s": 1.0,
        "crop_s": run.faces / run.frames,
        "classify_s": run.faces / run.frames,
    }
    share = {name: one[name] * a_frame[name] for name in one}
    bound_fps = 1 / sum(share.values())
    whole_fps = statistics.median(run.frames / run.elapsed_s for run in wholes)
    plain_fps = 1 / statistics.median(plains) if plains else None
    return Result(
        clip=clip.name,
        clip_sha256=sha256_of(clip),
        architecture=architecture,
        network=scanner.provenance.network,
        input_spec=scanner.provenance.input_spec,
        detector=scanner.detector.name,
        backend=scanner.engine.name,
        sampling=scanner.sampling.describe(),
        workers=workers,
        rounds=len(wholes),
        faces_a_frame=run.faces / run.frames,
        detections_a_frame=run.detected / run.frames,
        stages_ms={name.removesuffix("_s"): 1e3 * seconds for name, seconds in one.items()},
        share_ms={name.removesuffix("_s"): 1e3 * seconds for name, seconds in share.items()},
        bound_fps=bound_fps,
        whole_fps=whole_fps,
        whole_faces_s=whole_fps * run.faces / run.frames,
        of_bound=whole_fps / bound_fps,
        bottleneck=max(share, key=lambda name: share[name]).removesuffix("_s"),
        streams=streams,
        plain_fps=plain_fps,
        times_plain=whole_fps / plain_fps if plain_fps else None,
    )
