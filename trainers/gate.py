"""The gate: decides from evaluations whether weights may replace the active ones.

Two detectors are compared over the same videos, by the difference of their AUC with its interval from a paired
bootstrap. Evaluations of earlier versions have no scores of single videos: then only the candidate's own interval
counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from models.errors import UnmaskError
from trainers.paired import Difference, auc_difference

# Name of the ladder's step without a degradation.
CLEAN = "clean"


class RefusedError(UnmaskError):
    """These weights are not promoted; the message says why."""

    exit_code = 3


class EvaluationError(RefusedError):
    """An evaluation is missing, invalid, or has nothing that the gate can use."""


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """P(fake) of V videos.

    Attributes:
        video: int64 [V], number in the set, rising.
        group: int64 [V].
        label: int64 [V].
        probability: float64 [V].
        dataset: str [V].
    """

    video: npt.NDArray[np.int64]
    group: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]
    probability: npt.NDArray[np.float64]
    dataset: npt.NDArray[np.str_]

    @classmethod
    def parse(cls, values: Mapping[str, Any] | None) -> Self | None:
        """From the JSON form of `trainers.evaluation.video_scores.VideoScores`."""
        if values is None:
            return None
        names = np.array(values["datasets"] or [""], np.str_)
        found = cls(
            video=np.array(values["video"], np.int64),
            group=np.array(values["group"], np.int64),
            label=np.array(values["label"], np.int64),
            probability=np.array(values["probability"], np.float64),
            dataset=names[np.array(values["dataset"], np.int64)],
        )
        lengths = {len(getattr(found, name)) for name in ("video", "group", "label", "probability", "dataset")}
        if len(lengths) > 1 or not np.isfinite(found.probability).all() or not np.isin(found.label, (0, 1)).all():
            raise ValueError("scores of videos that do not fit together")
        return found

    def minus(self, other: Self, dataset: str | None = None) -> Difference | None:
        """The AUC of these scores minus that of others, over the videos that both have; None if a class is missing.

        Args:
            other: of the same rows.
            dataset: only its videos.
        """
        _, mine, its = np.intersect1d(self.video, other.video, assume_unique=True, return_indices=True)
        if not np.array_equal(self.label[mine], other.label[its]):
            raise EvaluationError("the same videos have other labels in the two evaluations")
        if dataset is not None:
            keep = self.dataset[mine] == dataset
            mine, its = mine[keep], its[keep]
        return auc_difference(self.label[mine], self.probability[mine], other.probability[its], self.group[mine])


@dataclass(frozen=True, slots=True)
class Measured:
    """The result of an evaluation on one set of crops.

    Attributes:
        rows: which rows: sha256 of the manifest, split, half, sha256 of the rows.
        videos: reals and fakes with a score.
        auc: over videos; None if it could not be computed.
        high: upper end of its interval; None without one.
        scores: of the videos; None in evaluations of earlier versions.
        rungs: scores of the videos under each step of the robustness ladder, by name.
        alarms: how many of the real videos were called fake, and of how many, by step; "clean": as they are. Empty
            without thresholds.
    """

    name: str
    rows: tuple[str, str | None, str | None, str]
    videos: tuple[int, int]
    auc: float | None
    high: float | None
    scores: Scores | None = None
    rungs: Mapping[str, Scores] = field(default_factory=dict)
    alarms: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def describe(self) -> str:
        """The rows as text."""
        manifest, split, half, _ = self.rows
        return f"manifest {manifest[:16]}, {f'split {split}' if split else 'all splits'}, {half or 'no'} half"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The parts of an `unmask evaluate --json` report that the gate needs.

    Attributes:
        weights_sha256: of the weights that were evaluated.
        sets: the sets of crops in the order in which they were named; the first is the main one.
    """

    weights_sha256: str
    sets: tuple[Measured, ...]

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read an evaluation.

        Raises:
            EvaluationError: invalid, or without a set of crops.
        """
        try:
            report = json.loads(data)
            if report["schema"] != 1:
                raise EvaluationError(f"an evaluation of schema {report['schema']}; this version knows 1")
            found = cls(
                str(report["model"]["weights_sha256"]),
                tuple(_measured(each) for each in report["sets"] if each["kind"] == "crops"),
            )
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise EvaluationError(
                f"not what `unmask evaluate --json` writes: {type(error).__name__}: {error}"
            ) from error
        if not found.sets:
            raise EvaluationError("an evaluation without a manifest of crops: only such sets can be compared")
        return found


def _measured(result: Mapping[str, Any]) -> Measured:
    level = result["video"]
    auc = {} if level is None else level["metrics"]["auc"]
    counts = {"real": 0, "fake": 0} if level is None else level["counts"]
    steps = (result.get("ladder") or {}).get("rungs", ())
    rungs = {str(step["name"]): Scores.parse(step.get("scores")) for step in steps}
    levels = {**{str(step["name"]): step["video"] for step in steps}, CLEAN: level}
    called = {name: each["called"]["reals"] for name, each in levels.items() if each and each.get("called")}
    return Measured(
        name=result["name"],
        rows=(result["manifest_sha256"], result["split"], result["half"], result["rows_sha256"]),
        videos=(counts["real"], counts["fake"]),
        auc=auc.get("value"),
        high=auc.get("high"),
        scores=Scores.parse(result.get("scores")),
        rungs={name: scores for name, scores in rungs.items() if scores is not None},
        alarms={name: (int(reals["fake"]), int(reals["total"])) for name, reals in called.items()},
    )


def compare(candidate: Evaluation, active: Evaluation | None) -> str:
    """Check a candidate at the gate.

    Args:
        candidate: of the weights to promote.
        active: of those in use; None if there are none; then any candidate passes.

    Returns:
        The result as text.

    Raises:
        EvaluationError: the two cannot be compared.
        RefusedError: the candidate is worse beyond its interval.
    """
    if active is None:
        main = candidate.sets[0]
        if main.auc is None:
            raise EvaluationError(f"{main.name}: no AUC over videos")
        return f"video AUC {main.auc:.4f} on {main.name}; no weights were active"
    theirs = active.sets[0]
    ours = next((each for each in candidate.sets if each.rows == theirs.rows), None)
    if ours is None:
        was = "; ".join(each.describe() for each in candidate.sets)
        raise EvaluationError(
            f"evaluated on other rows than the active weights: on {was}, expected {theirs.describe()}. "
            "Evaluate both on the same rows, and promote the active weights again to renew their evaluation"
        )
    if ours.videos != theirs.videos:
        raise EvaluationError(
            f"{ours.name}: {ours.videos[0]} real and {ours.videos[1]} fake videos got a score, with the active weights "
            f"{theirs.videos[0]} and {theirs.videos[1]}: not comparable"
        )
    if ours.auc is None or theirs.auc is None:
        raise EvaluationError(f"{ours.name}: no AUC over videos")
    if ours.scores is not None and theirs.scores is not None:
        return _paired(ours.name, ours.scores.minus(theirs.scores))
    if ours.high is None:
        raise EvaluationError(f"{ours.name}: no interval of the AUC; evaluate without --resamples 0")
    message = f"video AUC {ours.auc:.4f} (at most {ours.high:.4f}) on {ours.name}; active {theirs.auc:.4f}"
    if ours.high < theirs.auc:
        raise RefusedError(f"worse than the active weights: {message}")
    return message


def _paired(name: str, found: Difference | None) -> str:
    """The result over the same videos as text.

    Raises:
        EvaluationError: no interval can be computed.
        RefusedError: the whole interval is below 0.
    """
    if found is None or found.low is None or found.high is None:
        raise EvaluationError(f"{name}: too few videos to compare")
    message = f"{describe(found)} on {name}"
    if found.high < 0:
        raise RefusedError(f"worse than the active weights: {message}")
    return message


def describe(found: Difference) -> str:
    """A comparison as text."""
    interval = "no interval" if found.low is None else f"{found.low:+.4f} to {found.high:+.4f}"
    return (
        f"video AUC {found.ours:.4f}, active {found.theirs:.4f}: difference {found.value:+.4f} ({interval}) over the "
        f"same {found.reals} real and {found.fakes} fake videos"
    )
