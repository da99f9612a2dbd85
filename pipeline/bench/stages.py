"""The stages of the pipeline measured alone, each on as many threads as the whole uses.

All figures are wall seconds per sampled frame (or face) with every core busy, so the sum over a frame's stages is the
time of the whole without waits and overhead.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from threading import Lock

import numpy as np

from pipeline.faces.detector import FaceDetector
from pipeline.faces.tracker import FaceTracker
from pipeline.scan import Scanner
from pipeline.sources import Source, open_source
from pipeline.types import Crops, Faces, Floats, Frame, Image
from pipeline.video.sampling import fixed

# Frames held for the stages that work on pictures: 48 in 1080p are 300 MB.
HELD_FRAMES = 48
# A stage is repeated until it has run this long, so that the resolution of timer and scheduler does not matter.
STAGE_S = 1.5


@dataclass(frozen=True)
class Material:
    """The input of the stages: the first frames of the clip, as the whole pipeline sees them.

    Attributes:
        frames: consecutive sampled frames, with pictures of their own.
        faces: of each frame, as the tracker returned them.
    """

    source: Source
    frames: tuple[Frame, ...]
    faces: tuple[Faces, ...]


@dataclass(frozen=True)
class StageTimes:
    """Wall seconds with every core busy."""

    decode_s: float  # a sampled frame, including the skipped frames before it
    detect_s: float  # a full detection of one frame
    refine_s: float  # a refinement of all faces of one frame
    track_s: float  # following and rating the faces of one frame, without the detector
    crop_s: float  # a face
    classify_s: float  # a face


class CountingDetector:
    """A detector that counts its calls; thread-safe."""

    def __init__(self, inner: FaceDetector) -> None:
        self._inner = inner
        self._lock = Lock()
        self.detected = 0
        self.refined = 0

    @property
    def name(self) -> str:
        """Name of the detector inside."""
        return self._inner.name

    def detect(self, images: Sequence[Image]) -> list[Faces]:
        """Detect and count the images."""
        with self._lock:
            self.detected += len(images)
        return self._inner.detect(images)

    def refine(self, image: Image, boxes: Floats) -> Faces:
        """Refine and count the image."""
        with self._lock:
            self.refined += 1
        return self._inner.refine(image, boxes)


class _ReplayDetector:
    """Returns the faces found before, so that only the tracker's own work is left."""

    name = "replay"

    def __init__(self, faces: Sequence[Faces]) -> None:
        self._faces = faces
        self.position = 0

    def detect(self, images: Sequence[Image]) -> list[Faces]:
        return [self._faces[self.position] for _ in images]

    def refine(self, image: Image, boxes: Floats) -> Faces:
        found, wanted = self._faces[self.position], len(boxes)
        if len(found) == 0:
            return Faces.of(boxes, np.zeros(wanted, np.float32), np.zeros((wanted, 5, 2), np.float32))
        # As many as were asked for, in any order: only the cost matters here.
        return found.take(np.arange(wanted) % len(found))


@contextmanager
def reading(scanner: Scanner, source: Source) -> Iterator[Iterator[Frame]]:
    """The sampled frames of a clip from the sandbox, as the whole pipeline reads them."""
    with (
        open_source(source, scanner.source_limits) as opened,
        scanner.server.open(opened.fd, source.id, fixed(scanner.sampling), scanner.limits) as reader,
    ):
        yield iter(reader)


def collect(scanner: Scanner, path: Path) -> Material:
    """Read the first frames of a clip and follow its faces."""
    source = Source(str(path))
    tracker = FaceTracker(scanner.detector)
    frames: list[Frame] = []
    faces: list[Faces] = []
    with reading(scanner, source) as stream:
        for frame in stream:
            own = replace(frame, image=frame.image.copy())
            frames.append(own)
            faces.append(tracker.update(own))
            if len(frames) == HELD_FRAMES:
                break
    return Material(source, tuple(frames), tuple(faces))


def measure(scanner: Scanner, material: Material, workers: int) -> StageTimes:
    """Time every stage alone, on the threads and cores of the whole.

    Raises:
        ValueError: the clip shows no face, so that there is nothing to refine, crop or classify.
    """
    frames, faces = material.frames, material.faces
    steps = [(frame.image, before.boxes) for frame, before in zip(frames[1:], faces, strict=False) if len(before)]
    shown = [(frame, found) for frame, found in zip(frames, faces, strict=True) if len(found)]
    if not steps:
        raise ValueError(f"{material.source.name} shows no face in its first {len(frames)} sampled frames")
    cut = [scanner.cut(frame, found) for frame, found in shown]

    def decode(_: int) -> int:
        with reading(scanner, material.source) as stream:
            return sum(1 for _ in stream)

    def detect(i: int) -> int:
        scanner.detector.detect([frames[i % len(frames)].image])
        return 1

    def refine(i: int) -> int:
        scanner.detector.refine(*steps[i % len(steps)])
        return 1

    def track(_: int) -> int:
        replay = _ReplayDetector(faces)
        tracker = FaceTracker(replay)
        for position, frame in enumerate(frames):
            replay.position = position
            tracker.update(frame)
        return len(frames)

    def crop(i: int) -> int:
        return len(scanner.cut(*shown[i % len(shown)]))

    with ThreadPoolExecutor(workers) as pool:
        return StageTimes(
            decode_s=_seconds_a_unit(pool, decode, jobs=workers),
            detect_s=_seconds_a_unit(pool, detect, jobs=2 * workers),
            refine_s=_seconds_a_unit(pool, refine, jobs=16 * workers),
            track_s=_seconds_a_unit(pool, track, jobs=workers),
            crop_s=_seconds_a_unit(pool, crop, jobs=16 * workers),
            classify_s=_classify(scanner, cut),
        )


def _seconds_a_unit(pool: ThreadPoolExecutor, job: Callable[[int], int], *, jobs: int) -> float:
    """Run `jobs` jobs at a time for `STAGE_S`; each returns the number of units it did."""
    list(pool.map(job, range(jobs)))  # warm-up: lazily compiled shapes, caches
    units, first = 0, 0
    started = time.perf_counter()
    while (elapsed_s := time.perf_counter() - started) < STAGE_S:
        units += sum(pool.map(job, range(first, first + jobs)))
        first += jobs
    return elapsed_s / units


def _classify(scanner: Scanner, cut: Sequence[Crops]) -> float:
    """Seconds per crop with the engine's queue kept full."""
    for crops in cut[:4]:
        scanner.submit(crops).result()
    waiting: deque[Future[Floats]] = deque()
    crops_done = 0
    started = time.perf_counter()
    for crops in cycle(cut):
        waiting.append(scanner.submit(crops))
        crops_done += len(crops)
        while waiting and waiting[0].done():
            waiting.popleft().result()
        if time.perf_counter() - started > STAGE_S:
            break
    for future in waiting:
        future.result()
    return (time.perf_counter() - started) / crops_done
