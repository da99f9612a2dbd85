"""A stage with people at positions that a test sets, and a detector that finds exactly the visible ones."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from pipeline.faces.boxes import iou
from pipeline.types import Faces, Floats, Frame, Image

Box = tuple[float, float, float, float]
SIZE = (640, 360)  # width, height


def at(x: float, y: float = 150.0, size: float = 80.0) -> Box:
    """The box of a face of this size with this centre."""
    return x - size / 2, y - size / 2, x + size / 2, y + size / 2


class Stage:
    """Paints people as squares of their own pattern, and is the detector that finds them.

    Attributes:
        calls: "detect" and "refine" in their order, for the last frame.
        hidden_from_refine: people that refinement cannot find, as if they had moved too far.
    """

    name = "stage"

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.hidden_from_refine: set[str] = set()
        self._there: list[tuple[str, Box]] = []

    def frame(self, t_s: float, people: Mapping[str, Box], background: int = 90, flash: bool = False) -> Frame:
        """The next frame. People whose names end in "-" are painted but not found: their heads are turned away."""
        self.calls = []
        self._there = [(who, box) for who, box in people.items() if not who.endswith("-")]
        image = np.full((SIZE[1], SIZE[0], 3), background, np.uint8)
        for who, box in people.items():
            x0, y0, x1, y1 = (round(v) for v in box)
            view = image[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
            if view.size:
                view[:] = cv2.resize(_pattern(who.rstrip("-")), (view.shape[1], view.shape[0]))
        if flash:
            image = image // 2 + 128
        return Frame(image, t_s, round(t_s * 1000), "stage")

    def detect(self, images: Sequence[Image]) -> list[Faces]:
        self.calls.append("detect")
        return [_faces([box for _, box in self._there]) for _ in images]

    def refine(self, image: Image, boxes: Floats) -> Faces:
        self.calls.append("refine")
        near = [box for who, box in self._there if who not in self.hidden_from_refine]
        overlap = iou(boxes, _faces(near).boxes)
        gone = overlap.max(axis=1, initial=0.0) <= 0.2
        pairs = zip(gone, overlap, boxes, strict=True)
        faces = _faces([tuple(box) if lost else near[row.argmax()] for lost, row, box in pairs])
        faces.scores[gone] = 0
        return faces


def _faces(boxes: Sequence[Box]) -> Faces:
    corners = np.array(boxes, np.float32).reshape(-1, 2, 2)
    parts = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.55], [0.35, 0.75], [0.65, 0.75]], np.float32)
    landmarks = corners[:, None, 0] + parts * (corners[:, 1] - corners[:, 0])[:, None]
    return Faces.of(corners.reshape(-1, 4), np.full(len(boxes), 0.99, np.float32), landmarks)


def _pattern(who: str) -> Image:
    return np.random.default_rng(zlib.crc32(who.encode())).integers(0, 256, (6, 6, 3), np.uint8)
