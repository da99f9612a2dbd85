"""Promotion: puts weights that pass the gate into the registry, and announces them.

The gate refuses a candidate that is worse than the active weights on the main set of crops: the whole 95 % interval of
the difference is below 0. A candidate that is not proven better passes, since a detector may be chosen for robustness
or speed.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.architectures import LoadedDetector, load_detector
from models.checkpoint import CheckpointError
from models.config import ConfigError
from models.zoo import resolve
from pipeline.weights.registry import NotInRegistryError, Registry
from trainers.gate import Evaluation, EvaluationError, RefusedError, compare

if TYPE_CHECKING:
    from pipeline.contracts import Announcement, Canary, GraphFile
    from pipeline.weights.announced import ActiveWeights
    from pipeline.weights.canary import Canaries

# Of concurrent promotions, one wins each round.
_ROUNDS = 20


class InvalidWeightsError(RefusedError):
    """The file is not a detector that can score. `force` does not override it."""


@dataclass(frozen=True, slots=True)
class Trial:
    """How weights are tried before they are active.

    Attributes:
        canaries: where they are announced.
        share: of the videos that they judge, at most 0.5.
        tolerance: by how much the share of videos called fake may differ.
    """

    canaries: Canaries
    share: float
    tolerance: float

    def running(self, sha256: str, active: str) -> Canary | None:
        """The announced canary, if it is of these weights, beside these active ones, with this share and tolerance."""
        from pipeline.weights.announced import AnnouncementError
        from pipeline.weights.canary import NoCanaryError

        try:
            canary = self.canaries.read().canary
        except (NoCanaryError, AnnouncementError):
            return None
        same = (canary.sha256, canary.previous, canary.share, canary.tolerance)
        return canary if same == (sha256, active, self.share, self.tolerance) else None


@dataclass(frozen=True, slots=True)
class Promoted:
    """What was done.

    Attributes:
        announcement: of the weights; the existing one if the same weights were active already.
        news: whether a new announcement was made.
        message: the gate's result, or the reason it would have refused.
    """

    announcement: Announcement
    news: bool
    message: str


def promote(
    weights: str | Path,
    evaluation: bytes | None,
    *,
    registry: Registry,
    active: ActiveWeights,
    force: bool = False,
    trial: Trial | None = None,
    evaluation_of_active: bytes | None = None,
    unattended: bool = False,
) -> Promoted:
    """Put weights into the registry and announce them to the workers, if they pass the gate.

    Weights that are active already are not announced again; their evaluation is renewed.

    Args:
        weights: a checkpoint's path or zoo name.
        evaluation: what `unmask evaluate --json` wrote of it.
        registry: takes them, and has those of the active ones.
        active: the announcement.
        force: override the gate; never for an invalid file.
        trial: announce them as a canary; None: for all videos.
        evaluation_of_active: of the active weights, in place of the one in the registry.
        unattended: no person chose these weights: those that were withdrawn, or whose canary was ended, are refused.

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
        if unattended:
            _check_not_withdrawn(sha256, active, trial)
        if trial is not None and now is None:
            raise RefusedError("no weights are active that a canary could be compared with")
        if trial is not None and now is not None and (running := trial.running(sha256, now.announcement.sha256)):
            return Promoted(running, False, "the canary already: its counts go on")
        forced, own = False, evaluation
        try:
            measured = _of(sha256, evaluation)
            if now is not None and now.announcement.sha256 == sha256:
                registry.put_evaluation(sha256, evaluation or b"")
                return Promoted(now.announcement, False, "active already; its evaluation was renewed")
            before = None
            if now is not None:
                theirs = now.announcement.sha256
                given = evaluation_of_active
                before = _stored(registry, theirs) if given is None else _of(theirs, given)
            message = compare(measured, before)
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
            facts: dict[str, Any] = {"sha256": sha256, "name": name, "uri": uri, "forced": forced, "graph": graph}
            facts["size_bytes"] = path.stat().st_size
            announcement: Announcement
            if trial is None:
                announcement = active.announce(**facts, replacing=now)
            else:
                assert now is not None
                announcement = trial.canaries.begin(**facts, beside=now, share=trial.share, tolerance=trial.tolerance)
            return Promoted(announcement, True, message)
        except ChangedMeanwhileError:
            continue  # run the gate again against the new active weights
    raise RefusedError(f"other promotions won {_ROUNDS} times in a row; try again")


def _check_not_withdrawn(sha256: str, active: ActiveWeights, trial: Trial | None) -> None:
    """Refuse what a person or an alarm took out of use.

    Raises:
        RefusedError: it was.
    """
    if active.is_withdrawn(sha256):
        raise RefusedError("these weights were rolled back: a person may promote them again (unmask promote)")
    if trial is not None and (why := trial.canaries.why_ended(sha256)):
        raise RefusedError(f"the canary of these weights was ended: {why}")


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
