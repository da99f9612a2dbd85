"""The gate of a retraining: stricter than that of `unmask promote`, since nobody looks at it.

Weights pass if they are better on decisions that they were not trained on, not worse on the base set by more than a
margin, not proven worse on any dataset or under any degradation, and call no more reals fake than they may. What
cannot be decided is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trainers.evaluation.summary import share_of
from trainers.gate import CLEAN, EvaluationError, Measured, describe
from trainers.paired import Difference

# Decided videos of each class that were held out: with fewer, an interval says nothing.
FEWEST_HELD_OUT = 10
# Largest one-sided p-value at which decisions count as improved.
P_IMPROVED = 0.05


@dataclass(frozen=True, slots=True)
class Check:
    """One condition of the gate.

    Attributes:
        name: what was compared.
        passed: whether it holds.
        text: the figures, or why it cannot be decided.
        difference: over the same videos; None for conditions of another kind.
    """

    name: str
    passed: bool
    text: str
    difference: Difference | None = None


def on_decisions(candidate: Measured, active: Measured) -> Check:
    """Better on held-out decisions."""
    name = "decisions held out: better"
    found = _minus(candidate, active)
    if found is None or found.p_worse is None or min(found.reals, found.fakes) < FEWEST_HELD_OUT:
        reals, fakes = (0, 0) if found is None else (found.reals, found.fakes)
        text = f"{reals} real and {fakes} fake videos; {FEWEST_HELD_OUT} of each are needed"
        return Check(name, False, text, found)
    passed = found.value > 0 and found.p_worse <= P_IMPROVED
    return Check(name, passed, f"{describe(found)}, p {found.p_worse:.3f} (at most {P_IMPROVED:g})", found)


def on_base(candidate: Measured, active: Measured, margin: float) -> Iterator[Check]:
    """On the base set: not worse by more than `margin`, nowhere proven worse."""
    name = f"base set: not worse by {margin:g}"
    found = _minus(candidate, active)
    if found is None or found.low is None:
        yield Check(name, False, "too few videos to compare", found)
    else:
        yield Check(name, found.low >= -margin, describe(found), found)
    if candidate.scores is not None and active.scores is not None:
        datasets = sorted(set(candidate.scores.dataset.tolist()))
        for dataset in datasets if len(datasets) > 1 else ():
            yield from _not_worse(f"base set, {dataset}", candidate.scores.minus(active.scores, dataset))
    for step, scores in candidate.rungs.items():
        if step in active.rungs and step != CLEAN:
            yield from _not_worse(f"base set, {step}", scores.minus(active.rungs[step]))


def on_false_alarms(candidate: Measured, active: Measured, fpr: float) -> Iterator[Check]:
    """Of the reals of the base set, as they are and under each degradation, no more are called fake than allowed.

    Allowed is the rate that the thresholds were chosen for, or that of the active weights where it is higher. Without
    thresholds there is nothing to check.
    """
    for step, (fake, of) in candidate.alarms.items():
        share = share_of(fake, of)
        if share.value is None or share.low is None:
            continue
        allowed = max(fpr, share_of(*active.alarms.get(step, (0, 0))).value or 0.0)
        text = (
            f"{fake} of {of} reals called fake ({share.value:.1%}, at least {share.low:.1%}); allowed are {allowed:.1%}"
        )
        yield Check(f"false alarms, {step}", share.low <= allowed, text)


def _minus(candidate: Measured, active: Measured) -> Difference | None:
    if candidate.scores is None or active.scores is None or candidate.rows != active.rows:
        raise EvaluationError(f"{candidate.name}: the two evaluations are not of the same videos")
    return candidate.scores.minus(active.scores)


def _not_worse(name: str, found: Difference | None) -> Iterator[Check]:
    if found is not None and found.high is not None:
        yield Check(f"{name}: not proven worse", found.high >= 0, describe(found), found)
