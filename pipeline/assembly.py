"""Puts the parts of a scoring process together from names: detector, weights, backend, device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from models.architectures import get_model, load_detector
from models.base import BaseModel
from models.checkpoint import CheckpointInfo, weights_sha256
from models.precision import available_cores
from models.zoo import default_detector
from pipeline.contracts import Provenance
from pipeline.faces.detector import create_detector
from pipeline.scan import ClipCost, Progress, Scanner
from pipeline.scoring.backends import create_backend
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
) -> Iterator[Scanner]:
    """A scanner with its engine and decode server, closed at the end of the block.

    Args:
        cost: told at the end of each clip.
        batch_size: told the number of crops of each batch.
    """
    with DecodeServer() as server:
        faces = create_detector(face_detector, weights=face_weights, streams=workers or default_workers())
        scoring = create_backend(detector.model, backend=backend, device=device)
        with Engine(scoring, batch_size=batch_size) as engine:
            yield Scanner(
                engine=engine,
                spec=detector.model.input_spec,
                detector=faces,
                server=server,
                sampling=sampling,
                provenance=Provenance(
                    model=detector.name,
                    weights_sha256=[detector.sha256],
                    input_spec=detector.model.input_spec.hash,
                    detector=faces.name,
                    sampling=sampling.describe(),
                    decoder="none",
                    software=f"unmask {version('unmask')} ({scoring.name})",
                    source_sha256=None,
                    untrained=detector.info is None,
                ),
                calibration=detector.info.calibration if detector.info else None,
                thresholds=detector.info.thresholds if detector.info else None,
                limits=limits or Limits(),
                max_fetch_bytes=max_fetch_bytes,
                portraits=portraits,
                progress=progress,
                cost=cost,
            )


def default_workers() -> int:
    """Clips at once: one a core keeps the cores busy, one more covers what waits for its decoder or scores."""
    return available_cores() + 1
