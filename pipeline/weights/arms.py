"""The two arms of a canary: which video belongs to which, what they gave, and when they differ too far."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pipeline.contracts import Label, Outcome, Verdict

CANARY, ACTIVE = "canary", "active"
# With fewer videos in an arm, a normal approximation says little.
FEWEST: Final = 30
# Chance of any false alarm over the whole life of a canary, shared by its two measures.
ALPHA: Final = 0.01
# Videos that the two arms' pooled size has where the bound is tightest.
_TIGHTEST_AT: Final = 200.0
# By how much the share of videos that end in an error may be higher.
FAILURES: Final = 0.01


def is_in_canary(video_id: str, sha256: str, share: float) -> bool:
    """Whether a video is judged by the canary: the same answer on each worker, and for all parts of a video.

    Args:
        video_id: id of the task.
        sha256: of the canary's weights: another canary gets other videos.
        share: of the videos, 0..1.
    """
    digest = hashlib.sha256(f"{sha256}:{video_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


@dataclass(frozen=True, slots=True)
class Arm:
    """The verdicts of one arm.

    Attributes:
        videos: all.
        failed: ended as `model_error`.
        fake: called fake.
        real: called real.
        inconclusive: scored, with neither label.
    """

    videos: int = 0
    failed: int = 0
    fake: int = 0
    real: int = 0
    inconclusive: int = 0

    @property
    def scored(self) -> int:
        """Videos with a score."""
        return self.fake + self.real + self.inconclusive

    @classmethod
    def read(cls, counters: Mapping[str, str], arm: str) -> Arm:
        """From the counters of a canary."""
        return cls(*(int(counters.get(f"{arm}:{name}", 0)) for name in cls.__slots__))


def counted(verdict: Verdict) -> tuple[str, ...]:
    """The counters of an arm that a verdict raises."""
    if verdict.outcome is Outcome.MODEL_ERROR:
        return "videos", "failed"
    if verdict.outcome is not Outcome.SCORED:
        return ("videos",)
    # The names of labels are those of the counters.
    return "videos", str(verdict.label or Label.INCONCLUSIVE)


def alarm(canary: Arm, active: Arm, tolerance: float) -> str | None:
    """Why a canary must end, in words; None while it may go on.

    It may be asked after each video: the bound holds for all times at once.

    Args:
        canary: what its arm gave.
        active: what the other gave meanwhile.
        tolerance: by how much the share of scored videos called fake may differ, to either side.
    """
    found = bounds(canary.failed, canary.videos, active.failed, active.videos)
    if found is not None and found[0] > FAILURES:
        return (
            f"{canary.failed} of {canary.videos} videos end in an error, with the active weights {active.failed} of "
            f"{active.videos}"
        )
    found = bounds(canary.fake, canary.scored, active.fake, active.scored)
    if found is not None and (found[0] > tolerance or found[1] < -tolerance):
        return (
            f"{canary.fake} of {canary.scored} scored videos are called fake, with the active weights {active.fake} of "
            f"{active.scored}; a difference of {tolerance:.1%} is tolerated"
        )
    return None


def bounds(hits: int, of: int, other_hits: int, other_of: int) -> tuple[float, float] | None:
    """A confidence sequence for the difference of two shares: it holds for all times at once, so it may be looked at
    after each video. None with too few videos.

    Normal mixture boundary (Robbins, "Statistical methods related to the law of the iterated logarithm", Ann. Math.
    Stat. 41, 1970) on the pooled variance of the two shares.
    """
    if min(of, other_of) < FEWEST:
        return None
    difference = hits / of - other_hits / other_of
    # One more hit and miss in each: shares of 0 or 1 have a variance, too.
    pooled = (hits + other_hits + 1) / (of + other_of + 2)
    size = 1 / (1 / of + 1 / other_of)
    alpha = ALPHA / 2
    boundary = math.log((size + _TIGHTEST_AT) / (_TIGHTEST_AT * alpha**2)) * (size + _TIGHTEST_AT) / size
    half = math.sqrt(pooled * (1 - pooled) / size * boundary)
    return difference - half, difference + half
