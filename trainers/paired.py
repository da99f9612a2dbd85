"""Paired comparison of two detectors: the difference of their AUC over the same videos, by a bootstrap over groups.

Both are resampled with the same draws, so what makes a set of videos easy or hard cancels out. Videos of one group
(an original and its forgeries, or copies of one video) are drawn together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainers import weighted
from trainers.metrics import draws
from trainers.weighted import Labels, Scores

# Of a resample without one of the classes the difference is unknown; with more of them there is no interval.
_UNDEFINED_AT_MOST = 0.1


@dataclass(frozen=True, slots=True)
class Difference:
    """Our AUC minus theirs over the same videos.

    Attributes:
        ours: AUC.
        theirs: AUC.
        value: of the difference.
        low: lower end of its 95 % percentile interval; None without one.
        high: upper end.
        p_worse: share of the resamples in which ours is not above theirs, never 0 (Davison and Hinkley, "Bootstrap
            Methods and their Application", 1997, chapter 4); None without an interval.
        reals: videos.
        fakes: videos.
        groups: that were drawn.
    """

    ours: float
    theirs: float
    value: float
    low: float | None
    high: float | None
    p_worse: float | None
    reals: int
    fakes: int
    groups: int


def auc_difference(
    labels: Labels,
    ours: Scores,
    theirs: Scores,
    groups: npt.NDArray[np.int64],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Difference | None:
    """The difference over N videos; None if a class is missing.

    Args:
        labels: [N], 0 real and 1 fake.
        ours: [N], finite.
        theirs: [N], finite.
        groups: [N], number of each video's group.
        resamples: of the bootstrap.
        seed: of the draws.

    Raises:
        ValueError: invalid labels, different shapes, or scores that are not finite.
    """
    if not len(ours) == len(theirs) == len(groups) == len(labels):
        raise ValueError("labels, scores and groups must have one entry for each video")
    rankings = weighted.Ranking(labels, ours), weighted.Ranking(labels, theirs)
    reals, fakes = int((labels == 0).sum()), int((labels == 1).sum())
    if not reals or not fakes:
        return None
    mine, its = (float(weighted.auc(*each.cumulated(np.ones((1, len(labels)))))[0]) for each in rankings)
    drawn = [np.zeros(0)]
    for chunk in draws(groups, resamples, seed):
        one, other = (weighted.auc(*each.cumulated(chunk)) for each in rankings)
        drawn.append(one - other)
    values = np.concatenate(drawn)
    known = values[np.isfinite(values)]
    count = len(np.unique(groups))
    low = high = p_worse = None
    if count > 1 and len(known) and len(known) >= (1 - _UNDEFINED_AT_MOST) * len(values):
        low, high = (float(end) for end in np.percentile(known, (2.5, 97.5)))
        p_worse = float((np.count_nonzero(known <= 0) + 1) / (len(known) + 1))
    return Difference(mine, its, mine - its, low, high, p_worse, reals, fakes, count)
