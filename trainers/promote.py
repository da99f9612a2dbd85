"""Promotion: decides which weights may replace the active ones, and announces them.

The gate looks at the AUC over videos of one set of crops. It refuses a candidate whose whole 95 % bootstrap interval
is below the AUC of the active weights on the same rows. A candidate that is not proven better passes, since a
detector may be chosen for robustness or speed. The scores of single videos are not in an evaluation, so the
comparison cannot be paired: only the candidate's own interval counts, and small losses pass.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from models.architectures import LoadedDetector, load_detector
from models.checkpoint import CheckpointError
from models.config import ConfigError
from models.errors import UnmaskError
from models.zoo import resolve
from pipeline.weights.registry import NotInRegistryError, Registry

if TYPE_CHECKING:
    from pipeline.contracts import Announcement, GraphFile
    from pipeline.weights.announced import ActiveWeights

# Of concurrent promotions, one wins each round.
_ROUNDS = 20


class RefusedError(UnmaskError):
    """These weights are not promoted; the message says why."""

    exit_code = 3


class InvalidWeightsError(RefusedError):
    """The file is not a detector that can score. `force` does not override it."""


class EvaluationError(RefusedError):
    """An evaluation is missing, invalid, or has nothing that the gate can use."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The result of an evaluation on one set of crops.

    Attributes:
        rows: which rows: sha256 of the manifest, split, half, sha256 of the rows.
        videos: reals and fakes with a score.
        auc: over videos; None if it could not be computed.
        high: upper end of its interval; None without one.
    """

    name: str
    rows: tuple[str, str | None, str | None, str]
    videos: tuple[int, int]
    auc: float | None
    high: float | None

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
        except (ValueError, KeyError, TypeError, AttributeError) as error:
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
    return Measured(
        name=result["name"],
        rows=(result["manifest_sha256"], result["split"], result["half"], result["rows_sha256"]),
        videos=(counts["real"], counts["fake"]),
        auc=auc.get("value"),
        high=auc.get("high"),
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
    if ours.high is None:
        raise EvaluationError(f"{ours.name}: no interval of the AUC; evaluate without --resamples 0")
    message = f"video AUC {ours.auc:.4f} (at most {ours.high:.4f}) on {ours.name}; active {theirs.auc:.4f}"
    if ours.high < theirs.auc:
        raise RefusedError(f"worse than the active weights: {message}")
    return message


@dataclass(frozen=True, slots=True)
class Promoted:
    """What was done.

    Attributes:
        announcement: the active one; the existing one if the same weights were active already.
        news: whether a new announcement was made.
        message: the gate's result, or the reason it would have refused.
    """

    announcement: Announcement
    news: bool
    message: str


def promote(
    weights: str | Path, evaluation: bytes | None, *, registry: Registry, active: ActiveWeights, force: bool = False
) -> Promoted:
    """Put weights into the registry and announce them to the workers, if they pass the gate.

    Weights that are active already are not announced again; their evaluation is renewed.

    Args:
        weights: a checkpoint's path or zoo name.
        evaluation: what `unmask evaluate --json` wrote of it.
        registry: takes them, and has those of the active ones.
        active: the announcement.
        force: override the gate; never for an invalid file.

    Raises:
        InvalidWeightsError: the file is damaged, or its header does not match its contents.
        RefusedError: see `compare`; or no evaluation, or one of other weights.
        models.zoo.ZooError: the file does not exist.
        pipeline.weights.registry.RegistryError: the registry cannot be read or written.
        redis.RedisError: Redis is not reachable.
    """
    from pipeline.weights.announced import AnnouncementError, ChangedMeanwhileError

    path = resolve(weights)
    detector = _valid(path)
    sha256, name = detector.sha256, detector.info.name or detector.info.architecture
    graph: GraphFile | None = None
    for _ in range(_ROUNDS):
        try:
            now = active.read()
        except AnnouncementError as error:
            raise RefusedError(f"{error}. Another version of Unmask announced it?") from error
        forced, own = False, evaluation
        try:
            measured = _of(sha256, evaluation)
            if now is not None and now.announcement.sha256 == sha256:
                registry.put_evaluation(sha256, evaluation or b"")
                return Promoted(now.announcement, False, "active already; its evaluation was renewed")
            message = compare(measured, None if now is None else _stored(registry, now.announcement.sha256))
        except RefusedError as error:
            if not force:
                raise
            forced, message = True, str(error)
            if isinstance(error, EvaluationError) and not _belongs(sha256, evaluation):
                own = None
        uri = registry.put(path, sha256, own)
        if graph is None:
            graph = _put_graph(registry, detector)
        try:
            announcement = active.announce(
                sha256=sha256,
                name=name,
                uri=uri,
                forced=forced,
                replacing=now,
                size_bytes=path.stat().st_size,
                graph=graph,
            )
            return Promoted(announcement, True, message)
        except ChangedMeanwhileError:
            continue  # run the gate again against the new active weights
    raise RefusedError(f"other promotions won {_ROUNDS} times in a row; try again")


def _put_graph(registry: Registry, detector: LoadedDetector) -> GraphFile | None:
    """Store the graph of weights, for workers without torch; None where OpenVINO, which makes it, is not installed."""
    if find_spec("openvino") is None:
        return None
    from pipeline.contracts import GraphFile
    from pipeline.graphs.format import pack
    from pipeline.graphs.make import make_graph

    packed = pack(make_graph(detector.model, detector.sha256))
    return GraphFile(sha256=registry.put_graph(packed), size_bytes=len(packed))


def _valid(path: Path) -> LoadedDetector:
    """A checkpoint that can score."""
    try:
        detector = load_detector(path)
    except (CheckpointError, ConfigError) as error:
        raise InvalidWeightsError(str(error)) from error
    bad = [name for name, tensor in detector.model.state_dict().items() if not bool(tensor.isfinite().all())]
    if bad:
        raise InvalidWeightsError(f"{path}: {bad[0]} is not finite")
    return detector


def _of(sha256: str, evaluation: bytes | None) -> Evaluation:
    if evaluation is None:
        raise EvaluationError("no evaluation: run `unmask evaluate --json`, and pass its output")
    parsed = Evaluation.parse(evaluation)
    if parsed.weights_sha256 != sha256:
        raise EvaluationError(f"the evaluation is of weights {parsed.weights_sha256}, not of {sha256}")
    return parsed


def _belongs(sha256: str, evaluation: bytes | None) -> bool:
    try:
        _of(sha256, evaluation)
    except EvaluationError:
        return False
    return True


def _stored(registry: Registry, sha256: str) -> Evaluation:
    """The evaluation of the active weights.

    Raises:
        EvaluationError: it does not exist or is unusable.
    """
    try:
        return _of(sha256, registry.evaluation(sha256))
    except NotInRegistryError as error:
        raise EvaluationError(f"nothing to compare with: no evaluation of the active weights: {error}") from error
    except EvaluationError as error:
        raise EvaluationError(f"nothing to compare with: the active weights': {error}") from error
