"""`unmask retrain` behind its options: rows, run, calibration, two evaluations, the gate, promotion."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from models.architectures import LoadedDetector, load_detector
from models.atomic import atomic_write
from pipeline.scanner_options import ScannerOptions
from trainers.calibrate import CalibrateOptions, calibrate
from trainers.calibration_fit import DetectsNothingError
from trainers.data.images import ImageStore
from trainers.data.manifest import FAKE, REAL, Manifest
from trainers.evaluation.ladder import LadderName
from trainers.evaluation.run import EvaluateOptions, evaluate_sets
from trainers.evaluation.sets import CropSet
from trainers.gate import Evaluation, RefusedError
from trainers.loop import BEST, train
from trainers.retraining.plan import (
    HELD_OUT_DECISIONS,
    TRAINING,
    VALIDATION,
    Parts,
    RetrainError,
    config_of,
    identity_of,
    parts_of,
)
from trainers.retraining.rules import Check, on_base, on_decisions, on_false_alarms
from trainers.run import runs_dir

if TYPE_CHECKING:
    from trainers.config import TrainConfig


REPORT_SCHEMA: Final = 1
REPORT: Final = "report.json"
BASE_SET, DECISIONS = "base set", "decisions"
_SUFFIX = re.compile(r"-r[0-9a-f]{8}$")


class NothingNewError(RefusedError):
    """The weights learned from these decisions already: another round would only fit those that were held out."""


@dataclass(frozen=True, slots=True)
class RetrainOptions:
    """Options of `unmask retrain`.

    Attributes:
        decisions: manifest of `unmask labels export`.
        replay: manifest of the base set, with validation rows of both classes.
        weights: a checkpoint, fine-tuned and compared with.
        out: folder of the run; None: one in the folder of all runs, named after everything that the result depends on.
        samples: images shown.
        replay_share: share of the pairs that the base set gives.
        margin: largest loss of AUC on the base set.
        ladder: of degradations that are compared.
        ladder_rows: of them.
        fpr: that the thresholds are chosen for.
        calibration_rows: crops for calibration; None: all.
        seed: of the run.
        settings: of the run, `key=value`.
        device: see `models.precision.best_device`.
        backend: that evaluates.
    """

    decisions: Path
    replay: Path
    weights: Path
    out: Path | None = None
    samples: int = 8000
    replay_share: float = 0.7
    margin: float = 0.01
    ladder: LadderName = "short"
    ladder_rows: int = 1000
    fpr: float = 0.01
    calibration_rows: int | None = None
    seed: int = 0
    settings: tuple[str, ...] = ()
    device: str = "auto"
    backend: str = "auto"


@dataclass(frozen=True, slots=True)
class Retrained:
    """What a retraining came to.

    Attributes:
        folder: of the run.
        candidate: the new checkpoint; None if it could not be calibrated.
        active: evaluation of the weights that it started from, JSON.
        evaluation: of the new ones, JSON.
        checks: the conditions of the gate.
    """

    folder: Path
    candidate: Path | None
    active: bytes
    evaluation: bytes
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether all conditions hold."""
        return self.candidate is not None and all(check.passed for check in self.checks)


def retrain(options: RetrainOptions, say: Callable[[str], None]) -> Retrained:
    """Fine-tune, calibrate, evaluate both, and check the gate; a run that was interrupted goes on where it was.

    Args:
        options: see `RetrainOptions`.
        say: called with lines of progress.

    Raises:
        RetrainError: there is nothing to train on, or another process works in the folder.
        trainers.data.images.ImageError: a decided crop is missing or damaged.
        NothingNewError: the weights learned from the same rows.
        trainers.loop.StoppedError: interrupted.
        trainers.data.manifest.ManifestError: a manifest cannot be read.
        trainers.calibration_fit.CalibrationError: the base set has not enough to calibrate on.
        trainers.gate.EvaluationError: the two cannot be compared.
    """
    replay, decisions = Manifest.read(options.replay), Manifest.read(options.decisions)
    active = load_detector(options.weights)
    root = Path("/")
    parts = parts_of(replay, decisions, root)
    validation = replay.where(split=VALIDATION).halves()[1]
    if len(set(validation.label.tolist())) < 2:
        raise RetrainError(f"{options.replay} has no validation rows of both classes to compare on")
    if active.info.data_manifest_sha256 == parts.training.sha256:
        raise NothingNewError("the active weights learned from these decisions already")
    _check_images(decisions)
    config = config_of(
        parts,
        active.info,
        samples=options.samples,
        replay_share=options.replay_share,
        seed=options.seed,
        settings=options.settings,
    )
    judged_by = {
        name: getattr(options, name) for name in ("margin", "ladder", "ladder_rows", "fpr", "calibration_rows")
    }
    identity = identity_of(config, parts, {**judged_by, "active": active.sha256, "validation": validation.sha256})
    folder = (options.out or runs_dir() / f"retrain-{identity}").expanduser().absolute()
    with _alone(folder):
        _claim(folder, identity)
        parts.training.write(folder / TRAINING)
        start = folder / "active.safetensors"
        if not start.exists():
            with atomic_write(start) as file, options.weights.open("rb") as weights:
                shutil.copyfileobj(weights, file)
        config = replace(config, start=str(start), data=replace(config.data, manifest=str(folder / TRAINING)))
        say(f"retraining in {folder}: {_described(parts)}")
        train(config, folder / "run", device=options.device, say=say)
        facts = {
            "schema": REPORT_SCHEMA,
            "data": _facts(parts, options, config),
            "images": config.samples,
            "margin": options.margin,
        }
        try:
            candidate = _calibrated(options, folder, active, identity)
        except DetectsNothingError as error:
            checks: tuple[Check, ...] = (Check("calibration", False, str(error)),)
            _write(folder, facts | {"passed": False, "checks": [asdict(check) for check in checks]})
            return Retrained(folder, None, b"", b"", checks)
        sets = [CropSet(BASE_SET, options.replay, replay, validation, VALIDATION, "report")]
        if len(parts.held_out):
            parts.held_out.write(folder / HELD_OUT_DECISIONS)
            held_out = Manifest.read(folder / HELD_OUT_DECISIONS)
            sets.append(CropSet(DECISIONS, folder / HELD_OUT_DECISIONS, held_out, held_out, None, None))
        theirs, ours = (
            _evaluated(options, sets, weights, folder / f"{name}.evaluation.json", say)
            for name, weights in (("active", start), ("candidate", candidate))
        )
        checks = tuple(_checks(ours, theirs, options))
        facts |= {"passed": all(check.passed for check in checks), "checks": [asdict(check) for check in checks]}
        _write(folder, facts | {"active": json.loads(theirs)["model"], "candidate": json.loads(ours)["model"]})
    return Retrained(folder, candidate, theirs, ours, checks)


def _check_images(decisions: Manifest) -> None:
    """Read all decided crops, before anything is trained on some of them.

    Raises:
        trainers.data.images.ImageError: one is missing or damaged.
    """
    store = ImageStore(decisions.root)
    for path in decisions.path.tolist():
        store.load(path)


def _calibrated(options: RetrainOptions, folder: Path, active: LoadedDetector, identity: str) -> Path:
    candidate = folder / "candidate.safetensors"
    if not candidate.exists():
        made = folder / "candidate.tmp.safetensors"
        name = f"{_SUFFIX.sub('', active.info.name or active.info.architecture)}-r{identity[:8]}"
        calibrate(
            CalibrateOptions(
                folder / "run" / BEST,
                options.replay,
                made,
                name,
                split=VALIDATION,
                fpr=options.fpr,
                device=options.device,
                rows=options.calibration_rows,
            )
        )
        made.replace(candidate)
    return candidate


def _evaluated(
    options: RetrainOptions, sets: list[CropSet], weights: Path, file: Path, say: Callable[[str], None]
) -> bytes:
    """The evaluation of weights; the existing one if it was made already."""
    if not file.exists():
        say(f"evaluating {weights}")
        chosen = EvaluateOptions(
            manifests=tuple(each.source for each in sets),
            weights=str(weights),
            ladder=options.ladder,
            ladder_rows=options.ladder_rows,
            seed=options.seed,
            scan=ScannerOptions(backend=options.backend, device=options.device),
        )
        report, _ = evaluate_sets(sets, chosen)
        with atomic_write(file) as opened:
            opened.write((json.dumps(report.to_dict(), indent=2, allow_nan=False) + "\n").encode())
    return file.read_bytes()


def _write(folder: Path, report: Mapping[str, Any]) -> None:
    with atomic_write(folder / REPORT) as file:
        file.write((json.dumps(report, indent=2) + "\n").encode())


def _checks(ours: bytes, theirs: bytes, options: RetrainOptions) -> Iterator[Check]:
    candidate, active = (Evaluation.parse(each) for each in (ours, theirs))
    mine, its = ({each.name: each for each in found.sets} for found in (candidate, active))
    if DECISIONS in mine:
        yield on_decisions(mine[DECISIONS], its[DECISIONS])
    else:
        yield Check("decisions held out: better", False, "no decisions were held out")
    yield from on_base(mine[BASE_SET], its[BASE_SET], options.margin)
    yield from on_false_alarms(mine[BASE_SET], its[BASE_SET], options.fpr)


def _facts(parts: Parts, options: RetrainOptions, config: TrainConfig) -> dict[str, Any]:
    return {
        "replay": str(options.replay),
        "decisions": str(options.decisions),
        "training": _counts(parts.training),
        "decided": _counts(parts.decisions),
        "held_out": _counts(parts.held_out),
        "shares": dict(config.data.pairs.shares),
        "bases": dict(config.data.pairs.bases),
    }


def _counts(rows: Manifest) -> dict[str, int]:
    videos = {
        name: len(set(rows.source_video[rows.label == label].tolist()))
        for name, label in (("real", REAL), ("fake", FAKE))
    }
    return {"crops": len(rows), "real_videos": videos["real"], "fake_videos": videos["fake"]}


def _described(parts: Parts) -> str:
    of = {
        "to train on": parts.decisions,
        "held out": parts.held_out,
    }
    found = [
        f"{counts['real_videos']} real and {counts['fake_videos']} fake people {what}"
        for what, rows in of.items()
        for counts in [_counts(rows)]
    ]
    return f"decisions: {', '.join(found)}; replay: {', '.join(parts.replay)}"


def _claim(folder: Path, identity: str) -> None:
    """Check that the folder is of this retraining, or new."""
    file = folder / "identity"
    if file.exists() and file.read_text() != identity:
        raise RetrainError(f"{folder} holds a retraining of other data, weights or settings: use another folder")
    if not file.exists():
        for old in ("run", "candidate.safetensors"):
            if (folder / old).exists():
                raise RetrainError(f"{folder} has {old}, but of no retraining: use another folder")
    with atomic_write(file) as opened:
        opened.write(identity.encode())


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RetrainError(f"another retraining is active in {folder}") from error
        yield
