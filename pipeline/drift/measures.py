"""What is measured of each video to see drift, and the fixed bins of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.contracts import Outcome, Verdict

# A person's probability is held away from 0 and 1 before its log-odds are taken.
_LEAST_P: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure.

    Attributes:
        name: in files and answers.
        edges: between bins, rising; a value on an edge belongs to the upper bin. Empty for kinds.
        kinds: names of the bins where they have no order.
        unit: of the edges.
        logarithmic: bins are even on a logarithmic scale.
        of_weights: depends on the weights, so records of other weights do not count.
    """

    name: str
    edges: tuple[float, ...] = ()
    kinds: tuple[str, ...] = ()
    unit: str = ""
    logarithmic: bool = False
    of_weights: bool = False

    @property
    def bins(self) -> int:
        """How many."""
        return len(self.kinds) or len(self.edges) + 1

    def label(self, i: int) -> str:
        """The name of a bin, such as `64 to 91 px`."""
        if self.kinds:
            return self.kinds[i]
        unit = f" {self.unit}" if self.unit else ""
        if i == 0:
            return f"below {self.edges[0]:g}{unit}"
        if i == len(self.edges):
            return f"{self.edges[-1]:g}{unit} and more"
        return f"{self.edges[i - 1]:g} to {self.edges[i]:g}{unit}"

    def counts(self, values: Sequence[float] | np.ndarray[tuple[int], np.dtype[np.floating]]) -> list[int]:
        """How many of the values are in each bin; what is not a number is left out."""
        found = np.asarray(values, np.float64)
        at = np.searchsorted(np.array(self.edges), found[np.isfinite(found)], side="right")
        return [int(n) for n in np.bincount(at, minlength=self.bins)]


SCORE: Final = Measure("score", (-4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0), of_weights=True)
QUALITY: Final = Measure("quality", (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9))
# Half octaves.
FACE_WIDTH: Final = Measure(
    "face_width", (45.0, 64.0, 91.0, 128.0, 181.0, 256.0, 362.0, 512.0), unit="px", logarithmic=True
)
OUTCOME: Final = Measure("outcome", kinds=("scored", "no_face", "low_quality", "other"))
MEASURES: Final = (SCORE, QUALITY, FACE_WIDTH, OUTCOME)

# For each measure, how many values of a video are in each bin.
Counts = Mapping[str, list[int]]


def counts_of(verdict: Verdict) -> dict[str, list[int]]:
    """Of a record: calibrated log-odds of each person, quality and width of each scored face, how it ended."""
    log_odds = [_log_odds(person.probability) for person in verdict.people]
    kinds = {Outcome.SCORED: 0, Outcome.NO_FACE: 1, Outcome.LOW_QUALITY: 2}
    outcome = [0] * OUTCOME.bins
    outcome[kinds.get(verdict.outcome, 3)] = 1
    return {
        SCORE.name: SCORE.counts(log_odds),
        QUALITY.name: QUALITY.counts([face.quality for face in verdict.frames]),
        FACE_WIDTH.name: FACE_WIDTH.counts([face.box[2] - face.box[0] for face in verdict.frames]),
        OUTCOME.name: outcome,
    }


def _log_odds(probability: float) -> float:
    p = min(max(probability, _LEAST_P), 1 - _LEAST_P)
    return math.log(p / (1 - p))
