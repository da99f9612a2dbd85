"""Distillation: a small net learns the log-odds and the features of stronger ones.

Log-odds as in Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015); features through a
linear layer of the student used only in training (Romero et al., "FitNets", 2015), compared by their direction.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainers.losses.classes import bernoulli_kl, masked_mean


class Projections(nn.Module):
    """From the student's features to those of each teacher: [B, num_features] -> one [B, width] per teacher."""

    def __init__(self, num_features: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(num_features, width) for width in widths)

    def forward(self, features: Tensor) -> list[Tensor]:
        """Predicted features of the teachers, float32."""
        return [layer(features.float()) for layer in self.layers]


def log_odds_distillation(teacher: Tensor, student: Tensor, known: Tensor, temperature: float) -> Tensor:
    """KL divergence from the teachers' mean log-odds, times the squared temperature, which keeps the gradient's scale.

    Args:
        teacher: float [B].
        student: float [B].
        known: bool [B], items scored by the teachers.
        temperature: divides both.
    """
    each = bernoulli_kl(teacher / temperature, student / temperature) * temperature**2
    return masked_mean(each, known)


def feature_distillation(teachers: Sequence[Tensor], predicted: Sequence[Tensor], known: Tensor) -> Tensor:
    """1 - cosine between predicted and true features, averaged over the teachers.

    Args:
        teachers: one [B, width] per teacher.
        predicted: the same shapes.
        known: bool [B].
    """
    losses = [
        masked_mean(1 - F.cosine_similarity(own.float(), target.float(), dim=1), known)
        for target, own in zip(teachers, predicted, strict=True)
    ]
    return torch.stack(losses).mean()
