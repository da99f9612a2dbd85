"""CLIP's image tower with trained layer norms; its last blocks feed the classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from models.architectures.registry import register
from models.base import BaseModel
from models.config import ModelConfig
from models.layers.pooling import PoolingKind, pooling


@dataclass(frozen=True, kw_only=True)
class ClipVitConfig(ModelConfig):
    """Options of `clip_vit`."""

    backbone: str = "vit_base_patch16_clip_quickgelu_224"
    # What is trained of the backbone: its layer norms (0.04 M of 86 M parameters), or everything.
    tuned: Literal["norms", "all"] = "norms"
    # How each block's feature map becomes a vector.
    pooling: PoolingKind = "avg"
    # Width of each block's vector.
    block_width: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.block_width >= 1, "block_width", "at least 1")


@register("clip_vit", ClipVitConfig)
class ClipVit(BaseModel):
    """A vision transformer that keeps what its pretraining has learned.

    Only the layer norms and the layers above the backbone are trained: a strong general representation overfits less to
    the forgeries of the training set than a fully trained one (Yermakov et al., "Unlocking the Hidden Potential of CLIP
    in Generalizable Deepfake Detection", 2025, arXiv:2503.19683). The feature maps of the last four blocks are
    normed, pooled and projected one by one; the classifier sees all four.
    """

    levels = 4

    def __init__(self, config: ClipVitConfig, *, pretrained: bool = False) -> None:
        super().__init__(config, pretrained=pretrained)
        if config.tuned == "norms":
            _freeze_all_but_norms(self.backbone)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                LayerNorm2d(channels),
                pooling(config.pooling, channels),
                nn.Linear(channels, config.block_width),
                nn.GELU(),
            )
            for channels in self.backbone.channels
        )
        num_features = self.levels * config.block_width
        self.norm = nn.LayerNorm(num_features)
        self.build_head(num_features)

    def forward_features(self, images: Tensor) -> Tensor:
        """Vectors of the last four blocks, side by side: [B, 3, H, W] -> [B, 4 x block_width]."""
        vectors = [block(features) for block, features in zip(self.blocks, self.backbone(images), strict=True)]
        features: Tensor = self.norm(torch.cat(vectors, 1))
        return features

    def parts(self) -> dict[str, nn.Module]:
        """Each block's path to the classifier."""
        return {f"block_{i}": block for i, block in enumerate(self.blocks)}


def _freeze_all_but_norms(backbone: nn.Module) -> None:
    backbone.requires_grad_(False)
    for module in backbone.modules():
        if isinstance(module, nn.LayerNorm):
            module.requires_grad_(True)
