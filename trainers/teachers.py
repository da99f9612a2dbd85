"""Teachers: detectors whose mean log-odds and features a smaller detector learns."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from models.architectures import load_detector
from models.base import BaseModel
from models.checkpoint_info import Calibration
from models.errors import UnmaskError
from models.layers.normalize import Normalize
from models.precision import precision_for
from models.spec import CropGeometry
from models.zoo import resolve
from trainers.losses.config import DistilConfig
from trainers.readout import log_odds, read_out


class TeacherError(UnmaskError, ValueError):
    """Teachers that do not match the student or each other; the message says why."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Teachers' outputs for B images.

    Attributes:
        log_odds: float32 [B], the mean over the teachers.
        features: float32 [B, width], one a teacher.
    """

    log_odds: Tensor
    features: tuple[Tensor, ...]


class Teachers:
    """One or several detectors that score the same images, each at its own size and normalisation.

    Attributes:
        sha256: of each checkpoint.
        size_px: of the largest input among them.
        widths: of the features of each.
    """

    def __init__(
        self, config: DistilConfig, geometry: CropGeometry | None, device: torch.device, *, mixed_precision: bool
    ) -> None:
        """Load them.

        Args:
            config: names them, and sets whether their calibration is applied.
            geometry: of the student's crops, also used for the teachers; None: the first teacher's.
            device: where they run.
            mixed_precision: whether they run in the reduced precision that the device computes fast.

        Raises:
            TeacherError: one was trained on another crop geometry, does not have two classes, or is named twice.
            models.zoo.ZooError: no such file or name.
            models.checkpoint.CheckpointError: not a checkpoint.
        """
        self._layout = precision_for(device).memory_format
        loaded = [load_detector(name) for name in config.teachers]
        if len({one.sha256 for one in loaded}) < len(loaded):
            raise TeacherError(f"the same weights are named twice: {', '.join(config.teachers)}")
        geometry = geometry or loaded[0].model.input_spec.geometry
        for name, one in zip(config.teachers, loaded, strict=True):
            if one.model.input_spec.geometry != geometry:
                raise TeacherError(
                    f"teacher {name} needs crops by {one.model.input_spec.geometry}, but gets those by {geometry}"
                )
            if one.model.config.num_classes != 2:
                raise TeacherError(f"teacher {name} must have 2 classes, has {one.model.config.num_classes}")
        self._parts = [
            _Teacher(
                one.model.requires_grad_(False).to(device).to(memory_format=self._layout),
                Normalize(one.model.input_spec).to(device),
                one.info.calibration if config.calibrated else Calibration(),
            )
            for one in loaded
        ]
        for part in self._parts:
            part.model.mixed_precision = mixed_precision
        self.sha256 = tuple(one.sha256 for one in loaded)
        self.size_px = max(one.model.input_spec.size for one in loaded)
        self.widths = tuple(part.model.num_features for part in self._parts)

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Answers:
        """Their outputs for uint8 [B, 3, S, S], on their device; a teacher of another size gets it resized."""
        found = [self._ask(part, pixels) for part in self._parts]
        return Answers(torch.stack([answer for answer, _ in found]).mean(0), tuple(features for _, features in found))

    def _ask(self, part: _Teacher, pixels: Tensor) -> tuple[Tensor, Tensor]:
        images, size = pixels.float(), part.model.input_spec.size
        if images.shape[-1] != size:
            images = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
        images = part.normalize(images).contiguous(memory_format=self._layout)
        features, logits = read_out(part.model, images)
        found = log_odds(logits)
        calibrated = part.calibration.log_odds(found.float().cpu().numpy())
        return torch.from_numpy(calibrated).to(found), features.float()


@dataclass(frozen=True, slots=True)
class _Teacher:
    model: BaseModel
    normalize: Normalize
    calibration: Calibration


def teachers_sha256(names: Sequence[str]) -> tuple[str, ...]:
    """sha256 of the checkpoint of each teacher, without loading it.

    Raises:
        models.zoo.ZooError: no such file or name.
    """
    digests = []
    for name in names:
        with resolve(name).open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return tuple(digests)
