"""What a scene and a face look like, in a few hundred numbers: enough to notice a cut and a change of person."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.faces.boxes import grown, squares
from pipeline.faces.pyramid import Pyramid
from pipeline.types import Floats, Image

# Of the frame, in px: 2,304 samples are plenty for a histogram, and take 10 us at any resolution.
_SCENE_PX = (64, 36)
_BINS = 16
# A cut moves this part of the colour histogram, or this many levels (of 255) on average. Frames of one shared clip,
# 0.1 to 2 s apart and some from moving cameras, differ by at most 0.15 and 47; frames of two by at least 0.22 and 44.
_CUT_HISTOGRAM, _CUT_LEVELS = 0.18, 48.0
# Of a face, in px, and the context around it, in parts of its longer side: hair and collar help to distinguish people.
_FACE_PX, _FACE_SCALE = 16, 1.4


class SceneCut:
    """Detects scene cuts between consecutive frames."""

    def __init__(self) -> None:
        self._last: tuple[Floats, Floats] | None = None

    def update(self, image: Image) -> bool:
        """Whether there was a cut just before this frame, uint8 [H, W, 3]; never before the first."""
        small = cv2.resize(image, _SCENE_PX, interpolation=cv2.INTER_LINEAR)
        last, self._last = self._last, _scene(small)
        if last is None:
            return False
        levels, colours = (float(np.abs(now - before).sum()) for now, before in zip(self._last, last, strict=True))
        return colours / 2 > _CUT_HISTOGRAM or levels / small.size > _CUT_LEVELS

    @property
    def seen(self) -> Image | None:
        """The state: the last frame scaled down, uint8 [36, 64, 3]; None before the first."""
        return None if self._last is None else self._last[0].astype(np.uint8)

    @classmethod
    def after(cls, seen: Image | None) -> SceneCut:
        """Resume from the `seen` of another instance."""
        scene = cls()
        scene._last = None if seen is None else _scene(seen)
        return scene


def _scene(small: Image) -> tuple[Floats, Floats]:
    bins = (small.reshape(-1, 3) // (256 // _BINS)) + np.arange(3, dtype=np.uint8) * _BINS
    histogram = np.bincount(bins.ravel(), minlength=3 * _BINS).astype(np.float32) / bins.size
    return small.astype(np.float32), np.asarray(histogram, np.float32)


def face_appearance(image: Image, box: Floats) -> Floats:
    """The face as a unit vector: `a @ b` is the colour correlation of two faces, -1..1.

    Args:
        image: uint8 [H, W, 3].
        box: float32 [4], x0 y0 x1 y1.

    Returns:
        float32 [768], of mean 0 and length 1 (or all 0, where the picture is plain).
    """
    square = grown(squares(box[None]), _FACE_SCALE)
    patch = Pyramid.around(image, square[0]).patches(square, _FACE_PX).astype(np.float32).ravel()
    patch -= patch.mean()
    return patch / max(float(np.linalg.norm(patch)), 1e-6)
