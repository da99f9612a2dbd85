"""The picture of an explanation: the crop, with the map over it."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from pipeline.explain.explanation import Explanation
from pipeline.types import Image

# Sharp on a dense screen at twice the width of a portrait in the report.
PICTURE_PX: Final = 384
# Orange over blue-grey differs in lightness too, for those who do not see the hue.
_HOT: Final = np.array([255, 140, 0], np.float32)
_STRONGEST: Final = 0.55
_LINE: Final = (255, 255, 255)


def draw_map(picture: Image, explanation: Explanation) -> bytes:
    """PNG of the crop in grey with what was marked in colour and outlined.

    Args:
        picture: uint8 [S, S, 3], RGB.
        explanation: of it, which holds.

    Raises:
        ValueError: it does not hold: such a map shows what is not so.
    """
    if not explanation.holds:
        raise ValueError("a map that does not hold is not shown")
    size = (PICTURE_PX, PICTURE_PX)
    grey = cv2.cvtColor(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC), cv2.COLOR_RGB2GRAY)
    shown = np.repeat(grey[..., None], 3, axis=2).astype(np.float32)
    heat = cv2.resize(explanation.heat * explanation.area, size, interpolation=cv2.INTER_LINEAR)
    shown += (_HOT - shown) * (_STRONGEST * heat)[..., None]
    drawn = np.rint(np.clip(shown, 0, 255)).astype(np.uint8)
    outline = cv2.resize(explanation.area.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(outline, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, contours, -1, (0, 0, 0), 4)
    cv2.drawContours(drawn, contours, -1, _LINE, 2)
    done, png = cv2.imencode(".png", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
    if not done:
        raise ValueError("OpenCV could not encode the picture as PNG")
    return bytes(png.tobytes())
