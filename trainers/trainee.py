"""The trained module: the detector with the auxiliary layers used only in training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.base import BaseModel
from models.layers.normalize import Normalize
from trainers.data.pairs import MASK_STRIDE
from trainers.losses.classes import masked_mean, soft_cross_entropy
from trainers.losses.config import LossConfig
from trainers.losses.consistency import feature_consistency, log_odds_consistency
from trainers.losses.distil import Projections, feature_distillation, log_odds_distillation
from trainers.losses.ordered import OrderedHeads, ordered_loss
from trainers.readout import log_odds, plain_log_odds, read_out

# Auxiliary layers by their names in a run's state.
_AUXILIARY = ("mask_layer", "ordered_heads", "projections")


class Trainee(nn.Module):
    """From a prepared batch to its losses.

    The mask layer reads the feature map of the backbone whose stride is nearest to the masks'. It pulls the features
    towards the place of the forgery (the idea of Li et al., "Face X-ray", 2020, and of Dang et al., "On the Detection
    of Digital Face Manipulation", 2020). All auxiliary layers are dropped when the detector is saved.

    Attributes:
        model: the detector.
        mask_layer: learns where an image is forged; None where its weight is 0.
        ordered_heads: learn how far an image is from a real one; None where their weight is 0.
        projections: predict the teachers' features; None without.
    """

    def __init__(
        self,
        model: BaseModel,
        *,
        label_smoothing: float,
        mask_weight: float,
        losses: LossConfig | None = None,
        teacher_widths: Sequence[int] = (),
    ) -> None:
        """Make the auxiliary layers.

        Args:
            model: the detector.
            label_smoothing: the share of each label that is spread over all classes.
            mask_weight: of the loss on the place of the forgery; 0: none.
            losses: weights of the other losses; None: all off.
            teacher_widths: of the features of each teacher.
        """
        super().__init__()
        self.model = model
        self.normalize = Normalize(model.input_spec)
        self.label_smoothing, self.mask_weight = label_smoothing, mask_weight
        self.losses = losses or LossConfig()
        reductions = model.backbone.reductions
        self.level = min(range(len(reductions)), key=lambda i: abs(reductions[i] - MASK_STRIDE))
        self.mask_layer = nn.Conv2d(model.backbone.channels[self.level], 1, 1) if mask_weight > 0 else None
        self.ordered_heads = OrderedHeads(model.num_features) if self.losses.ordered.weight > 0 else None
        learns_features = bool(teacher_widths) and self.losses.distil.feature_weight > 0
        self.projections = Projections(model.num_features, teacher_widths) if learns_features else None

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Losses of one batch.

        Args:
            batch: as `trainers.preparation.Preparation` returns it; if only the mask loss is on, a batch of
                `trainers.data.pairs.pair_loader` on the device is enough.

        Returns:
            `loss`, to call `backward` on; its parts, each ending in `_loss`; `logits`, float32 [B, classes].
        """
        pixels = batch["images"]
        count = len(pixels)
        if "degraded" in batch:
            # In one pass with their originals: BatchNorm sees both alike.
            pixels = torch.cat([pixels, batch["degraded"]])
        with self._levels() as levels:
            features, logits = read_out(self.model, self.normalize(pixels))
        own_features, logits = _first(features, count), _first(logits, count)
        parts = {"class_loss": self._class_loss(batch, logits)}
        losses = self.losses
        loss = losses.class_weight * parts["class_loss"]
        parts["mask_loss"] = torch.zeros((), device=pixels.device)
        if self.mask_layer is not None:
            parts["mask_loss"] = self._mask_loss(batch, self.mask_layer(_first(levels[0][self.level], count).float()))
        loss = loss + self.mask_weight * parts["mask_loss"]
        if self.ordered_heads is not None:
            answers = self.ordered_heads(own_features)
            parts["ordered_loss"] = ordered_loss(answers, batch["thresholds"], batch["kind_known"])
            loss = loss + losses.ordered.weight * parts["ordered_loss"]
        for name, weight, part in (
            *self._consistency(batch, features, count),
            *self._distillation(batch, own_features, logits),
        ):
            parts[name] = part
            loss = loss + weight * part
        return {
            "loss": loss,
            **{name: part.detach() for name, part in parts.items()},
            "logits": logits.detach(),
        }

    def auxiliary(self) -> nn.ModuleList:
        """The auxiliary layers, to be trained at the rate of the detector's new layers."""
        layers = (getattr(self, name) for name in _AUXILIARY)
        return nn.ModuleList(layer for layer in layers if layer is not None)

    def auxiliary_state(self) -> dict[str, Any]:
        """State dicts of the auxiliary layers by name, None for those that are off."""
        layers = {name: getattr(self, name) for name in _AUXILIARY}
        return {name: None if layer is None else layer.state_dict() for name, layer in layers.items()}

    def load_auxiliary_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `auxiliary_state` has returned; other keys are ignored.

        Raises:
            KeyError: a layer that is on has no state.
        """
        for name in _AUXILIARY:
            if (layer := getattr(self, name)) is not None:
                layer.load_state_dict(state[name])

    @contextmanager
    def _levels(self) -> Iterator[list[list[Tensor]]]:
        """The backbone's feature maps of each pass within the block."""
        captured: list[list[Tensor]] = []
        hook = self.model.backbone.register_forward_hook(lambda module, inputs, levels: captured.append(levels))
        try:
            yield captured
        finally:
            hook.remove()

    def _class_loss(self, batch: Mapping[str, Tensor], logits: Tensor) -> Tensor:
        if "fake_share" in batch:
            return soft_cross_entropy(logits, batch["fake_share"], batch["label_known"], self.label_smoothing)
        return F.cross_entropy(logits, batch["labels"], label_smoothing=self.label_smoothing)

    def _mask_loss(self, batch: Mapping[str, Tensor], logits: Tensor) -> Tensor:
        masks = batch["masks"]
        if logits.shape[-2:] != masks.shape[-2:]:
            logits = F.interpolate(logits, masks.shape[-2:], mode="bilinear")
        each = F.binary_cross_entropy_with_logits(logits[:, 0], masks, reduction="none").mean((1, 2))
        return masked_mean(each, batch["mask_known"])

    def _consistency(
        self, batch: Mapping[str, Tensor], features: Tensor, count: int
    ) -> Iterator[tuple[str, float, Tensor]]:
        config = self.losses.consistency
        if not config.is_on:
            return
        clean, copies = features[batch["degraded_of"]], features[count:]
        if config.weight > 0:
            found = (plain_log_odds(self.model, each) for each in (clean, copies))
            yield "consistency_loss", config.weight, log_odds_consistency(*found)
        if config.feature_weight > 0:
            yield "feature_consistency_loss", config.feature_weight, feature_consistency(clean, copies)

    def _distillation(
        self, batch: Mapping[str, Tensor], features: Tensor, logits: Tensor
    ) -> Iterator[tuple[str, float, Tensor]]:
        config = self.losses.distil
        if not config.teachers:
            return
        known = batch["teacher_known"]
        if config.weight > 0:
            found = log_odds_distillation(batch["teacher_log_odds"], log_odds(logits), known, config.temperature)
            yield "distil_loss", config.weight, found
        if self.projections is not None:
            predicted = self.projections(features)
            targets = [batch[f"teacher_features_{i}"] for i in range(len(predicted))]
            yield "distil_feature_loss", config.feature_weight, feature_distillation(targets, predicted, known)


def _first(values: Tensor, count: int) -> Tensor:
    """The first rows; the tensor itself if that is all of them."""
    return values if len(values) == count else values[:count]
