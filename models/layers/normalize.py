"""From pixels to what a network was trained on; one place for training and serving."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.spec import InputSpec


class Normalize(nn.Module):
    """(x / 255 - mean) / std of uint8 [B, 3, S, S], RGB -> float32, as one multiplication and one addition."""

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
        self.scale = nn.Buffer((1 / (255 * std)).view(1, 3, 1, 1), persistent=False)
        self.shift = nn.Buffer((-mean / std).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised images."""
        return pixels.float() * self.scale + self.shift
