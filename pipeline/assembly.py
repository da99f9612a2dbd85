"""Assembles a scoring process from names: detector, weights, backend, device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from models.checkpoint_info import Calibration
from models.device_choice import choose_device
from models.ensemble import Combination, combined_thresholds
from pipeline.contracts import Provenance
from pipeline.detectors import Detector
from pipeline.faces.create import create_detector
from pipeline.faces.views import Looks
from pipeline.manifests.reader import CredentialsReader
from pipeline.scan import ClipCost, Progress, Scanner
from pipeline.scanner_options import ScannerOptions
from pipeline.scoring.backends import create_backend
from pipeline.scoring.engine import Engine
from pipeline.scoring.group import EngineGroup
from pipeline.sources import SourceLimits
from pipeline.verdict.coverage import MIN_COVERAGE
from pipeline.video.sandbox import DecodeServer, Limits


@contextmanager
def scanner(
    detector: Detector | Sequence[Detector],
    options: ScannerOptions | None = None,
    *,
    limits: Limits | None = None,
    source_limits: SourceLimits | None = None,
    portraits: bool = True,
    prints: bool = False,
    progress: Progress | None = None,
    cost: Callable[[ClipCost], None] | None = None,
    batch_size: Callable[[int], None] | None = None,
    min_coverage: float = MIN_COVERAGE,
    scoring: Engine | None = None,
    warm_up: bool = False,
    server: DecodeServer | None = None,
    credentials: CredentialsReader | None = None,
) -> Iterator[Scanner]:
    """A scanner with its engine and decode server, closed at the end of the block.

    Args:
        detector: one, or the members of an ensemble.
        options: None: the default of each.
        source_limits: how much is read and fetched.
        portraits: keep a picture of each person for the report.
        prints: make a print of each clip.
        progress: called after each frame.
        cost: called at the end of each clip.
        batch_size: called with the number of crops of each batch.
        min_coverage: share of a clip's duration that must be readable for a verdict.
        scoring: engine of the only detector, if it exists already; it is closed at the end.
        warm_up: compile all batch shapes now, instead of each at its first use.
        server: decodes, if it exists already; it is closed at the end.
        credentials: reads the Content Credentials of each file; None: nobody looks.

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
        server = stack.enter_context(server or DecodeServer())
        # The decoders, the face detector and the detector load at the same time.
        server.start()
        with ThreadPoolExecutor(1) as loading:
            finding = loading.submit(
                create_detector,
                options.face_detector,
                weights=options.face_weights,
                device=_face_device(options),
                streams=options.clips_at_once,
            )
            engines = [scoring] if scoring is not None else _engines(members, options, warm_up=warm_up)
            faces = finding.result()
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
                prints=prints,
                progress=progress,
                cost=cost,
                credentials=credentials,
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
    backends = [create_backend(member, backend=options.backend, device=options.device) for member in members]
    return [Engine(backend, warm_up=warm_up) for backend in backends]


def _joined(
    members: Sequence[Detector], engines: Sequence[Engine], looks: Looks, batch_size: Callable[[int], None] | None
) -> Engine | EngineGroup:
    """One plain engine where that is enough, else a group."""
    for engine in engines:
        engine.begin(batch_size)
    if len(engines) == 1 and not looks:
        return engines[0]
    return EngineGroup(engines, [member.input_spec for member in members], combination(members), looks)


def _face_device(options: ScannerOptions) -> str:
    """Where the face detector runs: on CUDA with the scores, if it can; a full frame takes a CPU core 80 to 250 ms."""
    if options.face_detector != "mtcnn" or options.backend == "openvino":
        return "cpu"
    device = choose_device(options.device)
    return device if device.startswith("cuda") else "cpu"


def combination(members: Sequence[Detector]) -> Combination:
    """How the members' scores become one."""
    return Combination.of([member.info.calibration if member.info else Calibration() for member in members])


def _judging(members: Sequence[Detector], engine: Engine | EngineGroup, looks: Looks) -> dict[str, Any]:
    """The fields of a scanner that depend on its weights; of the provenance, what a record says of the weights."""
    specs = [member.input_spec for member in members]
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
            "network": "+".join(member.network for member in members),
        },
    }


def describe_input(hashes: Sequence[str], looks: Looks) -> str:
    """Input of the members and looks at each face, as the record has them: equal inputs, equal text."""
    return "+".join(hashes) + (f";looks={looks.describe()}" if looks else "")
