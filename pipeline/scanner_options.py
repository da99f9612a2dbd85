"""How clips are read and scored: the options of a scanner, whichever command or service starts it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from models.cores import available_cores
from pipeline.faces.views import Looks
from pipeline.video.sampling import Fps, Sampling


@dataclass(frozen=True, slots=True)
class ScannerOptions:
    """Options of `pipeline.assembly.scanner`.

    Attributes:
        sampling: which frames are scored.
        face_detector: mtcnn or yunet.
        face_weights: file of its network; None: the default one.
        looks: at each face, in addition to the plain one.
        backend: of the detector: auto, openvino, torch or torch-compiled.
        device: auto, cpu, cuda, cuda:1, mps ...
        workers: clips at once; None: one per core keeps the cores busy, one more covers what waits.
    """

    sampling: Sampling = field(default_factory=Fps)
    face_detector: str = "mtcnn"
    face_weights: Path | None = None
    looks: Looks = field(default_factory=Looks)
    backend: str = "auto"
    device: str = "auto"
    workers: int | None = None

    @property
    def clips_at_once(self) -> int:
        """`workers`, or the default for this machine."""
        return self.workers or available_cores() + 1
