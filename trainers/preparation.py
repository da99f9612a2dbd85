"""Prepares a batch for the losses: mixed images, degraded copies, the teachers' outputs.

Nothing here has gradients, and random numbers come from a separate generator: a resumed run draws the same ones, and
dropout does not depend on which losses are on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.spec import CropGeometry
from trainers.data.manifest import FAKE, Manifest
from trainers.losses.config import LossConfig
from trainers.losses.degradations import degraded
from trainers.losses.mixup import mix_pairs
from trainers.losses.ordered import reached
from trainers.teacher_cache import TeacherCache
from trainers.teachers import Answers, TeacherError, Teachers


class Preparation:
    """Prepares batches for `Trainee`.

    Attributes:
        teacher_widths: of the features of each teacher; empty without teachers.
        teacher_sha256: of the checkpoint of each.
    """

    def __init__(
        self,
        config: LossConfig,
        manifest: Manifest,
        geometry: CropGeometry,
        device: torch.device,
        *,
        mixed_precision: bool,
    ) -> None:
        """Load the teachers, or their cached outputs.

        Args:
            config: the losses of the run.
            manifest: the training rows; `row` in a batch is an index into it.
            geometry: of the detector's crops.
            device: where the run trains.
            mixed_precision: see `Teachers`.

        Raises:
            TeacherError: the teachers or their cached outputs do not match the run.
            models.zoo.ZooError: no such teacher.
            models.checkpoint.CheckpointError: a teacher's file is not a checkpoint.
        """
        self.config, self.device = config, device
        self._teachers: Teachers | None = None
        self._cache: TeacherCache | None = None
        distil = config.distil
        if distil.cache:
            self._cache = TeacherCache.read(Path(distil.cache), distil)
            self._places = self._cache.places(manifest)
            if not (self._places >= 0).any():
                raise TeacherError(f"{distil.cache}: has no teacher outputs for any image of the manifest")
        elif distil.teachers:
            self._teachers = Teachers(distil, geometry, device, mixed_precision=mixed_precision)
        source = self._cache or self._teachers
        self.teacher_widths = source.widths if source else ()
        self.teacher_sha256 = source.sha256 if source else ()

    def describe(self) -> str:
        """A line about the teachers for the log; empty without teachers."""
        if not self.teacher_sha256:
            return ""
        names = ", ".join(
            f"{name} (sha256 {digest[:16]})"
            for name, digest in zip(self.config.distil.teachers, self.teacher_sha256, strict=True)
        )
        if self._cache is None:
            return f"teachers: {names}"
        share = float((self._places >= 0).float().mean())
        return f"teachers: {names}, cached outputs for {share:.0%} of the rows"

    def __call__(self, batch: Mapping[str, Tensor], rng: np.random.Generator) -> dict[str, Tensor]:
        """A batch on the device, with everything that the active losses need.

        Args:
            batch: as the loader yields it, on the CPU; a label of -1 is unknown.
            rng: source of randomness.

        Returns:
            The batch, plus, as needed: `fake_share`, float32 [B], and `label_known`, bool [B], in place of
            whole labels; `thresholds`, float32 [B, 3], and `kind_known`, bool [B]; `degraded`, uint8 [M, 3, S, S], and
            `degraded_of`, int64 [M], the places of their originals; `teacher_log_odds`, float32 [B], `teacher_known`,
            bool [B], and `teacher_features_0` ..., float32 [B, width].
        """
        config = self.config
        # One stream for each: draws from one do not change the others.
        mixing, degrading, asking = rng.spawn(3)
        soft = bool((batch["labels"] < 0).any() or (batch["certainty"] < 1).any())
        ready = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
        if soft or config.mixup.share > 0:
            ready["label_known"] = ready["labels"] >= 0
            ready["fake_share"] = torch.where(ready["labels"] == FAKE, ready["certainty"], 1 - ready["certainty"])
        if config.ordered.weight > 0:
            ready["kind_known"] = ready["kind"] >= 0
            ready["thresholds"] = reached(ready["kind"])
        if config.mixup.share > 0:
            ready = mix_pairs(ready, config.mixup, mixing)
        count = len(ready["labels"])
        if config.consistency.is_on:
            which = _some(count, config.consistency.share, degrading)
            ready["degraded_of"] = torch.from_numpy(which).to(self.device)
            ready["degraded"] = degraded(ready["images"][ready["degraded_of"]], config.consistency, degrading)
        if self._teachers is not None:
            which = _some(count, config.distil.share, asking)
            ready |= _spread(self._teachers(ready["images"][which]), torch.from_numpy(which).to(self.device), count)
        elif self._cache is not None:
            ready |= self._looked_up(batch["row"], ready.get("mixed"))
        return ready

    def _looked_up(self, rows: Tensor, mixed: Tensor | None) -> dict[str, Tensor]:
        """Cached outputs for the images of a batch; none for generated or mixed ones."""
        assert self._cache is not None
        places = torch.where(rows >= 0, self._places[rows.clamp(min=0)], -1)
        if mixed is not None:
            places = torch.where(mixed.cpu(), -1, places)
        which = torch.nonzero(places >= 0)[:, 0]
        found, answers = places[which], self._cache.answers
        looked_up = Answers(
            answers.log_odds[found].to(self.device),
            tuple(values[found].float().to(self.device) for values in answers.features),
        )
        return _spread(looked_up, which.to(self.device), len(rows))


def _some(count: int, share: float, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Places of a share of a batch, at least one, in order."""
    return np.sort(rng.permutation(count)[: max(1, math.ceil(count * share))])


def _spread(answers: Answers, which: Tensor, count: int) -> dict[str, Tensor]:
    """Outputs for the images at the places `which` of a batch, zero elsewhere."""

    def whole(values: Tensor) -> Tensor:
        return values.new_zeros((count, *values.shape[1:])).index_copy(0, which, values)

    known = torch.zeros(count, dtype=torch.bool, device=which.device)
    known[which] = True
    features = {f"teacher_features_{i}": whole(values) for i, values in enumerate(answers.features)}
    return {"teacher_log_odds": whole(answers.log_odds), "teacher_known": known, **features}
