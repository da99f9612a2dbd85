"""How the weights do by month: verdicts against what people decided."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np

from models.error_rates import NORMAL_95
from pipeline.contracts import Label, Outcome
from web.agreement import Share, share
from web.database import Database
from web.drift_counts import names_of_weights
from web.rounds import Choice, Round
from web.weights import KnownWeights

_STEPS: Final = 60


@dataclass(frozen=True, slots=True)
class Auc:
    """Area under the ROC curve with its interval of 95 %; None without both classes."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Month:
    """The closed reviews of the videos that arrived in a month and were judged by the same weights.

    Attributes:
        month: YYYY-MM, in UTC.
        weights_sha256: of the weights, members of an ensemble in their order.
        model: their name; empty if unknown.
        age_s: of the weights when the month's middle video was judged, in seconds; None: unknown.
        fakes, reals: videos with a score, by what people decided.
        unscored: videos without a score on which people decided.
        auc: of the score, by what people decided.
        fakes_fake, fakes_inconclusive, fakes_real: how fakes were called.
        reals_fake: reals that were called fake.
    """

    month: str
    weights_sha256: tuple[str, ...]
    model: str
    age_s: float | None
    fakes: int
    reals: int
    unscored: int
    auc: Auc
    fakes_fake: Share
    fakes_inconclusive: Share
    fakes_real: Share
    reals_fake: Share


@dataclass(frozen=True, slots=True)
class _Video:
    is_fake: bool
    label: Label | None
    probability: float | None
    judged_s: float


def months(database: Database, weights: KnownWeights) -> list[Month]:
    """By month of arrival and weights, the newest first.

    Only what people decided counts: reviews that are closed, not those that a label decided by itself, nor videos whose
    answer was known before. See `web.drift_counts.refresh`, which must have seen the videos.
    """
    groups: dict[tuple[str, str], list[_Video]] = defaultdict(list)
    query = (
        "SELECT created_s, finished_s, label, probability, outcome, answer, c.weights FROM videos "
        "JOIN drift_counts AS c ON c.video = videos.n AND c.judged_s = finished_s "
        "WHERE round = ? AND answer IN (?, ?) AND golden IS NULL AND c.weights != ''"
    )
    for row in database.read().execute(query, (Round.CLOSED, Choice.FAKE, Choice.REAL)):
        scored = row["outcome"] == Outcome.SCORED
        month = datetime.fromtimestamp(row["created_s"], UTC).strftime("%Y-%m")
        groups[month, row["weights"]].append(
            _Video(
                row["answer"] == Choice.FAKE,
                Label(row["label"]) if scored else None,
                row["probability"] if scored else None,
                row["finished_s"],
            )
        )
    ordered = sorted(groups.items(), key=lambda item: (item[0][0], max(each.judged_s for each in item[1])))
    names = names_of_weights(database)
    return [
        _month(month, tuple(sha256.split(",")), names.get(sha256, ""), found, weights.made_s(sha256.split(",")))
        for (month, sha256), found in ordered[::-1]
    ]


def auc(fakes: Sequence[float], reals: Sequence[float]) -> Auc:
    """How often a fake scores above a real, ties counting half, with a score interval.

    Newcombe, "Confidence intervals for an effect size measure based on the Mann-Whitney statistic, part 2", Statistics
    in Medicine 25, 2006, method 5: as Wilson's interval of a share, it has a width at 0 and 1 too.

    Args:
        fakes: scores of the fakes.
        reals: scores of the reals.
    """
    m, n = len(fakes), len(reals)
    if not m or not n:
        return Auc(None, None, None)
    ordered = np.sort(np.asarray(reals, np.float64))
    below = np.searchsorted(ordered, fakes, side="left") + np.searchsorted(ordered, fakes, side="right")
    value = float(below.sum()) / (2 * m * n)

    def fits(theta: float) -> bool:
        """Whether the observed value is within the interval around this one."""
        star = (m + n) / 2 - 1
        spread = 1 + star * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return abs(value - theta) <= NORMAL_95 * math.sqrt(theta * (1 - theta) * spread / (m * n))

    def edge(outside: float) -> float:
        inside = value
        if fits(outside):
            return outside
        for _ in range(_STEPS):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if fits(middle) else (inside, middle)
        return inside

    # At exactly 0 and 1 the formula has no spread: only the value itself fits there.
    return Auc(value, edge(0.0) if value > 0 else 0.0, edge(1.0) if value < 1 else 1.0)


def _month(month: str, sha256: tuple[str, ...], model: str, found: Sequence[_Video], made_s: float | None) -> Month:
    scored = [each for each in found if each.probability is not None]
    fakes, reals = ([each for each in scored if each.is_fake is kind] for kind in (True, False))

    def called(videos: Sequence[_Video], label: Label) -> Share:
        return share(sum(each.label is label for each in videos), len(videos))

    middle_s = float(np.median([each.judged_s for each in found]))
    return Month(
        month,
        sha256,
        model,
        # Weights that judged before they were announced have no known age then.
        None if made_s is None or middle_s < made_s else middle_s - made_s,
        len(fakes),
        len(reals),
        len(found) - len(scored),
        auc([each.probability or 0.0 for each in fakes], [each.probability or 0.0 for each in reals]),
        called(fakes, Label.FAKE),
        called(fakes, Label.INCONCLUSIVE),
        called(fakes, Label.REAL),
        called(reals, Label.FAKE),
    )
