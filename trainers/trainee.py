"""What is trained: the detector, with the auxiliary layer that learns where a picture is forged."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.base import BaseModel
from models.layers.normalize import Normalize
from trainers.data.couples import MASK_STRIDE


class Trainee(nn.Module):
    """From a batch of the stream to its loss.

    The auxiliary layer reads the feature map of the backbone whose stride is nearest to the masks'. It pulls the
    features towards the place of the forgery, and stays behind when the detector is saved (the idea of Li et al.,
    "Face X-ray", 2020, and of Dang et al., "On the Detection of Digital Face Manipulation", 2020).

    Attributes:
        model: the detector.
        mask_layer: None where nothing is learned about places.
    """

    def __init__(self, model: BaseModel, *, label_smoothing: float, mask_weight: float) -> None:
        """`mask_weight` is that of the auxiliary loss beside the detector's own; 0: none."""
        super().__init__()
        self.model = model
        self.normalize = Normalize(model.input_spec)
        self.label_smoothing, self.mask_weight = label_smoothing, mask_weight
        reductions = model.backbone.reductions
        self.level = min(range(len(reductions)), key=lambda i: abs(reductions[i] - MASK_STRIDE))
        self.mask_layer = nn.Conv2d(model.backbone.channels[self.level], 1, 1) if mask_weight > 0 else None

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Losses of one batch.

        Args:
            batch: as `trainers.data.couples.couple_loader` yields it, on the device.

        Returns:
            `loss`, to call `backward` on; `class_loss` and `mask_loss`, its parts; `logits`, float32 [B, classes].
        """
        images = self.normalize(batch["images"])
        captured: list[list[Tensor]] = []
        hook = self.model.backbone.register_forward_hook(lambda module, inputs, levels: captured.append(levels))
        try:
            result = self.model.training_step(
                {"images": images, "labels": batch["labels"]}, label_smoothing=self.label_smoothing
            )
        finally:
            hook.remove()
        class_loss, mask_loss = result["loss"], torch.zeros((), device=images.device)
        if self.mask_layer is not None:
            logits = self.mask_layer(captured[0][self.level].float())
            masks = batch["masks"]
            if logits.shape[-2:] != masks.shape[-2:]:
                logits = F.interpolate(logits, masks.shape[-2:], mode="bilinear")
            known = batch["mask_known"].float()
            each = F.binary_cross_entropy_with_logits(logits[:, 0], masks, reduction="none").mean((1, 2))
            mask_loss = (each * known).sum() / known.sum().clamp(min=1)
        return {
            "loss": class_loss + self.mask_weight * mask_loss,
            "class_loss": class_loss.detach(),
            "mask_loss": mask_loss.detach(),
            "logits": result["logits"].detach(),
        }
