"""Vector graphics of the PDF: a person's timeline, and the scale of the probability."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from reportlab.graphics.shapes import Circle, Drawing, Line, Path, Polygon, Rect, String
from reportlab.lib.colors import white

from pipeline.clip_report import AppliedThresholds
from pipeline.results.clip_view import PersonView
from pipeline.results.wording import probability_text, tick_text
from web.evidence.pdf_text import FAKE, FAKE_WASH, INK, RAISED, REAL_WASH, RULE, SANS, SOFT

# Of the dots by quality class, worst first, in points.
_DOTS_PT: Final = (0.7, 1.0, 1.4, 1.9)
_LEFT_PT, _BELOW_PT, _ABOVE_PT = 16.0, 20.0, 4.0
_STEP: Final = re.compile(r"([MLZ])(?:(-?[\d.]+) (-?[\d.]+))?")


def timeline_drawing(
    view: PersonView, thresholds: AppliedThresholds | None, *, width_pt: float, height_pt: float = 74
) -> Drawing:
    """Probability over time, as the HTML report draws it.

    Args:
        view: a person with a timeline.
        thresholds: of the clip; None: not known.
        width_pt: of the drawing, in points.
        height_pt: likewise.
    """
    line = view.timeline
    assert line is not None
    drawing = Drawing(width_pt, height_pt)
    left, bottom = _LEFT_PT, _BELOW_PT
    wide, high = width_pt - left - 6, height_pt - bottom - _ABOVE_PT

    def x_of(percent: float) -> float:
        return left + wide * percent / 100

    def y_of(probability: float) -> float:
        return bottom + high * probability

    def area(x: float, y: float, width: float, height: float, colour: object) -> None:
        drawing.add(Rect(x, y, width, height, fillColor=colour, strokeColor=None))

    if thresholds is not None:
        area(left, y_of(thresholds.fake), wide, high * (1 - thresholds.fake), FAKE_WASH)
        area(left, bottom, wide, high * thresholds.real, REAL_WASH)
    for start, width in line.unseen:
        area(x_of(start), bottom, wide * width / 100, high, RAISED)
        _hatch(drawing, x_of(start), bottom, wide * width / 100, high)
    for segment in view.segments:
        start, end = line.x_of(segment.from_s), line.x_of(segment.to_s)
        drawing.add(
            Rect(x_of(start), bottom, max(wide * (end - start) / 100, 1.5), high, fillColor=None, strokeColor=FAKE,
                 strokeWidth=0.8)
        )  # fmt: skip
    for level, name in ((0.0, "0"), (0.5, "½"), (1.0, "1")):
        drawing.add(Line(left, y_of(level), left + wide, y_of(level), strokeColor=RULE, strokeWidth=0.4))
        drawing.add(_string(left - 4, y_of(level) - 2, name, "end"))
    if thresholds is not None:
        for level in (thresholds.real, thresholds.fake):
            drawing.add(
                Line(left, y_of(level), left + wide, y_of(level), strokeColor=SOFT, strokeWidth=0.5,
                     strokeDashArray=[2, 2])
            )  # fmt: skip
    for x, seconds in line.ticks:
        drawing.add(Line(x_of(x), bottom, x_of(x), bottom - 2, strokeColor=SOFT, strokeWidth=0.4))
        anchor = "start" if x < 2 else "end" if x > 97 else "middle"
        drawing.add(_string(x_of(x), bottom - 17, tick_text(seconds), anchor))
    scale = (left, bottom, wide, high)
    if line.envelope:
        drawing.add(_path(line.envelope, scale, fillColor=RULE, strokeColor=None))
    drawing.add(_path(line.line, scale, fillColor=None, strokeColor=INK if line.envelope else SOFT, strokeWidth=0.7))
    for dots, size_pt in zip(line.dots, _DOTS_PT, strict=False):
        for _, x, y in _points(dots, scale):
            drawing.add(Circle(x, y, size_pt, fillColor=INK, strokeColor=None))
    for shot in view.suspicious:
        x = x_of(line.x_of(shot.t_s))
        drawing.add(
            Polygon([x, bottom - 2, x - 3, bottom - 8, x + 3, bottom - 8], fillColor=FAKE, strokeColor=white,
                    strokeWidth=0.3)
        )  # fmt: skip
    return drawing


def scale_drawing(probability: float, thresholds: AppliedThresholds | None, *, width_pt: float) -> Drawing:
    """The probability of the clip between 0 and 1, with the thresholds if they are known."""
    drawing = Drawing(width_pt, 34)
    inset = 6.0
    wide = width_pt - 2 * inset
    drawing.add(Rect(inset, 14, wide, 7, fillColor=RAISED, strokeColor=RULE, strokeWidth=0.4))
    ends: Sequence[float] = (0.0, 1.0)
    if thresholds is not None:
        drawing.add(Rect(inset, 14, wide * thresholds.real, 7, fillColor=REAL_WASH, strokeColor=None))
        start = inset + wide * thresholds.fake
        drawing.add(Rect(start, 14, wide * (1 - thresholds.fake), 7, fillColor=FAKE_WASH, strokeColor=None))
        # An end of the scale gives way to a threshold next to it.
        ends = [*([0.0] if thresholds.real > 0.08 else []), *([1.0] if thresholds.fake < 0.9 else [])]
        ends = [*ends, thresholds.real, thresholds.fake]
    for value in ends:
        x = inset + wide * value
        anchor = "start" if value < 0.02 else "end" if value > 0.95 else "middle"
        text = f"{value:g}" if value in (0.0, 1.0) else probability_text(value)
        drawing.add(_string(min(max(x, inset), inset + wide), 4, text, anchor))
    x = inset + wide * probability
    drawing.add(
        Polygon([x, 13, x - 4, 22, x - 4, 30, x + 4, 30, x + 4, 22], fillColor=INK, strokeColor=white, strokeWidth=0.6)
    )
    return drawing


def _hatch(drawing: Drawing, x: float, y: float, width: float, height: float) -> None:
    """Lines at 45 degrees within an area."""
    step = 5.0
    start = -height
    while start < width:
        # y - y0 = (x - x0) - start, cut off at the area's edges.
        x0, x1 = max(0.0, start), min(width, start + height)
        if x1 > x0:
            drawing.add(Line(x + x0, y + x0 - start, x + x1, y + x1 - start, strokeColor=RULE, strokeWidth=0.5))
        start += step


def _string(x: float, y: float, text: str, anchor: str) -> String:
    return String(x, y, text, fontName=SANS, fontSize=6.5, fillColor=SOFT, textAnchor=anchor)


def _path(data: str, scale: tuple[float, float, float, float], **style: object) -> Path:
    path = Path(**style)
    for command, x, y in _points(data, scale):
        if command == "M":
            path.moveTo(x, y)
        elif command == "L":
            path.lineTo(x, y)
        else:
            path.closePath()
    return path


def _points(data: str, scale: tuple[float, float, float, float]) -> list[tuple[str, float, float]]:
    """Commands of path data of `Timeline` (view box 1000 x 100, y down), in points."""
    left, bottom, wide, high = scale
    found = []
    for command, x, y in _STEP.findall(data):
        if command == "Z":
            found.append((command, 0.0, 0.0))
        else:
            found.append((command, left + wide * float(x) / 1000, bottom + high * (1 - float(y) / 100)))
    return found
