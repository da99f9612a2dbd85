"""What the score of one face depends on, as an answer: the map if it holds, else that there is no such area."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pipeline.explain.areas import Area
from pipeline.explain.check import RANDOM_AREAS, Check, check_map
from pipeline.explain.occlusion import SHARE, Hide, occlusion_map
from pipeline.types import Floats

HOLDS: Final = "the score depends on the marked area"
HOLDS_NOT: Final = "the score does not depend on one area"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Of one face.

    Attributes:
        says_fake: whether the score is on the side of fake; the map is of what speaks for its own side.
        check: of the map.
        heat: the map, float32 [S, S] in 0..1; not to be shown unless `check` holds.
        area: what it marks, bool [S, S].
    """

    says_fake: bool
    check: Check
    heat: Floats
    area: Area

    @property
    def holds(self) -> bool:
        """Whether the map may be shown."""
        return self.check.holds

    @property
    def says(self) -> str:
        """The answer in one sentence, with its figures."""
        change, others = self.check.change, self.check.random_changes
        figures = (
            f"hiding {SHARE:.0%} of the crop there changes its log-odds towards {'real' if self.says_fake else 'fake'} "
            f"by {change:.2f}; {RANDOM_AREAS} areas like it elsewhere by {others[0]:.2f} to {others[-1]:.2f}"
        )
        return f"{HOLDS if self.holds else HOLDS_NOT}: {figures}"

    def facts(self) -> dict[str, Any]:
        """As JSON values, without the map."""
        return {
            "holds": self.holds,
            "says": self.says,
            "towards": "real" if self.says_fake else "fake",
            "share": SHARE,
            "change": round(self.check.change, 4),
            "random_areas": RANDOM_AREAS,
            "random_median": round(self.check.random_median, 4),
            "random_max": round(self.check.random_changes[-1], 4),
        }


def explain(hide: Hide, size_px: int, log_odds: float, *, says_fake: bool, seed: int = 0) -> Explanation:
    """Make the map of a face and check it: about 180 scores.

    Args:
        hide: scores its crop with parts hidden.
        size_px: side of the crop.
        log_odds: of the whole crop, before calibration: calibration may be flat where the network still differs.
        says_fake: whether its probability is at least a half.
        seed: of the areas that the marked one is compared with.

    Raises:
        ScoringError: the engine failed.
    """
    heat = occlusion_map(hide, size_px, log_odds, fake=says_fake)
    check, area = check_map(heat, hide, log_odds, fake=says_fake, seed=seed)
    return Explanation(says_fake, check, heat, area)
