"""Whether a map holds: hiding what it marks must change the score more than hiding any of many areas like it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.explain.areas import Area, marked, random_places, softened
from pipeline.explain.occlusion import SHARE, Hide
from pipeline.types import Floats

# A map that marks an area at random is ahead of all of them once in 33 times.
RANDOM_AREAS: Final = 32


@dataclass(frozen=True, slots=True)
class Check:
    """What hiding areas did to the score. Changes are in log-odds, towards the other class: positive is less of it.

    Attributes:
        change: by the marked area.
        random_changes: by areas of the same size and shape at random places, the smallest first.
    """

    change: float
    random_changes: tuple[float, ...]

    @property
    def holds(self) -> bool:
        """Whether the marked area changed the score, more than any other, and more than the usual one either way.

        Where hiding anything moves the score by as much towards its own side, it does not depend on the marked area.
        """
        return self.change > max(0.0, self.random_changes[-1], abs(self.random_median))

    @property
    def random_median(self) -> float:
        """The usual change by a random area."""
        return float(np.median(self.random_changes))


def check_map(heat: Floats, hide: Hide, log_odds: float, *, fake: bool, seed: int = 0) -> tuple[Check, Area]:
    """Hide the marked area, and areas like it elsewhere.

    A map is faithful if the score depends on what it marks: the deletion test (Samek et al., "Evaluating the
    Visualization of What a Deep Neural Network Has Learned", IEEE TNNLS 2017; Petsiuk et al., "RISE", BMVC 2018). It is
    measured at this crop, against areas that differ in their place alone, since any hidden area changes a score.

    Args:
        heat: float32 [S, S], see `occlusion_map`.
        hide: scores the crop with parts hidden.
        log_odds: of the whole crop.
        fake: whether the score says fake.
        seed: of the random places.

    Returns:
        The check, and the marked area, bool [S, S].
    """
    area = marked(heat, SHARE)
    others = random_places(area, RANDOM_AREAS, np.random.default_rng(seed))
    found = hide(softened(np.concatenate([area[None], others])))
    changes = (1.0 if fake else -1.0) * (log_odds - found.astype(np.float64))
    return Check(float(changes[0]), tuple(sorted(changes[1:].tolist()))), area
