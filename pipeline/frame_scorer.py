"""From frames to scores: follow the faces, rate and cut them, submit the crops, collect the scores as they come."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import replace

from models.checkpoint_info import Calibration
from pipeline.faces.flaws import flaw_counts
from pipeline.faces.quality import MIN_QUALITY
from pipeline.faces.tracker import FaceTracker
from pipeline.faces.turns import boxes_back, faces_back, turned
from pipeline.scoring.engine import ScoringError
from pipeline.stage_times import StageTimes
from pipeline.types import Crops, Faces, Floats, Frame, Scores
from pipeline.verdict.calibration import probability


class FrameScorer:
    """Scores the frames of one clip, or of one segment of a stream; belongs to one thread.

    Attributes:
        frames: frames that were added.
        faces: faces seen in them, scored or not.
        not_judged: number of faces with each flaw.
        error: of the first crop that could not be scored, or None.
        times: of the stages "faces", "queue" (until the engine takes the crops), "score" (of the last crops), and what
            `timed` measures.
    """

    def __init__(
        self,
        clip_id: str,
        tracker: FaceTracker,
        *,
        cut: Callable[[Frame, Faces], Crops],
        submit: Callable[[Crops], Future[Floats]],
        calibration: Calibration | None,
        scored: Callable[[Crops, Scores], None] = lambda crops, scores: None,
        turn: int = 0,
    ) -> None:
        """Start without frames.

        Args:
            clip_id: of the scores.
            tracker: of the clip or stream; it must see the frames in order.
            cut: cuts the crops of a frame's faces.
            submit: queues crops; the future holds log-odds of fake, or raises ScoringError.
            calibration: from log-odds and quality to P(fake).
            scored: called with crops and their scores, in the order of the frames.
            turn: degrees clockwise by which frames are turned first; boxes are given in the frame as it came.
        """
        self._clip_id, self._tracker = clip_id, tracker
        self._cut, self._submit, self._calibration, self._scored = cut, submit, calibration, scored
        self.turn = turn
        self._waiting: deque[tuple[Crops, Future[Floats]]] = deque()
        self._collected: list[Scores] = []
        self.frames = 0
        self.faces = 0
        self.not_judged: Counter[str] = Counter()
        self.error: ScoringError | None = None
        self.times = StageTimes()

    def add(self, frame: Frame, *, labelled: Frame | None = None) -> tuple[Faces, int]:
        """Find the faces of a frame and submit those that are good enough. Collects scores that are ready.

        Args:
            frame: as the tracker sees it; its times must increase.
            labelled: the same image with the time and number that its scores get; None: those of `frame`.

        Returns:
            All faces of the frame, and how many of them are scored.
        """
        self.frames += 1
        self.times.counts["frames"] += 1
        crops = None
        height, width = frame.image.shape[:2]
        with self.timed("faces"):
            if self.turn:
                upright = turned(frame.image, self.turn)
                frame = replace(frame, image=upright)
                labelled = None if labelled is None else replace(labelled, image=upright)
            faces = self._tracker.update(frame)
            self.faces += len(faces)
            self.times.counts["faces"] += len(faces)
            self.not_judged += flaw_counts(faces.flaws)
            good = faces.take(faces.quality >= MIN_QUALITY)
            if len(good):
                crops = self._cut(labelled or frame, good)
                if self.turn:
                    crops = replace(crops, boxes=boxes_back(crops.boxes, self.turn, width, height))
        if crops is not None:
            self.times.counts["crops"] += len(good)
            with self.timed("queue"):
                # Crops that wait for their scores need no views any more.
                self._waiting.append((replace(crops, views=()), self._submit(crops)))
        while self._waiting and self._waiting[0][1].done():
            self._collect_next()
        return faces_back(faces, self.turn, width, height), len(good)

    def so_far(self) -> Scores:
        """The scores that have come, in the order of the frames."""
        return Scores.join(self._clip_id, self._collected)

    def finish(self) -> Scores:
        """All scores, once the last ones have come; `error` says whether some are missing."""
        with self.timed("score"):
            while self._waiting:
                self._collect_next()
        return Scores.join(self._clip_id, self._collected)

    def timed(self, stage: str) -> AbstractContextManager[None]:
        """Add the time of a block to a stage."""
        return self.times.timed(stage)

    def _collect_next(self) -> None:
        crops, future = self._waiting.popleft()
        try:
            logits = future.result()
        except ScoringError as error:
            self.error = self.error or error
            return
        scores = Scores.of(crops, logits, probability(logits, self._calibration, crops.quality))
        self._collected.append(scores)
        self._scored(crops, scores)
