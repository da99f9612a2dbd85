"""Ordered classes instead of one class of fakes: real < blended < re-rendered < real fake.

As one class, blends of real pixels and real forgeries pull the features in different directions. Cheng et al., "Can We
Leave Deepfake Data Behind in Training Deepfake Detector?" (NeurIPS 2024), order them. Here each threshold has a binary
read-out of its own over the pooled features (Frank and Hall, "A Simple Approach to Ordinal Classification", ECML 2001):
is this class at least k? The read-outs are for training only: serving uses the detector's own two logits.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainers.data.kinds import BLENDED, REAL_FAKE
from trainers.losses.classes import masked_mean

THRESHOLDS = tuple(range(BLENDED, REAL_FAKE + 1))


class OrderedHeads(nn.Module):
    """One linear read-out per threshold: features [B, num_features] -> logits of "at least k", [B, 3]."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_features, len(THRESHOLDS))
        nn.init.trunc_normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Logits of the thresholds, float32."""
        logits: Tensor = self.linear(features.float())
        return logits


def reached(kind: Tensor) -> Tensor:
    """Which thresholds a class reaches: int64 [B] -> float32 [B, 3]."""
    thresholds = torch.tensor(THRESHOLDS, device=kind.device)
    return (kind[:, None] >= thresholds).float()


def ordered_loss(logits: Tensor, targets: Tensor, known: Tensor) -> Tensor:
    """Binary cross entropy over all thresholds.

    Args:
        logits: float [B, 3].
        targets: float [B, 3], see `reached`; between 0 and 1 for mixed images.
        known: bool [B], items whose class is known.
    """
    each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)
    return masked_mean(each, known)
