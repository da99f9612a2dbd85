"""The geometry of one person's timeline: probability over time, decimated, with the gaps made visible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
import numpy.typing as npt

from pipeline.contracts import ScoredFace

# A chart is at most about 1000 CSS px wide: a pair of points every four of them.
MAX_POINTS = 480
# A person counts as not seen when this many sampling steps pass without a scored face: more than one, less
# than two, so that one missed sample shows and jitter of the time stamps does not.
GAP_STEPS = 1.75
# Narrower gaps (in % of the chart's width) would be specks; the line is still broken there.
MIN_GAP_PERCENT = 0.4
# Upper edges of the quality classes by which dots grow.
QUALITY_EDGES = (0.25, 0.5, 0.75)
TICK_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
MAX_TICKS = 6

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Timeline:
    """What the page needs to draw one person's chart.

    Paths are SVG path data in a view box of 1000 x 100, y down; x and widths are in % of the chart's width.

    Attributes:
        faces: the scored faces with a tooltip, by time.
        total: scored faces before decimation.
        line: path of the probability; of its mean over short stretches where faces are too many to draw. Broken
            where the person was not seen.
        envelope: area between the lowest and the highest probability of each stretch; empty where all are drawn.
        dots: for each quality class, worst first, the path whose round caps are its dots; empty with an envelope.
        unseen: (x, width) of the stretches without a scored face.
        ticks: (x, seconds) of the time axis.
        span_s: length of the time axis.
    """

    faces: tuple[ScoredFace, ...]
    total: int
    line: str
    envelope: str
    dots: tuple[str, ...]
    unseen: tuple[tuple[float, float], ...]
    ticks: tuple[tuple[float, float], ...]
    span_s: float

    def x_of(self, t_s: float) -> float:
        """Position of a time on the axis, in % of its width."""
        return _percent(t_s, self.span_s)

    @property
    def columns(self) -> dict[str, list[float]]:
        """The drawn faces as columns for the page's script: x in %, seconds, probability, quality, index."""
        return {
            "x": [round(self.x_of(face.t_s), 2) for face in self.faces],
            "t": [round(face.t_s, 3) for face in self.faces],
            "p": [_rounded(face.probability) for face in self.faces],
            "q": [round(face.quality, 2) for face in self.faces],
            "i": [face.index for face in self.faces],
        }


def timeline_of(faces: Sequence[ScoredFace], *, span_s: float, step_s: float) -> Timeline:
    """The timeline of one track.

    Args:
        faces: scored faces of the track, at least one, in any order.
        span_s: length of the time axis in seconds; 0 for a still image.
        step_s: usual time between two sampled frames of the clip; 0 where there was only one.
    """
    ordered = sorted(faces, key=lambda face: face.t_s)
    t_s = np.array([face.t_s for face in ordered])
    probability = np.array([face.probability for face in ordered])
    stretches = stretches_of(t_s, MAX_POINTS // 2) if len(t_s) > MAX_POINTS else []
    kept = extremes(probability, stretches) if stretches else list(range(len(ordered)))
    x = np.array([_percent(t, span_s) for t in t_s]) * 10
    y = 100 * (1 - probability)
    line, envelope = _line_of_stretches(x, y, stretches) if stretches else (_line(x, y, t_s, step_s), "")
    return Timeline(
        faces=tuple(ordered[i] for i in kept),
        total=len(ordered),
        line=line,
        envelope=envelope,
        dots=() if stretches else _dots(x, y, [face.quality for face in ordered]),
        unseen=_unseen(t_s, span_s, step_s),
        ticks=_ticks(span_s),
        span_s=span_s,
    )


def sampling_step_s(times_s: Doubles, judged_s: float | None, frames_sampled: int) -> float:
    """Usual time between two sampled frames, from the times that were scored and the count that was sampled.

    Scored times alone would overestimate the step of a clip with few faces.
    """
    steps = np.diff(np.unique(times_s))
    median_s = float(np.median(steps)) if len(steps) else 0.0
    if judged_s and frames_sampled:
        even_s = judged_s / frames_sampled
        return min(median_s, even_s) if median_s else even_s
    return median_s


def stretches_of(t_s: Doubles, count: int) -> list[slice | None]:
    """Split ascending times into `count` stretches of equal length: their slices, None for an empty one."""
    edges = np.linspace(t_s[0], t_s[-1], count + 1)
    starts = [*np.searchsorted(t_s, edges[:-1], side="left").tolist(), len(t_s)]
    return [slice(start, end) if end > start else None for start, end in pairwise(starts)]


def extremes(values: Doubles, stretches: Sequence[slice | None]) -> list[int]:
    """Ascending indices of the lowest and the highest value of each stretch: extremes are never lost."""
    filled = [stretch for stretch in stretches if stretch is not None]
    lowest = [stretch.start + int(values[stretch].argmin()) for stretch in filled]
    highest = [stretch.start + int(values[stretch].argmax()) for stretch in filled]
    return sorted({*lowest, *highest})


def _line(x: Doubles, y: Doubles, t_s: Doubles, step_s: float) -> str:
    gaps = np.diff(t_s, prepend=-np.inf) > (GAP_STEPS * step_s or np.inf)
    gaps[0] = True
    return "".join(f"{'M' if gap else 'L'}{px:.1f} {py:.1f}" for px, py, gap in zip(x, y, gaps, strict=True))


def _dots(x: Doubles, y: Doubles, quality: Sequence[float]) -> tuple[str, ...]:
    dots = [""] * (len(QUALITY_EDGES) + 1)
    for px, py, level in zip(x, y, np.searchsorted(QUALITY_EDGES, quality), strict=True):
        dots[int(level)] += f"M{px:.1f} {py:.1f}h0"
    return tuple(dots)


def _line_of_stretches(x: Doubles, y: Doubles, stretches: Sequence[slice | None]) -> tuple[str, str]:
    """The path of the means, and the area between lowest and highest, of each unbroken row of stretches."""
    line, envelope = "", ""
    for filled, row in groupby(stretches, key=lambda stretch: stretch is not None):
        if not filled:
            continue
        parts = [stretch for stretch in row if stretch is not None]
        mid = [float(x[part].mean()) for part in parts]
        line += "M" + "L".join(f"{px:.1f} {y[part].mean():.1f}" for px, part in zip(mid, parts, strict=True))
        upper = [f"{px:.1f} {y[part].min():.1f}" for px, part in zip(mid, parts, strict=True)]
        lower = [f"{px:.1f} {y[part].max():.1f}" for px, part in zip(mid, parts, strict=True)]
        envelope += "M" + "L".join([*upper, *reversed(lower)]) + "Z"
    return line, envelope


def _rounded(probability: float) -> float:
    # Three decimals, never rounded to 0 or 1.
    return min(max(round(probability, 3), 0.001), 0.999) if 0 < probability < 1 else probability


def _percent(t_s: float, span_s: float) -> float:
    return min(100.0, max(0.0, 100 * t_s / span_s)) if span_s > 0 else 50.0


def _unseen(t_s: Doubles, span_s: float, step_s: float) -> tuple[tuple[float, float], ...]:
    if span_s <= 0 or step_s <= 0:
        return ()
    # Each scored face covers half a step on both sides; the ends of the clip count as they are.
    half = step_s / 2
    starts = [0.0, *(t_s + half).tolist()]
    ends = [*(t_s - half).tolist(), span_s]
    wide_s = max((GAP_STEPS - 1) * step_s, span_s * MIN_GAP_PERCENT / 100)
    return tuple(
        (_percent(start, span_s), _percent(end, span_s) - _percent(start, span_s))
        for start, end in zip(starts, ends, strict=True)
        if end - start > wide_s
    )


def _ticks(span_s: float) -> tuple[tuple[float, float], ...]:
    if span_s <= 0:
        return ((50.0, 0.0),)
    step = next((step for step in TICK_STEPS_S if span_s / step <= MAX_TICKS), None)
    if step is None:
        step = 3600 * int(np.ceil(span_s / 3600 / MAX_TICKS))
    count = int(span_s / step + 1e-9)
    return tuple((_percent(i * step, span_s), i * step) for i in range(count + 1))
