"""An image pyramid: patches and scaled copies of any size at low cost."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.types import Floats, Image


class Pyramid:
    """Copies of a picture at scale 1, 1/2, 1/4 ..., each made when it is first needed.

    Halving takes the mean of 2x2 pixels, so nothing aliases; an odd last row or column falls off. The rest, a
    factor between 1/2 and 1, is bilinear. OpenCV's INTER_AREA is slow at non-integer factors: 1080p to 0.3 of its size
    takes 6.5 ms, and 0.7 ms this way.

    Args:
        image: uint8 [H, W, 3].
        origin: x, y of the picture's first pixel in the caller's coordinates.
    """

    def __init__(self, image: Image, origin: tuple[int, int] = (0, 0)) -> None:
        self._octaves = [image]
        self._origin = origin

    @classmethod
    def around(cls, image: Image, square: Floats, reach: float = 0.0) -> Pyramid:
        """A pyramid of the neighbourhood of a square (x0 y0 side) only, which is cheap to halve.

        Args:
            image: uint8 [H, W, 3].
            square: float32 [3], in px of the image; may be outside.
            reach: how far patches may move from it, in parts of its side. Anything farther is black.
        """
        x0, y0, side = square.tolist()
        left, right = _span(x0 - reach * side, x0 + (1 + reach) * side, image.shape[1])
        top, bottom = _span(y0 - reach * side, y0 + (1 + reach) * side, image.shape[0])
        return cls(image[top:bottom, left:right], (left, top))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the whole picture, px."""
        h, w = self._octaves[0].shape[:2]
        return h, w

    def scaled(self, scale: float) -> tuple[Image, Floats]:
        """The whole picture at `scale` (at most 1), and its exact scale along x and y, float32 [2]."""
        source, n = self._octave(-np.log2(scale))
        h, w = self.size
        size = (max(1, round(w * scale)), max(1, round(h * scale)))
        covered = (source.shape[1] << n, source.shape[0] << n)
        if size != (source.shape[1], source.shape[0]):
            source = cv2.resize(source, size, interpolation=cv2.INTER_LINEAR)
        return source, np.divide(size, covered, dtype=np.float32)

    def patches(self, around: Floats, size: int) -> Image:
        """Cut squares [N, 3] (x0 y0 side, in source pixels, exact below the pixel) to uint8 [N, size, size, 3].

        Pixels outside the picture are black.
        """
        out = np.zeros((len(around), size, size, 3), np.uint8)
        for patch, (x0, y0, side) in zip(out, around.tolist(), strict=True):
            step = max(side, 1.0) / size
            source, n = self._octave(np.log2(step))
            step /= 1 << n
            # Pixel centres are at half coordinates in source and result.
            shift_x = (x0 - self._origin[0]) / (1 << n) + step / 2 - 0.5
            shift_y = (y0 - self._origin[1]) / (1 << n) + step / 2 - 0.5
            to_source = np.array([[step, 0, shift_x], [0, step, shift_y]])
            cv2.warpAffine(source, to_source, (size, size), dst=patch, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        return out

    def _octave(self, halvings: float) -> tuple[Image, int]:
        """The picture halved as often as asked (rounded down) or as possible, and the number of halvings."""
        # 1e-6: a scale of exactly 1/4 may come out as 1.9999999 halvings.
        wanted = max(0, int(np.floor(halvings + 1e-6)))
        while len(self._octaves) <= wanted and min(self._octaves[-1].shape[:2]) > 1:
            last = self._octaves[-1]
            h, w = last.shape[0] // 2, last.shape[1] // 2
            self._octaves.append(cv2.resize(last[: 2 * h, : 2 * w], (w, h), interpolation=cv2.INTER_AREA))
        n = min(wanted, len(self._octaves) - 1)
        return self._octaves[n], n


def _span(low: float, high: float, length: int) -> tuple[int, int]:
    """The pixels from `low` to `high` that exist; at least one."""
    start = min(max(int(low), 0), length - 1)
    return start, max(min(int(high) + 2, length), start + 1)
