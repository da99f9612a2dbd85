"""Square pixels: what a picture with another pixel aspect is scaled to."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Final

# Beyond, a file is wrong: the widest in use are those of anamorphic film, 2, and of halved fields, 1/2.
MAX_ASPECT: Final = 4
# Closer to 1, a picture keeps its pixels: broadcast sizes are rounded to whole macroblocks.
_SQUARE = 0.01


def used_aspect(aspect: Fraction | None) -> float:
    """Width over height of a stored pixel as it is used: 1 where it is unknown, invalid or nearly 1."""
    if aspect is None or aspect <= 0 or not 1 / MAX_ASPECT <= aspect <= MAX_ASPECT or abs(aspect - 1) < _SQUARE:
        return 1.0
    return float(aspect)


def square_size(width: int, height: int, aspect: Fraction | None, max_pixels: int) -> tuple[int, int]:
    """Size with square pixels: the side that is too short grows, so that no pixel is lost.

    Args:
        width: stored, px.
        height: stored, px.
        aspect: width over height of a stored pixel.
        max_pixels: of the result; where growing would pass it, the other side shrinks instead.
    """
    used = used_aspect(aspect)
    if used == 1.0:
        return width, height
    grown = (round(width * used), height) if used > 1 else (width, round(height / used))
    if math.prod(grown) <= max_pixels:
        return max(1, grown[0]), max(1, grown[1])
    shrunk = (width, round(height / used)) if used > 1 else (round(width * used), height)
    return max(1, shrunk[0]), max(1, shrunk[1])
