"""Puts the parts of a scoring process together from names: detector, weights, backend, device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from models.architectures import get_model, load_detector
from models.base import BaseModel
from models.checkpoint import CheckpointInfo, weights_sha256
from models.precision import available_cores
from models.zoo import default_detector
from pipeline.contracts import Provenance
from pipeline.faces.detector import create_detector
from pipeline.scan import ClipCost, Progress, Scanner
from pipeline.scoring.backends import Backend, create_backend
from pipeline.scoring.engine import Engine
from pipeline.video.sampling import Sampling
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


@contextmanager
def scanner(
    detector: Detector,
    *,
    sampling: Sampling,
    face_detector: str = "mtcnn",
    face_weights: Path | None = None,
    backend: str = "auto",
    device: str = "auto",
    workers: int | None = None,
    limits: Limits | None = None,
    max_fetch_bytes: int = 8 << 30,
    portraits: bool = True,
    progress: Progress | None = None,
    cost: Callable[[ClipCost], None] | None = None,
    batch_size: Callable[[int], None] | None = None,
    scoring: Backend | None = None,
) -> Iterator[Scanner]:
    """A scanner with its engine and decode server, closed at the end of the block.

    Args:
        cost: told at the end of each clip.
        batch_size: told the number of crops of each batch.
        scoring: of the detector, where it is there already; it is closed at the end.
    """
    with DecodeServer() as server:
        faces = create_detector(face_detector, weights=face_weights, streams=workers or default_workers())
        scoring = scoring or create_backend(detector.model, backend=backend, device=device)
        with Engine(scoring, batch_size=batch_size) as engine:
            built = Scanner(
                engine=engine,
                spec=detector.model.input_spec,
                detector=faces,
                server=server,
                sampling=sampling,
                provenance=Provenance(
                    **_told(detector, scoring),
                    detector=faces.name,
                    sampling=sampling.describe(),
                    decoder="none",
                    source_sha256=None,
                ),
                calibration=detector.info.calibration if detector.info else None,
                thresholds=detector.info.thresholds if detector.info else None,
                limits=limits or Limits(),
                max_fetch_bytes=max_fetch_bytes,
                portraits=portraits,
                progress=progress,
                cost=cost,
            )
            # Other weights may take over meanwhile; then nobody shall hold these.
            del detector, scoring
            yield built


def with_detector(scanner: Scanner, detector: Detector, scoring: Backend) -> Scanner:
    """The same scanner with other weights: an engine of its own, all else shared.

    Args:
        scanner: whose decode server and face detector stay open.
        detector: the weights.
        scoring: their backend; the new engine closes it.
    """
    return replace(
        scanner,
        engine=Engine(scoring, batch_size=scanner.engine.batch_size),
        spec=detector.model.input_spec,
        provenance=scanner.provenance.model_copy(update=_told(detector, scoring)),
        calibration=detector.info.calibration if detector.info else None,
        thresholds=detector.info.thresholds if detector.info else None,
    )


def _told(detector: Detector, scoring: Backend) -> dict[str, Any]:
    """What a record's provenance says of the weights and of what computes with them."""
    return {
        "model": detector.name,
        "weights_sha256": [detector.sha256],
        "input_spec": detector.model.input_spec.hash,
        "software": f"unmask {version('unmask')} ({scoring.name})",
        "untrained": detector.info is None,
    }


def default_workers() -> int:
    """Clips at once: one a core keeps the cores busy, one more covers what waits for its decoder or scores."""
    return available_cores() + 1
