"""Compares refinement with full detection on a clip: faces kept, accuracy, time saved."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from pipeline.faces.boxes import iou
from pipeline.faces.detector import FaceDetector
from pipeline.types import Faces, Frame

# Two boxes in two frames are the same face from this overlap on; less is chance.
SAME_FACE_IOU = 0.1
# A face is kept if the refinement reaches this score, and this IoU with the full detection's box.
KEPT_SCORE, KEPT_IOU = 0.7, 0.5


@dataclass(frozen=True, slots=True)
class RefineRow:
    """Refinement over one gap in time.

    Attributes:
        gap_s: shortest time between the frame that was searched and the one in which its faces were refined.
        frames: pairs of frames compared.
        faces: faces that a full detection finds in both frames of a pair, overlapping.
        kept: those of them that refinement finds too: score > 0.7, IoU with the full detection > 0.5.
        mean_iou: of the kept faces; None without any.
        detect_ms: median time of a full detection.
        refine_ms: median time of refining all faces of a frame; None if there was nothing to refine.
    """

    gap_s: float
    frames: int
    faces: int
    kept: int
    mean_iou: float | None
    detect_ms: float
    refine_ms: float | None


def compare_refine(frames: Iterable[Frame], detector: FaceDetector, gaps_s: Sequence[float]) -> list[RefineRow]:
    """Follow the faces of a clip over several gaps, by refinement and by a new detection.

    Args:
        frames: in order of time; each image is used only until the next frame is read.
        detector: any.
        gaps_s: seconds, each positive; one row each comes back, in this order.

    Raises:
        ValueError: a gap is not positive, or there are no frames.
    """
    if min(gaps_s, default=1.0) <= 0:
        raise ValueError(f"gaps must be positive, got {list(gaps_s)}")
    walks = [_Walk(gap_s) for gap_s in gaps_s]
    detect_ms: list[float] = []
    for frame in frames:
        due = [walk for walk in walks if walk.is_due(frame.t_s)]
        if due:
            start = time.perf_counter()
            found = detector.detect([frame.image])[0]
            detect_ms.append((time.perf_counter() - start) * 1e3)
            for walk in due:
                walk.step(frame, found, detector)
    if not detect_ms:
        raise ValueError("there are no frames to compare on")
    return [walk.row(median(detect_ms)) for walk in walks]


class _Walk:
    """One gap: from a searched frame to the first one at least `gap_s` later, then from that one."""

    def __init__(self, gap_s: float) -> None:
        self._gap_s = gap_s
        self._before: tuple[float, Faces] | None = None
        self._frames = self._faces = 0
        self._ious: list[float] = []
        self._refine_ms: list[float] = []

    def is_due(self, t_s: float) -> bool:
        return self._before is None or t_s - self._before[0] >= self._gap_s - 1e-3

    def step(self, frame: Frame, found: Faces, detector: FaceDetector) -> None:
        if self._before is not None:
            self._frames += 1
            self._compare(frame, self._before[1], found, detector)
        self._before = (frame.t_s, found)

    def _compare(self, frame: Frame, before: Faces, found: Faces, detector: FaceDetector) -> None:
        if not len(before):
            return
        start = time.perf_counter()
        refined = detector.refine(frame.image, before.boxes)
        self._refine_ms.append((time.perf_counter() - start) * 1e3)
        if not len(found):
            return
        overlap = iou(before.boxes, found.boxes)
        both = overlap.max(axis=1) > SAME_FACE_IOU
        now = np.diagonal(iou(refined.boxes, found.boxes[overlap.argmax(axis=1)]))
        self._faces += int(both.sum())
        self._ious += now[both & (refined.scores > KEPT_SCORE) & (now > KEPT_IOU)].tolist()

    def row(self, detect_ms: float) -> RefineRow:
        kept = len(self._ious)
        return RefineRow(
            gap_s=self._gap_s,
            frames=self._frames,
            faces=self._faces,
            kept=kept,
            mean_iou=sum(self._ious) / kept if kept else None,
            detect_ms=detect_ms,
            refine_ms=median(self._refine_ms) if self._refine_ms else None,
        )
