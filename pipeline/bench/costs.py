"""The figures of `unmask plan`: CPU seconds of videos and segments, the scorer's batches, sizes in bytes.

CPU seconds are those of this process and its decoders. A cost has three parts, fixed, per second of video and per
sampled frame, which are fitted to runs with other samplings and lengths.
"""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count, repeat
from pathlib import Path

import numpy as np
import psutil

from models.cores import available_cores
from models.device_choice import choose_device
from pipeline import assembly
from pipeline.contracts import Verdict
from pipeline.detectors import load_all
from pipeline.faces.tracker import FaceTracker
from pipeline.live.cutter import Cut, cut
from pipeline.live.segments import SegmentResult, score_segment
from pipeline.live.state import StreamState
from pipeline.planning.figures import Batch, Cost, Figures, Sizes
from pipeline.scan import Scanner
from pipeline.scan_many import scan_all
from pipeline.scanner_options import ScannerOptions
from pipeline.scoring.backend import Backend
from pipeline.scoring.engine import MAX_DELAY_S, Engine
from pipeline.sources import Source
from pipeline.transport.messages import ContentType, Segment
from pipeline.types import Floats
from pipeline.video.sampling import Fps
from pipeline.video.window import Window

# Each load runs for at least so long in all, in turns with the others: drift of the machine affects all alike.
RUN_S = 3.0
_TURNS = 3
_ALONE_RUNS = 5
# Samplings, as multiples of the one that is asked for: far apart, or the cost of a frame is lost in noise.
_SAMPLINGS = (1.0, 3.0, 8.0)
# A batch is repeated for this long.
_BATCH_S = 1.0
_LEAST_PARALLEL = 0.05
_FRAMES_TO_HALVE = 10


@dataclass(frozen=True, slots=True)
class Load:
    """What one run cost: CPU seconds, per task.

    Attributes:
        video_s: of a task.
        frames: sampled ones of a task.
        crops: scored faces of a task.
        busy: share of the cores.
    """

    video_s: float
    frames: float
    crops: float
    cpu_s: float
    busy: float


# Runs so many tasks; seconds, frames and crops of each.
Job = Callable[[int], list[tuple[float, int, int]]]


def measure_figures(
    clip: Path,
    *,
    machine: str,
    architecture: str | None,
    options: ScannerOptions,
    weights: str | None = None,
    segment_s: float = 2.0,
) -> Figures:
    """Measure what `unmask plan` needs; takes about a minute. Run nothing else at the same time.

    Args:
        clip: like those that are planned for, with a face.
        machine: one line about it.
        architecture: with random weights; None: that of the weights.
        options: with a sampling in frames a second.
        segment_s: of live segments.

    Raises:
        ValueError: the clip shows no face or cannot be judged, its sampling is another one, or several networks score.
    """
    if not isinstance(options.sampling, Fps):
        raise ValueError(f"a plan needs a sampling in frames a second, got {options.sampling.describe()}")
    detectors = load_all(architecture=architecture, weights=weights, untrained=weights is None)
    with assembly.scanner(detectors, options, portraits=False, warm_up=True) as scanner:
        if not isinstance(scanner.engine, Engine):
            raise ValueError("a plan is made for one network without further looks")
        fps, workers = options.sampling.fps, options.clips_at_once
        videos, verdicts = _videos(scanner, clip, fps, workers)
        batches = tuple(_batches(scanner.engine.backend))
        is_cpu = scanner.engine.backend.name.startswith("openvino") or choose_device(options.device) == "cpu"
        video, usual = _cost(videos, batches if is_cpu else ())
        alone_s = _alone_s(scanner, clip)
        segments = list(cut(str(clip), segment_s=segment_s))
        lived, state_bytes = _segments(scanner, clip, segments, fps, workers, segment_s)
        live, usual_segment = _cost(lived, batches if is_cpu else (), video)
        segment_alone_s, first_s = _segment_alone_s(scanner, segments, fps)
        cores = available_cores()
        return Figures(
            machine=machine,
            clip=clip.name,
            network=scanner.provenance.network,
            detector=scanner.detector.name,
            backend=scanner.engine.name,
            device="cpu" if is_cpu else choose_device(options.device),
            cores=cores,
            clips_at_once=workers,
            efficiency=min(1.0, max(0.05, usual.busy)),
            faces_a_frame=usual.crops / usual.frames,
            fps=fps,
            clip_s=usual.video_s,
            video=replace(
                video,
                parallel=_parallel(video, usual, alone_s, batches, cores),
                more_frames=max(0.0, usual.frames - fps * usual.video_s),
            ),
            segment=replace(
                live,
                parallel=_parallel(live, usual_segment, segment_alone_s, batches, cores),
                more_frames=max(0.0, usual_segment.frames - fps * usual_segment.video_s),
                first_s=first_s,
            ),
            batches=batches,
            batches_at_once=scanner.engine.backend.concurrency,
            any_batch=not scanner.engine.backend.name.startswith("openvino"),
            sizes=_sizes(verdicts, segments, state_bytes, clip),
        )


def busy_s(process: psutil.Process) -> float:
    """CPU seconds of a process and of its children, with those that have ended."""
    total = 0.0
    for one in [process, *process.children(recursive=True)]:
        try:
            times = one.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def _in_turns(jobs: Sequence[Job], workers: int) -> list[Load]:
    """What each job costs; a job runs so many tasks and returns seconds, frames and crops of each."""
    process = psutil.Process()
    done: list[list[tuple[float, int, int]]] = [[] for _ in jobs]
    cpu_s, wall_s = [0.0] * len(jobs), [0.0] * len(jobs)
    rounds, turns = [1] * len(jobs), [_TURNS] * len(jobs)
    for index, job in enumerate(jobs):  # to warm up, and to see how many tasks a turn has
        from_s = time.perf_counter()
        job(workers)
        round_s = time.perf_counter() - from_s
        rounds[index] = max(1, math.ceil(RUN_S / _TURNS / round_s))
        turns[index] = min(_TURNS, math.ceil(RUN_S / round_s))
    for turn in range(_TURNS):
        for index, job in enumerate(jobs):
            if turn >= turns[index]:
                continue  # one round of it is long enough
            before_s, from_s = busy_s(process), time.perf_counter()
            done[index] += job(workers * rounds[index])
            cpu_s[index] += busy_s(process) - before_s
            wall_s[index] += time.perf_counter() - from_s
    return [
        Load(
            video_s=sum(each[0] for each in tasks) / len(tasks),
            frames=sum(each[1] for each in tasks) / len(tasks),
            crops=sum(each[2] for each in tasks) / len(tasks),
            cpu_s=cpu_s[index] / len(tasks),
            busy=cpu_s[index] / wall_s[index] / available_cores(),
        )
        for index, tasks in enumerate(done)
    ]


def _videos(scanner: Scanner, clip: Path, fps: float, workers: int) -> tuple[list[Load], list[Verdict]]:
    """Loads of the whole clip at three samplings, the asked one first, and of its first half."""
    verdicts: list[Verdict] = []

    def job(sampling: float, part: Window | None) -> Job:
        sampled = replace(scanner, sampling=Fps(sampling))

        def run(tasks: int) -> list[tuple[float, int, int]]:
            found = []
            for _, report in scan_all(sampled, repeat(Source(str(clip)), tasks), workers=workers, part=part):
                if report is None or report.verdict.error is not None:
                    raise ValueError(f"{clip}: {report.verdict.error if report else 'was not scanned'}")
                verdict = report.verdict
                seconds = (verdict.duration_s or 0.0) if part is None else part.end_s
                found.append((seconds, verdict.frames_sampled, len(verdict.frames)))
            verdicts.append(verdict)
            return found

        return run

    ((video_s, frames, crops),) = job(fps, None)(1)
    if not crops:
        raise ValueError(f"{clip.name} shows no face that is scored at {fps:g} frames a second")
    jobs = [job(fps * times, None) for times in _SAMPLINGS]
    # A verdict needs some frames: of a short clip, the half is left out.
    if frames >= _FRAMES_TO_HALVE:
        jobs.append(job(fps, Window.of(0.0, video_s / 2)))
    return _in_turns(jobs, workers), verdicts


def _segments(
    scanner: Scanner, clip: Path, segments: Sequence[Cut], fps: float, workers: int, segment_s: float
) -> tuple[list[Load], float]:
    """Loads of segments, and the bytes of a stream's state."""
    longer = list(cut(str(clip), segment_s=2 * segment_s))
    kinds = [(times, segments) for times in _SAMPLINGS]
    if statistics.fmean(each.duration_s for each in longer) > 1.2 * statistics.fmean(
        each.duration_s for each in segments
    ):
        kinds.append((1.0, longer))
    lived = [
        [_Stream(replace(scanner, sampling=Fps(fps * times)), cuts) for _ in range(workers)] for times, cuts in kinds
    ]
    with ThreadPoolExecutor(workers) as pool:

        def job(streams: list[_Stream]) -> Job:
            def run(tasks: int) -> list[tuple[float, int, int]]:
                each = math.ceil(tasks / len(streams))
                return [found for stream in pool.map(lambda one: one.run(each), streams) for found in stream]

            return run

        loads = _in_turns([job(streams) for streams in lived], workers)
    return loads, max(streams[0].state_bytes() for streams in lived)


class _Stream:
    """A stream that repeats a clip's segments; belongs to one thread at a time."""

    def __init__(self, scanner: Scanner, cuts: Sequence[Cut]) -> None:
        self._scanner, self._cuts = scanner, cuts
        self._tracker = FaceTracker(scanner.detector)
        self._sequence = count()
        self._end_s = self._clock_s = 0.0
        self._state = StreamState(stream_id="bench", started_at=0.0, updated_at=0.0)

    def run(self, tasks: int) -> list[tuple[float, int, int]]:
        """Judge the next segments: seconds, frames and crops of each."""
        found = []
        for _ in range(tasks):
            number = next(self._sequence)
            piece = self._cuts[number % len(self._cuts)]
            result = self._look(number, piece)
            if result.error is not None:
                raise ValueError(f"a segment cannot be judged: {result.error}")
            self._tracker, self._clock_s = result.tracker, result.clock_s
            self._end_s += piece.duration_s
            self._state.add(result.scores, self._scanner.calibration)
            self._state.tracker = result.tracker.snapshot()
            found.append((piece.duration_s, result.frames_sampled, len(result.scores)))
        return found

    def _look(self, number: int, piece: Cut) -> SegmentResult:
        segment = Segment(
            stream_id="bench", sequence=number, start_s=self._end_s, final=False, content_type=ContentType.MPEG_TS
        )
        return score_segment(
            self._scanner,
            self._tracker,
            segment,
            piece.media,
            first_index=0,
            clock_s=self._clock_s,
            stop=lambda: False,
            # As in a worker: whether people are upright is found out in the first segment.
            turn=None if number == 0 else 0,
        )

    def state_bytes(self) -> float:
        """Of its state as Redis has it."""
        return float(len(self._state.model_dump_json()))


def _batches(backend: Backend) -> list[Batch]:
    """The cost of each batch size, alone."""
    process, size = psutil.Process(), backend.input_size
    found = []
    sizes = set(backend.shapes)
    if not backend.name.startswith("openvino"):
        sizes |= {1 << power for power in range(backend.max_batch.bit_length())}
    for crops in sorted(sizes):
        pixels = np.random.default_rng(0).integers(0, 256, (crops, size, size, 3), np.uint8)
        times: list[float] = []
        before_s, from_s = busy_s(process), time.perf_counter()
        while time.perf_counter() - from_s < _BATCH_S or len(times) < 3:
            done, result = threading.Event(), list[Floats | Exception]()

            def answer(
                scores: Floats | Exception, done: threading.Event = done, result: list[Floats | Exception] = result
            ) -> None:
                result.append(scores)
                done.set()

            started_s = time.perf_counter()
            backend.start(pixels, answer)
            done.wait()
            times.append(time.perf_counter() - started_s)
            if isinstance(result[0], Exception):
                raise ValueError(f"{backend.name} cannot score a batch of {crops}: {result[0]!r}")
        cpu_s = (busy_s(process) - before_s) / len(times)
        found.append(Batch(crops, statistics.median(times), cpu_s))
    return found


def _cost(loads: Sequence[Load], batches: Sequence[Batch], known: Cost | None = None) -> tuple[Cost, Load]:
    """Fit fixed, per-second and per-frame CPU seconds, none below 0, each run with the same relative weight.

    Args:
        loads: the first one is the usual one.
        batches: what scoring costs, which is taken off; empty where it takes no CPU.
        known: another cost, whose `video_s` is taken where all loads are equally long; None: then it is 0.
    """
    a_crop = max(batches, key=lambda batch: batch.crops).cpu_s / max(batch.crops for batch in batches) if batches else 0
    read_s = np.array([max(load.cpu_s - load.crops * a_crop, 0.05 * load.cpu_s) for load in loads])
    lengths = np.array([load.video_s for load in loads])
    rows = np.array([[1.0, load.video_s, load.frames] for load in loads])
    free = [True, bool(np.ptp(lengths) > 0.2 * lengths.mean()), True]
    fixed_rate = known.video_s if known is not None and not free[1] else 0.0
    target = np.maximum(read_s - fixed_rate * lengths, 0.0)
    found = np.zeros(3)
    while any(free):
        solved, *_ = np.linalg.lstsq(rows[:, free] / read_s[:, None], target / read_s, rcond=None)
        if (solved >= 0).all():
            found[free] = solved
            break
        # The most negative part is 0.
        free[[index for index, used in enumerate(free) if used][int(solved.argmin())]] = False
    return Cost(float(found[0]), float(found[1] + fixed_rate), float(found[2])), loads[0]


def _alone_s(scanner: Scanner, clip: Path) -> float:
    times = []
    for _ in range(_ALONE_RUNS):
        started_s = time.perf_counter()
        scanner.scan(Source(str(clip)))
        times.append(time.perf_counter() - started_s)
    return statistics.median(times)


def _segment_alone_s(scanner: Scanner, segments: Sequence[Cut], fps: float) -> tuple[float, float]:
    """Wall seconds of a segment, and how many CPU seconds more the first of a stream takes."""
    process, firsts, others, times = psutil.Process(), 0.0, 0.0, list[float]()
    for _ in range(_ALONE_RUNS):
        stream = _Stream(replace(scanner, sampling=Fps(fps)), segments)
        before_s = busy_s(process)
        stream.run(1)
        middle_s, started_s = busy_s(process), time.perf_counter()
        stream.run(1)
        times.append(time.perf_counter() - started_s)
        firsts += middle_s - before_s
        others += busy_s(process) - middle_s
    return statistics.median(times), max(0.0, (firsts - others) / _ALONE_RUNS)


def _parallel(cost: Cost, usual: Load, alone_s: float, batches: Sequence[Batch], cores: int) -> float:
    """Cores that reading keeps busy, so that the simulated task takes as long alone as the measured one."""
    last = min(batches, key=lambda batch: batch.crops)
    read_s = alone_s - last.wall_s - MAX_DELAY_S
    cpu_s = cost.cpu_s(usual.video_s, usual.frames)
    return float(min(cores, max(_LEAST_PARALLEL, cpu_s / read_s if read_s > 0 else cores)))


def _sizes(verdicts: Sequence[Verdict], segments: Sequence[Cut], state_bytes: float, clip: Path) -> Sizes:
    lengths = {verdict.frames_sampled: len(verdict.to_json()) for verdict in verdicts}
    few, many = min(lengths), max(lengths)
    a_frame = (lengths[many] - lengths[few]) / (many - few) if many > few else 0.0
    fixed = max(0.0, lengths[few] - a_frame * few)
    return Sizes(
        record_fixed=fixed,
        record_frame=a_frame,
        segment=statistics.fmean(len(each.media) for each in segments),
        segment_s=statistics.fmean(each.duration_s for each in segments),
        stream_state=state_bytes + fixed,
        clip=float(clip.stat().st_size),
        resident=float(_resident()),
    )


def _resident() -> int:
    """Of this process and its children; what they share counts once where the system reports it."""
    total = 0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            memory = process.memory_full_info()
        except psutil.Error:
            continue
        total += getattr(memory, "pss", memory.rss)
    return total
