"""Assembles a scoring process from names: detector, weights, backend, device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from models.architectures import get_model, load_detector
from models.base import BaseModel
from models.checkpoint import Calibration, CheckpointInfo, weights_sha256
from models.ensemble import Combination, combined_thresholds
from models.precision import best_device
from models.zoo import default_detector, split_names
from pipeline.contracts import Provenance
from pipeline.faces.create import create_detector
from pipeline.faces.views import Looks
from pipeline.scan import ClipCost, Progress, Scanner
from pipeline.scanner_options import ScannerOptions
from pipeline.scoring.backends import create_backend
from pipeline.scoring.engine import Engine
from pipeline.scoring.group import EngineGroup
from pipeline.sources import SourceLimits
from pipeline.verdict.coverage import MIN_COVERAGE
from pipeline.video.sandbox import DecodeServer, Limits

UNTRAINED_SEED = 0


@dataclass(frozen=True)
class Detector:
    """A deepfake detector ready to score, with what its verdicts say of it.

    Attributes:
        info: header of its checkpoint; None for an untrained one.
        sha256: of its weights.
    """

    model: BaseModel
    info: CheckpointInfo | None
    sha256: str

    @property
    def name(self) -> str:
        """Name for the record."""
        return (self.info.name if self.info else None) or self.model.architecture


def load(*, architecture: str | None, weights: str | Path | None, untrained: bool) -> Detector:
    """The detector that was asked for.

    Args:
        architecture: one of `list_architectures()`; weights bring their own, which must be the same if both are given.
        weights: a checkpoint's path or a zoo name; None takes the ones that come with the package.
        untrained: random weights from seed 0, for trying the line out; their scores mean nothing.

    Raises:
        CheckpointError: the weights cannot be read, or are of another architecture.
        ValueError: unknown architecture, or both weights and `untrained`.
        ZooError: the weights are neither a file nor a name, or are not here.
    """
    if untrained and weights is not None:
        raise ValueError("either weights or untrained is wanted, not both")
    if untrained:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(UNTRAINED_SEED)
            model = get_model(architecture or "xception", pretrained=False).eval()
        return Detector(model, None, weights_sha256(model.state_dict()))
    weights = weights or default_detector()
    loaded = load_detector(weights)
    if architecture not in (None, loaded.model.architecture):
        raise ValueError(f"{weights} holds {loaded.model.architecture} weights, not {architecture}")
    return Detector(loaded.model, loaded.info, loaded.sha256)


def load_all(*, architecture: str | None, weights: str | Path | None, untrained: bool) -> tuple[Detector, ...]:
    """The detector that was asked for, or the members of an ensemble: weights with commas between.

    Args:
        architecture: as for `load`; of an ensemble, that of every member.
        weights: as for `load`, or several.
        untrained: as for `load`.

    Raises:
        ValueError: as `load`; or the same weights are named twice.
        CheckpointError: as `load`.
        ZooError: as `load`.
    """
    if weights is None:
        return (load(architecture=architecture, weights=None, untrained=untrained),)
    names = [Path(name) if isinstance(name, Path) else str(name) for name in split_names(weights)]
    members = tuple(load(architecture=architecture, weights=name, untrained=untrained) for name in names)
    if len({member.sha256 for member in members}) < len(members):
        raise ValueError(f"{weights}: an ensemble needs different weights, and some are named twice")
    return members


@contextmanager
def scanner(
    detector: Detector | Sequence[Detector],
    options: ScannerOptions | None = None,
    *,
    limits: Limits | None = None,
    source_limits: SourceLimits | None = None,
    portraits: bool = True,
    progress: Progress | None = None,
    cost: Callable[[ClipCost], None] | None = None,
    batch_size: Callable[[int], None] | None = None,
    min_coverage: float = MIN_COVERAGE,
    scoring: Engine | None = None,
    warm_up: bool = False,
) -> Iterator[Scanner]:
    """A scanner with its engine and decode server, closed at the end of the block.

    Args:
        detector: one, or the members of an ensemble.
        options: None: the default of each.
        source_limits: how much is read and fetched.
        portraits: keep a picture of each person for the report.
        progress: called after each frame.
        cost: called at the end of each clip.
        batch_size: called with the number of crops of each batch.
        min_coverage: share of a clip's duration that must be readable for a verdict.
        scoring: engine of the only detector, if it exists already; it is closed at the end.
        warm_up: compile all batch shapes now, instead of each at its first use.

    Raises:
        ScoringError: the weights cannot score (only with `warm_up`).
        ValueError: `scoring` with several detectors, or no face detector has this name.
        DetectorError: the face detector's network is missing or invalid.
        BackendError: the backend is not available.
        DeviceError: the device does not exist.
    """
    options = options or ScannerOptions()
    members = (detector,) if isinstance(detector, Detector) else tuple(detector)
    if scoring is not None and len(members) > 1:
        raise ValueError("an existing engine belongs to one detector, but there are several")
    with ExitStack() as stack:
        server = stack.enter_context(DecodeServer())
        faces = create_detector(
            options.face_detector,
            weights=options.face_weights,
            device=_face_device(options),
            streams=options.clips_at_once,
        )
        engines = [scoring] if scoring is not None else _engines(members, options, warm_up=warm_up)
        with _joined(members, engines, options.looks, batch_size) as engine:
            for each in engines:
                each.ready()
            judging = _judging(members, engine, options.looks)
            provenance = judging.pop("provenance")
            built = Scanner(
                engine=engine,
                **judging,
                detector=faces,
                server=server,
                sampling=options.sampling,
                provenance=Provenance(
                    **provenance,
                    detector=faces.name,
                    sampling=options.sampling.describe(),
                    decoder="none",
                    source_sha256=None,
                ),
                limits=limits or Limits(),
                source_limits=source_limits or SourceLimits(),
                min_coverage=min_coverage,
                portraits=portraits,
                progress=progress,
                cost=cost,
            )
            # Other weights may take over later; no reference here may keep these in memory.
            del detector, members, scoring, engines, each, engine
            yield built


def with_detector(scanner: Scanner, detector: Detector, scoring: Engine) -> Scanner:
    """The same scanner with other weights: another engine, all else shared.

    Args:
        scanner: whose decode server and face detector stay open.
        detector: the weights.
        scoring: their engine, which the new scanner owns.
    """
    engine = _joined((detector,), [scoring], scanner.looks, scanner.engine.batch_size)
    judging = _judging((detector,), engine, scanner.looks)
    provenance = scanner.provenance.model_copy(update=judging.pop("provenance"))
    return replace(scanner, engine=engine, provenance=provenance, **judging)


def _engines(members: Sequence[Detector], options: ScannerOptions, *, warm_up: bool) -> list[Engine]:
    """An engine for each member; all backends exist before the first engine starts."""
    backends = [create_backend(member.model, backend=options.backend, device=options.device) for member in members]
    return [Engine(backend, warm_up=warm_up) for backend in backends]


def _joined(
    members: Sequence[Detector], engines: Sequence[Engine], looks: Looks, batch_size: Callable[[int], None] | None
) -> Engine | EngineGroup:
    """One plain engine where that is enough, else a group."""
    for engine in engines:
        engine.begin(batch_size)
    if len(engines) == 1 and not looks:
        return engines[0]
    return EngineGroup(engines, [member.model.input_spec for member in members], combination(members), looks)


def _face_device(options: ScannerOptions) -> str:
    """Where the face detector runs: on CUDA with the scores, if it can; a full frame takes a CPU core 80 to 250 ms."""
    if options.face_detector != "mtcnn" or options.backend == "openvino":
        return "cpu"
    device = best_device(options.device)
    return str(device) if device.type == "cuda" else "cpu"


def combination(members: Sequence[Detector]) -> Combination:
    """How the members' scores become one."""
    return Combination.of([member.info.calibration if member.info else Calibration() for member in members])


def _judging(members: Sequence[Detector], engine: Engine | EngineGroup, looks: Looks) -> dict[str, Any]:
    """The fields of a scanner that depend on its weights; of the provenance, what a record says of the weights."""
    specs = [member.model.input_spec for member in members]
    return {
        "spec": max(specs, key=lambda spec: spec.size),
        "calibration": combination(members).calibration if all(member.info for member in members) else None,
        "thresholds": combined_thresholds([member.info.thresholds if member.info else None for member in members]),
        "looks": looks,
        "provenance": {
            "model": "+".join(member.name for member in members),
            "weights_sha256": [member.sha256 for member in members],
            "input_spec": describe_input([spec.hash for spec in specs], looks),
            "software": f"unmask {version('unmask')} ({engine.name})",
            "untrained": any(member.info is None for member in members),
            "network": "+".join(member.model.network for member in members),
        },
    }


def describe_input(hashes: Sequence[str], looks: Looks) -> str:
    """Input of the members and looks at each face, as the record has them: equal inputs, equal text."""
    return "+".join(hashes) + (f";looks={looks.describe()}" if looks else "")
