"""People who lie on their side or stand on their head in a whole clip: which turn of its frames makes them upright.

Face detectors know upright faces. A phone that was held another way than its file says gives a clip without any face,
or with faces whose landmarks are read upside down.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import cv2
import numpy as np

from pipeline.faces.detector import FaceDetector
from pipeline.faces.quality import MIN_QUALITY
from pipeline.types import Faces, Floats, Image

# Degrees clockwise, the most frequent first.
TURNS: Final = (180, 90, 270)
_CODES: Final = {180: cv2.ROTATE_180, 90: cv2.ROTATE_90_CLOCKWISE, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
# Faces that are compared with themselves turned. On six real clips and one turned by 180 degrees, the mean of MTCNN's
# score over five faces was .994 to .999 for the upright ones, and .02 or more below that for the others.
_FACES: Final = 5
_BETTER: Final = 0.005
# Frames without a face that are searched in other turns, and their longer side in px.
_FRAMES: Final = 5
_SEARCH_PX: Final = 1280


def turned(image: Image, turn: int) -> Image:
    """The image, turned clockwise by 0, 90, 180 or 270 degrees."""
    return image if turn == 0 else np.ascontiguousarray(cv2.rotate(image, _CODES[turn]))


def boxes_back(boxes: Floats, turn: int, width: int, height: int) -> Floats:
    """Boxes in a turned frame as boxes in the frame.

    Args:
        boxes: float32 [N, 4], x0 y0 x1 y1.
        turn: of the frame.
        width: of the frame before the turn, px.
        height: likewise.
    """
    x0, y0, x1, y1 = boxes.T
    match turn:
        case 90:
            columns = (y0, height - x1, y1, height - x0)
        case 180:
            columns = (width - x1, height - y1, width - x0, height - y0)
        case 270:
            columns = (width - y1, x0, width - y0, x1)
        case _:
            columns = (x0, y0, x1, y1)
    return np.stack(columns, axis=1).astype(np.float32)


class TurnFinder:
    """Watches the frames of a clip as they are, and finds the turn that its people need."""

    def __init__(self, detector: FaceDetector) -> None:
        """With the detector of the clip."""
        self._detector = detector
        # Scores of each face: as it is, and in each turn.
        self._scores: list[tuple[float, ...]] = []
        self._without: list[Image] = []
        self._frames = 0
        self._any_face = False

    def look(self, image: Image, faces: Faces) -> bool:
        """Take a frame in; returns whether it is certain by now that people are not upright."""
        self._frames += 1
        self._any_face = self._any_face or len(faces) > 0
        if not len(faces):
            # At growing distances, since the length of the clip may be unknown.
            if not self._any_face and self._frames & (self._frames + 1) == 0 and len(self._without) < _FRAMES:
                self._without.append(_small(image))
            return False
        if len(self._scores) < _FACES and faces.quality.max() >= MIN_QUALITY:
            best = faces.take(np.array([int(faces.quality.argmax())]))
            self._scores.append((float(best.scores[0]), *self._scores_turned(image, best.boxes[0])))
        return self.is_certain and self._compared() != 0

    @property
    def is_certain(self) -> bool:
        """Whether enough faces were compared; what has no faces may show some later."""
        return len(self._scores) == _FACES

    def turn(self) -> int:
        """Degrees clockwise that make people upright; 0 if they are, or if there are none."""
        if turn := self._compared():
            return turn
        if self._any_face or not self._without:
            return 0
        found = {turn: self._searched(turn) for turn in TURNS}
        best = max(TURNS, key=lambda turn: found[turn])
        return best if found[best] >= min(2, len(self._without)) else 0

    def _compared(self) -> int:
        """The turn in which the faces look clearly more like faces; 0 without one."""
        if not self._scores:
            return 0
        upright, *others = np.mean(self._scores, axis=0)
        best = int(np.argmax(others))
        return TURNS[best] if others[best] > upright + _BETTER else 0

    def _scores_turned(self, image: Image, box: Floats) -> list[float]:
        """The detector's scores of a face in its surroundings, in each turn."""
        height, width = image.shape[:2]
        margin = float(max(box[2] - box[0], box[3] - box[1]))
        left, top = (max(0, int(start - margin)) for start in box[:2])
        right, bottom = min(width, int(box[2] + margin)), min(height, int(box[3] + margin))
        around = np.ascontiguousarray(image[top:bottom, left:right])
        if 0 in around.shape:
            return [0.0] * len(TURNS)
        shifted = (box - np.array([left, top, left, top], np.float32))[None]
        scores = []
        for turn in TURNS:
            other = turned(around, turn)
            # The turn back is a turn, too.
            there = boxes_back(shifted, (360 - turn) % 360, other.shape[1], other.shape[0])
            scores.append(float(self._detector.refine(other, there).scores[0]))
        return scores

    def _searched(self, turn: int) -> float:
        """In how many of the frames there is a face when they are turned."""
        return sum(len(faces) > 0 for faces in self._detector.detect([turned(image, turn) for image in self._without]))


def _small(image: Image) -> Image:
    scale = _SEARCH_PX / max(image.shape[:2])
    if scale >= 1:
        return image.copy()
    return np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))


def faces_back(faces: Faces, turn: int, width: int, height: int) -> Faces:
    """Faces whose boxes are those in the frame before the turn; the landmarks stay in the turned one."""
    return faces if turn == 0 else replace(faces, boxes=boxes_back(faces.boxes, turn, width, height))
