"""Agreement between people, and shares with their uncertainty. Pure functions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from models.error_rates import NORMAL_95, wilson


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often two people agree on the same clips.

    Attributes:
        clips: that both judged.
        observed: share of equal judgements; None without clips.
        kappa: Cohen's; None without clips, or where both always said the same one thing: then it is undefined.
        low, high: its interval of 95 %; None where `kappa` is.
    """

    clips: int
    observed: float | None
    kappa: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Share:
    """How many of some.

    Attributes:
        hits: of them.
        of: all.
        low, high: the interval of 95 % of the share; None without any.
    """

    hits: int
    of: int
    low: float | None
    high: float | None


def agreement(pairs: Sequence[tuple[Hashable, Hashable]]) -> Agreement:
    """Cohen's kappa of pairs of judgements, with its large-sample interval.

    Cohen, A coefficient of agreement for nominal scales, 1960; the standard error is that of Fleiss, Cohen and Everitt,
    Large sample standard errors of kappa and weighted kappa, 1969, equation 13.

    Args:
        pairs: what the one and the other said of the same clip.
    """
    n = len(pairs)
    if not n:
        return Agreement(0, None, None, None, None)
    both = Counter(pairs)
    first, second = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    kinds = first.keys() | second.keys()
    observed = sum(both[kind, kind] for kind in kinds) / n
    expected = sum(first[kind] * second[kind] for kind in kinds) / n**2
    if expected >= 1:
        return Agreement(n, observed, None, None, None)
    kappa = (observed - expected) / (1 - expected)
    equal = sum(both[kind, kind] / n * (1 - (first[kind] + second[kind]) / n * (1 - kappa)) ** 2 for kind in kinds)
    unequal = (1 - kappa) ** 2 * sum(
        count / n * ((second[a] + first[b]) / n) ** 2 for (a, b), count in both.items() if a != b
    )
    variance = (equal + unequal - (kappa - expected * (1 - kappa)) ** 2) / (n * (1 - expected) ** 2)
    half = NORMAL_95 * math.sqrt(max(0.0, variance))
    return Agreement(n, observed, kappa, max(-1.0, kappa - half), min(1.0, kappa + half))


def share(hits: int, of: int) -> Share:
    """A share with Wilson's interval (Probable inference, the law of succession, and statistical inference, 1927).

    Raises:
        ValueError: there are more hits than there can be.
    """
    if not 0 <= hits <= of:
        raise ValueError(f"{hits} of {of}")
    if not of:
        return Share(0, 0, None, None)
    return Share(hits, of, *wilson(hits, of))
