"""Short forgeries: stretches of a person's track that look forged though the whole track does not.

A second of forgery in a minute of real video changes the average of its frames by next to nothing. A stretch is found
if it would be called fake as a clip of its own, and if it differs from the rest of the track by more than the frames of
real tracks do by chance. The contrast is that difference in standard errors of one frame's log-odds,
(run - rest) / sqrt(1/n + 1/m) for n and m independent frames; how much is too much was chosen on real validation
videos, see `trainers.segments`. No pydantic here: training machines use the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from models.calibration import Calibration
from pipeline.verdict.evidence import Floats64, LogitSum, LogitSums

# Of a run of frames, from its first to its last.
MIN_RUN_S: Final = 0.5
MAX_RUN_S: Final = 2.0
# Frames this far apart count as independent. On nine real clips at 8 frames/s, log-odds of frames 1/8 s apart
# correlate by .4 to .7, of frames 1/2 s apart by -.1 to .3.
INDEPENDENT_S: Final = 0.5
# Independent frames of the rest that a run is compared with, at least; and at least as many as the run has.
MIN_REST: Final = 4
# Runs this close are one segment.
JOIN_S: Final = 1.0
MAX_RUNS: Final = 64
_JITTER_S: Final = 2e-3  # of presentation times

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Run:
    """Frames of a track without a gap in time, 0.5 to 2 s long.

    Attributes:
        first_s: time of its first frame.
        last_s: time of its last frame.
        sums: of its frames.
    """

    first_s: float
    last_s: float
    sums: LogitSum

    def contrast(self, whole: LogitSum, span_s: float, calibration: Calibration | None) -> float:
        """How much it differs from the rest of its track, see the module; -inf if the rest is too short.

        Args:
            whole: the sums of the track, this run included.
            span_s: from the track's first frame to its last.
            calibration: of the weights.
        """
        columns = LogitSums.of([self.sums])
        return float(_contrast(columns, np.array([self.last_s - self.first_s]), whole, span_s, calibration)[0])


@dataclass(frozen=True, slots=True)
class Stretch:
    """One run, or several that follow each other: a segment of the record, without its track.

    Attributes:
        from_s: time of its first frame.
        to_s: time of its last frame.
        sums: of its frames.
    """

    from_s: float
    to_s: float
    sums: LogitSum


def independent_frames(count: int | Floats64, span_s: float | Floats64) -> Floats64:
    """How many independent frames the `count` frames of `span_s` seconds are worth."""
    return np.minimum(count, 1 + np.asarray(span_s, np.float64) / INDEPENDENT_S)


def strongest_runs(
    t_s: Floats64,
    logits: npt.NDArray[np.floating],
    quality: npt.NDArray[np.floating],
    calibration: Calibration | None,
    *,
    log_odds: float,
    contrast: float,
    whole: LogitSum | None = None,
    span_s: float | None = None,
    limit: int = MAX_RUNS,
) -> list[Run]:
    """Runs that do not overlap, by time; of those that do, the one of the highest contrast.

    Args:
        t_s: [N], times of a track's frames.
        logits: [N], log-odds of fake before calibration.
        quality: [N] in 0..1.
        calibration: of the weights.
        log_odds: calibrated ones that a run must reach.
        contrast: that a run must reach.
        whole: the sums of the track, if the frames are a part of it.
        span_s: from the track's first frame to its last, likewise.
        limit: on their number.
    """
    if len(t_s) < 2:
        return []
    order = np.argsort(t_s, kind="stable")
    times = np.asarray(t_s, np.float64)[order]
    prefix = LogitSums.cumulative(logits[order], quality[order], calibration)
    whole = whole if whole is not None else prefix.one(len(times))
    span_s = span_s if span_s is not None else float(times[-1] - times[0])
    firsts, lasts, contrasts = [], [], []
    for count in range(2, len(times) + 1):
        first = np.arange(len(times) - count + 1)
        spans = times[count - 1 :] - times[: len(first)]
        if not (spans <= MAX_RUN_S + _JITTER_S).any():
            break
        first = first[(spans >= MIN_RUN_S - _JITTER_S) & (spans <= MAX_RUN_S + _JITTER_S)]
        sums = prefix[first + count] - prefix[first]
        first = first[found := sums.log_odds(calibration) >= log_odds]
        sums = sums[found]
        found_contrast = _contrast(sums, times[first + count - 1] - times[first], whole, span_s, calibration)
        strong = found_contrast >= contrast
        firsts.append(first[strong])
        lasts.append(first[strong] + count - 1)
        contrasts.append(found_contrast[strong])
    if not firsts:
        return []
    chosen = _apart(np.concatenate(firsts), np.concatenate(lasts), np.concatenate(contrasts), limit)
    return [
        Run(float(times[first]), float(times[last]), (prefix[np.array([last + 1])] - prefix[np.array([first])]).one(0))
        for first, last in chosen
    ]


def stretches(runs: Iterable[Run]) -> list[Stretch]:
    """Neighbouring runs as one, by time."""
    found: list[Stretch] = []
    for run in sorted(runs, key=lambda run: run.first_s):
        if found and run.first_s - found[-1].to_s <= JOIN_S:
            before = found[-1]
            found[-1] = Stretch(before.from_s, max(before.to_s, run.last_s), before.sums + run.sums)
        else:
            found.append(Stretch(run.first_s, run.last_s, run.sums))
    return found


def _contrast(
    runs: LogitSums, spans_s: Floats64, whole: LogitSum, span_s: float, calibration: Calibration | None
) -> Floats64:
    """See `Run.contrast`; of R runs with their length in seconds [R]."""
    rest = LogitSums.of([whole]) - runs
    in_run = independent_frames(runs.count, spans_s)
    in_rest = independent_frames(np.maximum(rest.count, 0), np.maximum(span_s - spans_s - INDEPENDENT_S, 0))
    enough = in_rest >= np.maximum(MIN_REST, in_run) - 1e-6
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt(1 / in_run + 1 / in_rest)
        return np.where(enough, (runs.log_odds(calibration) - rest.log_odds(calibration)) / error, -np.inf)


def _apart(first: Ints, last: Ints, contrast: Floats64, limit: int) -> Iterator[tuple[int, int]]:
    """First and last frame of the best runs that share no frame."""
    chosen: list[tuple[int, int]] = []
    while len(first) and len(chosen) < limit:
        best = int(np.argmax(contrast))
        start, end = int(first[best]), int(last[best])
        chosen.append((start, end))
        apart = (last < start) | (first > end)
        first, last, contrast = first[apart], last[apart], contrast[apart]
    return iter(sorted(chosen))


def best_apart(runs: Iterable[Run], contrast: Callable[[Run], float], limit: int) -> list[Run]:
    """Runs that share no moment, by time; of those that do, the one of the highest contrast."""
    chosen: list[Run] = []
    for run in sorted(runs, key=contrast, reverse=True):
        if all(run.last_s < other.first_s or run.first_s > other.last_s for other in chosen[:limit]):
            chosen.append(run)
    return sorted(chosen[:limit], key=lambda run: run.first_s)
