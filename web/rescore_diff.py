"""What a run by other weights changes: verdicts before and after, in numbers and one by one. Mostly pure functions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from pipeline.contracts import Label, Outcome
from web.rescores import Judged, Rescored, Rescores, Run
from web.rounds import Choice

# Of probabilities, so that differences of log-odds are numbers.
_EDGE: Final = 1e-9
# What people decide on which a verdict is right or wrong.
_DECIDED: Final = (Choice.FAKE, Choice.REAL)


@dataclass(frozen=True, slots=True)
class Diff:
    """A run next to the verdicts before it.

    Attributes:
        run: it.
        videos: with both verdicts; see `ordered`.
        matrix: how many videos have which word before and after; see `Judged.word`.
        agreement: of closed reviews, what each decision's videos are called before and after.
        left_out: how many videos have no verdict in the run, by the reason.
        deleted: how many videos of its time were deleted.
        todo: how many have still to be judged.
    """

    run: Run
    videos: tuple[Rescored, ...]
    matrix: Mapping[tuple[str, str], int]
    agreement: Mapping[Choice, tuple[Counter[str], Counter[str]]]
    left_out: Mapping[str, int]
    deleted: int
    todo: int

    @property
    def changed(self) -> list[Rescored]:
        """Those with another label, or without one now or before."""
        return [each for each in self.videos if is_changed(each)]

    @property
    def replaced(self) -> int:
        """How many were judged again since, so that what is compared here is not their verdict any more."""
        return sum(each.is_replaced for each in self.videos)

    @property
    def replayed(self) -> tuple[int, int, str | None]:
        """Of videos that the same weights had judged: how many, how many equal records, and the first difference."""
        found = [each for each in self.videos if each.replayed is not None]
        first = next((f"{each.video}: {each.replayed}" for each in found if each.replayed), None)
        return len(found), sum(not each.replayed for each in found), first


def diff_of(rescores: Rescores, run: Run, todo: int) -> Diff:
    """The diff of a run.

    Args:
        rescores: of the database.
        run: it.
        todo: see `Diff`.
    """
    videos = ordered(rescores.of_run(run))
    left_out = {reason.value: count for reason, count in rescores.left_out(run).items()}
    return Diff(run, videos, matrix(videos), agreement(videos), left_out, rescores.deleted(run), todo)


def is_changed(video: Rescored) -> bool:
    """Whether it has another label, or got or lost one."""
    return video.before.word != video.after.word


def log_odds_change(before: Judged, after: Judged) -> float | None:
    """By how much the log-odds of fake rose; None unless both are scored."""
    if before.probability is None or after.probability is None:
        return None
    return _log_odds(after.probability) - _log_odds(before.probability)


def ordered(videos: Iterable[Rescored]) -> tuple[Rescored, ...]:
    """Real to fake first, then fake to real, to or from inconclusive, with a score on one side; then the unchanged.

    Within each of these, the largest changes of the log-odds come first.
    """

    def place(video: Rescored) -> tuple[int, float, str]:
        before, after = video.before.label, video.after.label
        change = log_odds_change(video.before, video.after)
        if not is_changed(video):
            rank = 4
        elif before is None or after is None:
            rank = 3
        elif Label.INCONCLUSIVE in (before, after):
            rank = 2
        else:
            rank = 0 if after is Label.FAKE else 1
        return rank, -abs(change or 0.0), video.video

    return tuple(sorted(videos, key=place))


def matrix(videos: Sequence[Rescored]) -> dict[tuple[str, str], int]:
    """How many videos have which label, or outcome without a label, before and after."""
    return dict(Counter((each.before.word, each.after.word) for each in videos))


def agreement(videos: Sequence[Rescored]) -> dict[Choice, tuple[Counter[str], Counter[str]]]:
    """Of videos that people decided to be fake, and real, what they are called before and after."""
    found: dict[Choice, tuple[Counter[str], Counter[str]]] = {}
    for choice in _DECIDED:
        decided = [each for each in videos if each.answer == choice]
        if decided:
            found[choice] = (
                Counter(each.before.word for each in decided),
                Counter(each.after.word for each in decided),
            )
    return found


def words(found: Iterable[str]) -> list[str]:
    """Labels and outcomes in the order of their enumerations."""
    order = [*(Label.FAKE, Label.INCONCLUSIVE, Label.REAL), *Outcome]
    return sorted(set(found), key=lambda word: next(i for i, each in enumerate(order) if each.value == word))


def as_json(diff: Diff) -> dict[str, Any]:
    """The diff for programs; see docs/operations.md."""
    run = diff.run
    compared, equal, first = diff.replayed
    table: dict[str, dict[str, int]] = {}
    for (before, after), count in sorted(diff.matrix.items()):
        table.setdefault(before, {})[after] = count
    return {
        "run": run.name,
        "weights": run.weights,
        "weights_sha256": list(run.sha256),
        "begun_at": moment(run.begun_s),
        "ended_at": moment(run.ended_s),
        "notified_at": moment(run.notified_s),
        "rescored": len(diff.videos),
        "changed": len(diff.changed),
        "unchanged": len(diff.videos) - len(diff.changed),
        "judged_again_since": diff.replaced,
        "todo": diff.todo,
        "left_out": {**diff.left_out, "deleted": diff.deleted},
        "matrix": table,
        "agreement": {
            choice.value: {"before": dict(before), "after": dict(after)}
            for choice, (before, after) in diff.agreement.items()
        },
        "replayed": {"compared": compared, "equal": equal, "first_difference": first},
        "videos": [_video(each) for each in diff.videos],
    }


def moment(unix_s: float | None) -> str | None:
    """As JSON and tables have it."""
    return None if unix_s is None else datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="seconds")


def _video(video: Rescored) -> dict[str, Any]:
    return {
        "id": video.video,
        "name": video.name,
        "before": _judged(video.before),
        "after": _judged(video.after),
        "log_odds_change": log_odds_change(video.before, video.after),
        "decided": video.answer,
        "judged_again_since": video.is_replaced,
    }


def _judged(judged: Judged) -> dict[str, Any]:
    return {
        "outcome": judged.outcome,
        "label": judged.label,
        "probability": judged.probability,
        "weights": judged.weights,
        "weights_sha256": list(judged.sha256),
    }


def _log_odds(probability: float) -> float:
    bounded = min(max(probability, _EDGE), 1 - _EDGE)
    return math.log(bounded / (1 - bounded))
