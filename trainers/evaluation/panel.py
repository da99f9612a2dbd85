"""The evaluated detector or ensemble, with its views of each face."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import numpy as np

from models.architectures import LoadedDetector, load_detector
from models.checkpoint import CheckpointError, CheckpointInfo
from models.ensemble import Combination, combined_thresholds
from models.zoo import split_names
from pipeline.faces.views import Looks, View
from pipeline.scoring.backend import Backend
from pipeline.scoring.backends import create_backend
from pipeline.types import Floats, Image
from trainers.evaluation.inference import infer


@dataclass(frozen=True, slots=True)
class Panel:
    """Detectors that judge together.

    Attributes:
        members: at least one.
        looks: the views of each face.
        info: of the only member; for an ensemble its names, largest input, calibration and thresholds.
    """

    members: tuple[LoadedDetector, ...]
    looks: Looks
    info: CheckpointInfo
    combination: Combination

    @classmethod
    def of(cls, members: Sequence[LoadedDetector], looks: Looks | None = None) -> Panel:
        """Of loaded detectors.

        Raises:
            CheckpointError: the same weights are given twice.
        """
        if len({member.sha256 for member in members}) < len(members):
            raise CheckpointError("an ensemble needs different weights, some are named twice")
        infos = [member.info for member in members]
        combination = Combination.of([info.calibration for info in infos])
        return cls(tuple(members), looks or Looks(), _joined(infos, combination), combination)

    @property
    def sha256(self) -> str:
        """sha256 of the weights, joined by +."""
        return "+".join(member.sha256 for member in self.members)

    @contextmanager
    def backend(self, *, backend: str = "auto", device: str = "auto") -> Iterator[PanelBackend | Backend]:
        """The backend that computes the scores, closed at the end of the block.

        Raises:
            BackendError: it is not available here.
            DeviceError: the device does not exist.
        """
        with ExitStack() as stack:
            backends = []
            for member in self.members:
                backends.append(create_backend(member.model, backend=backend, device=device))
                stack.callback(backends[-1].close)
            if len(backends) == 1 and not self.looks:
                yield backends[0]
                return
            wanted = [self.looks.views(member.info.input_spec) for member in self.members]
            yield PanelBackend(tuple(backends), tuple(wanted), self.combination, self.info.input_spec.size)


@dataclass(frozen=True, slots=True)
class PanelBackend:
    """The members' backends, and which views of a crop each of them scores.

    Attributes:
        input_size: of the largest member, in px.
        views: of all members, each once.
    """

    backends: tuple[Backend, ...]
    wanted: tuple[tuple[View, ...], ...]
    combination: Combination
    input_size: int
    views: tuple[View, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "views", tuple(dict.fromkeys(view for views in self.wanted for view in views)))

    @property
    def name(self) -> str:
        """Names of the backends."""
        return "+".join(dict.fromkeys(backend.name for backend in self.backends))

    def infer(self, crops: Sequence[Image]) -> Floats:
        """Log-odds of fake before the combination's calibration, float32 [N]: see `EngineGroup.submit`.

        Args:
            crops: uint8 [N, S, S, 3] for each of `views`, in its order.

        Raises:
            BackendError: a call failed.
        """
        scored = []
        for backend, views in zip(self.backends, self.wanted, strict=True):
            looks = [infer(backend, crops[self.views.index(view)]) for view in views]
            scored.append(np.mean(looks, axis=0))
        return self.combination.combine(np.stack(scored))


def load_panel(weights: str, looks: Looks | None = None) -> Panel:
    """The detectors in a comma-separated list.

    Raises:
        ZooError: neither a named detector nor a file.
        CheckpointError: not a checkpoint, its weights do not fit its options, or the same weights are given twice.
        ConfigError: an architecture or option that this version does not have.
    """
    return Panel.of([load_detector(name) for name in split_names(weights)], looks)


def _joined(infos: Sequence[CheckpointInfo], combination: Combination) -> CheckpointInfo:
    if len(infos) == 1:
        return infos[0]
    return CheckpointInfo(
        architecture="+".join(info.architecture for info in infos),
        config={},
        input_spec=max((info.input_spec for info in infos), key=lambda spec: spec.size),
        name="+".join(info.name or info.architecture for info in infos),
        calibration=combination.calibration,
        thresholds=combined_thresholds([info.thresholds for info in infos]),
    )
