"""Swin Transformer; the classifier sees all of its stages."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from models.architectures.registry import register
from models.base import BaseModel
from models.config import ModelConfig
from models.layers.pooling import PoolingKind, pooling


@dataclass(frozen=True, kw_only=True)
class SwinTransformerConfig(ModelConfig):
    """Options of `swin_transformer`."""

    backbone: str = "swin_tiny_patch4_window7_224"
    # The rate that Swin-T was trained with (Liu et al., 2021, appendix A2.1).
    drop_path_rate: float = 0.2
    # How each stage's feature map becomes a vector.
    pooling: PoolingKind = "avg"
    # Width of each stage's vector.
    stage_width: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.stage_width >= 1, "stage_width", "at least 1")


@register("swin_transformer", SwinTransformerConfig)
class SwinTransformer(BaseModel):
    """Swin (Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", 2021).

    Each of the four stages, from edges and texture to the whole face, is normed, pooled and projected by itself; the
    classifier sees all four. Windows keep their part of the image at other input sizes.
    """

    levels = 4

    def __init__(self, config: SwinTransformerConfig, *, pretrained: bool = False) -> None:
        super().__init__(config, pretrained=pretrained)
        self.stages = nn.ModuleList(
            nn.Sequential(
                LayerNorm2d(channels),
                pooling(config.pooling, channels),
                nn.Linear(channels, config.stage_width),
                nn.GELU(),
            )
            for channels in self.backbone.channels
        )
        num_features = self.levels * config.stage_width
        self.norm = nn.LayerNorm(num_features)
        self.build_head(num_features)

    def forward_features(self, images: Tensor) -> Tensor:
        """Vectors of all stages, side by side: [B, 3, H, W] -> [B, 4 x stage_width]."""
        vectors = [stage(features) for stage, features in zip(self.stages, self.backbone(images), strict=True)]
        features: Tensor = self.norm(torch.cat(vectors, 1))
        return features

    def parts(self) -> dict[str, nn.Module]:
        """Each stage's path to the classifier."""
        return {f"stage_{i}": stage for i, stage in enumerate(self.stages)}
