"""Whether few frames of a clip settle its verdict: a sequential test, made at each early look.

The frames of a look are a sample of those that a whole scan would take. For each person, Student's interval with the
correction for a finite population encloses the log-odds of the whole scan. The verdict is settled if its label is the
same wherever in these intervals the people are. What is not settled after the last look gets the whole scan, whose
verdict does not depend on the looks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Final

import numpy as np

from models.checkpoint_info import Calibration, Thresholds
from pipeline.contracts import Label, Outcome, Verdict
from pipeline.types import Scores
from pipeline.verdict.aggregate import supported_people
from pipeline.verdict.evidence import Floats64, LogitSum

# Chance that a person's log-odds are beyond the end of the interval that matters, if they are as close to a threshold
# as the test allows; docs/benchmarks.md has how often labels differ.
RISK: Final = 0.05
# The frames of one person differ in calibrated log-odds by a standard deviation of .8, typically: the root mean square
# of 164 tracks of FaceForensics++ and DeepFaceLive was .92, the median .61 (unmask-small). It counts like this many
# frames: what five frames say of their own spread is little.
TYPICAL_SPREAD: Final = 0.8
TYPICAL_WEIGHT: Final = 3


@dataclass(frozen=True, slots=True)
class Interval:
    """Where the log-odds of fake of a person are, over all frames of a whole scan.

    Attributes:
        low: one-sided bound, exceeded with probability 1 - `RISK`.
        high: likewise.
    """

    low: float
    high: float


def is_settled(
    verdict: Verdict,
    scores: Scores,
    planned: int,
    calibration: Calibration | None,
    thresholds: Thresholds,
) -> bool:
    """Whether the label of a verdict on few frames is that of the whole scan, up to the risk of the test.

    It is open where the verdict has no label, where a single frame looks forged in a clip that does not (a short
    forgery), or where someone who was hardly seen could decide.

    Args:
        verdict: on these scores.
        scores: of the frames looked at, all tracks.
        planned: frames of the whole scan.
        calibration: of the weights.
        thresholds: likewise.
    """
    if verdict.outcome is not Outcome.SCORED or verdict.segments:
        return False
    supported = {person.track for person in supported_people(verdict)}
    share = planned / verdict.frames_sampled
    found = {int(track): _interval(scores, int(track), share, calibration) for track in np.unique(scores.track_ids)}
    # Those who are hardly seen may turn out to decide, and more people have a higher threshold.
    limits = [thresholds.of(people) for people in range(len(supported), len(found) + 1)]
    reals, fakes = ([_log_odds(limit[side]) for limit in limits] for side in (0, 1))
    low = max(found[track].low for track in supported)
    high = max(interval.high for interval in found.values())
    if verdict.label is Label.FAKE:
        return bool(low >= max(fakes))
    calibrated = calibration or Calibration()
    if (calibrated.log_odds(scores.logits, scores.quality) >= min(fakes)).any():
        return False
    if verdict.label is Label.REAL:
        return high < min(reals)
    return low >= max(reals) and high < min(fakes)


def _interval(scores: Scores, track: int, share: float, calibration: Calibration | None) -> Interval:
    of_track = scores.track_ids == track
    logits, quality = scores.logits[of_track], scores.quality[of_track].astype(np.float64)
    calibrated = calibration or Calibration()
    sums = LogitSum.of(logits, quality, calibration)
    trust = sums.trust(calibration)
    half = _half_width(calibrated.log_odds(logits), quality * calibrated.trust(quality), share)
    middle = sums.log_odds(calibration)
    return Interval(middle - trust * half, middle + trust * half)


def _half_width(log_odds: Floats64, weights: Floats64, share: float) -> float:
    """Of the interval around a weighted mean.

    Args:
        log_odds: float64 [N], of the frames, before trust.
        weights: float64 [N].
        share: frames of the whole scan for each frame looked at.
    """
    count = len(log_odds)
    if not weights.any():
        weights = np.ones(count)
    mean = float(log_odds @ weights / weights.sum())
    effective = float(weights.sum() ** 2 / (weights @ weights))
    freedom = TYPICAL_WEIGHT + count - 1
    variance = (TYPICAL_WEIGHT * TYPICAL_SPREAD**2 + float(((log_odds - mean) ** 2).sum())) / freedom
    of_mean = variance * max(0.0, 1 / effective - 1 / (count * share))
    return student_quantile(1 - RISK, freedom) * math.sqrt(of_mean)


def student_quantile(probability: float, freedom: int) -> float:
    """Of Student's distribution with at least 3 degrees of freedom, within .01 for probabilities from .05 to .95.

    The expansion of Cornish and Fisher: Abramowitz and Stegun, "Handbook of Mathematical Functions", 1964, 26.7.5.
    """
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return float(z + sum(term / freedom ** (power + 1) for power, term in enumerate(terms)))


def pooled(looks: Sequence[Scores]) -> Scores | None:
    """The scores of several looks at one person as one track, by time; None if a look shows several, or nobody.

    Each look has its own tracker, so its numbers say nothing of who is who in another look.
    """
    if len(looks) == 1:
        return looks[0]
    if any(len(np.unique(look.track_ids)) != 1 for look in looks):
        return None
    track = looks[0].track_ids[0]
    joined = Scores.join(
        looks[0].clip_id, [replace(look, track_ids=np.full_like(look.track_ids, track)) for look in looks]
    )
    return joined.take(np.argsort(joined.t_s, kind="stable"))


def _log_odds(probability: float) -> float:
    if probability <= 0:
        return -math.inf
    return math.inf if probability >= 1 else math.log(probability / (1 - probability))
