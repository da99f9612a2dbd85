"""Several feature maps or vectors into one."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.pooling import pool_by


class SeparableConv(nn.Sequential):
    """3x3 depthwise, 1x1 pointwise, batch norm, ReLU (Chollet, "Xception", 2017): [B, C, H, W] -> [B, D, h, w]."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_in, 3, stride=stride, padding=1, groups=channels_in, bias=False),
            nn.Conv2d(channels_in, channels_out, 1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        )


class ScaleFusion(nn.Module):
    """Feature maps of several scales into one, on the grid of the middle one.

    Each is brought to that grid, projected by a 1x1 convolution with batch norm, and added with a weight of its own;
    the weights are a softmax (Tan et al., "EfficientDet", 2020, section 3.3).

    Attributes:
        scales: the projection of each feature map, the finest first.
    """

    def __init__(self, channels: list[int], width: int) -> None:
        """Build the projections.

        Args:
            channels: of each feature map, the finest first.
            width: channels of the result.
        """
        super().__init__()
        self.scales = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, width, 1, bias=False), nn.BatchNorm2d(width)) for c in channels
        )
        self.weights = nn.Parameter(torch.zeros(len(channels)))

    def forward(self, features: list[Tensor]) -> Tensor:
        """Fuse one [B, channels[i], H_i, W_i] for each scale into [B, width, H, W]."""
        middle = len(features) // 2
        height, width = features[middle].shape[-2:]
        projected = []
        for i, (scale, feature) in enumerate(zip(self.scales, features, strict=True)):
            # Averaging and projecting commute; the projection is cheaper on the small grid.
            feature = scale(pool_by(feature, 2 ** (middle - i)) if i < middle else feature)
            if feature.shape[-2:] != (height, width):
                feature = F.interpolate(feature, (height, width), mode="bilinear")
            projected.append(feature)
        return (torch.stack(projected) * self.weights.softmax(0).view(-1, 1, 1, 1, 1)).sum(0)


class GatedFusion(nn.Module):
    """Vectors of several sources into one, each weighted channel by channel by a gate that sees all of them.

    The gates of a channel are a softmax over the sources (Arevalo et al., "Gated Multimodal Units", 2017, with
    more than two sources): [B, width] for each -> [B, width].
    """

    def __init__(self, sources: int, width: int) -> None:
        super().__init__()
        self.sources = sources
        self.gates = nn.Linear(sources * width, sources * width)
        # Nearly even gates at the start.
        nn.init.trunc_normal_(self.gates.weight, std=0.02)
        nn.init.zeros_(self.gates.bias)

    def forward(self, vectors: list[Tensor]) -> Tensor:
        """Fuse one [B, width] for each source."""
        gates: Tensor = self.gates(torch.cat(vectors, 1)).unflatten(1, (self.sources, -1)).softmax(1)
        fused: Tensor = (gates * torch.stack(vectors, 1)).sum(1)
        return fused
