"""Xception with its stages aggregated: depthwise separable convolutions from end to end."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.architectures.registry import register
from models.base import BaseModel
from models.config import ModelConfig
from models.layers.fusion import ScaleFusion, SeparableConv
from models.layers.pooling import PoolingKind, pooling


@dataclass(frozen=True, kw_only=True)
class XceptionConfig(ModelConfig):
    """Options of `xception`."""

    backbone: str = "legacy_xception"
    input_size: int = 299
    # How a feature map becomes a vector.
    pooling: PoolingKind = "avg"
    # Channels of the aggregated stages; 0 leaves the neck out.
    neck_width: int = 128
    # Separable convolutions over the aggregated stages.
    neck_depth: int = 1
    # A norm over the pooled last stage. Without it and the neck this is the field's plain Xception.
    last_norm: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.neck_width >= 0, "neck_width", "at least 0")
        self.require(self.neck_depth >= 1, "neck_depth", "at least 1")


@register("xception", XceptionConfig)
class Xception(BaseModel):
    """Xception (Chollet, 2017), the field's baseline since FaceForensics++, with a light neck over three stages.

    The neck brings the stages at strides 8, 16 and 32 onto the grid of stride 16, adds them with learned weights,
    and runs separable convolutions over the sum; its pooled result joins the pooled last stage, each with
    a norm of its own. Fine stages hold the traces of blending and compression that the last one has averaged away.
    """

    levels = 3

    def __init__(self, config: XceptionConfig, *, pretrained: bool = False) -> None:
        super().__init__(config, pretrained=pretrained)
        width, last = config.neck_width, self.backbone.channels[-1]
        self.has_neck = width > 0
        if self.has_neck:
            self.aggregation = ScaleFusion(self.backbone.channels, width)
            self.neck = nn.Sequential(*(SeparableConv(width, width) for _ in range(config.neck_depth)))
            self.neck_pool = pooling(config.pooling, width)
        self.last_pool = pooling(config.pooling, last)
        if self.has_neck:
            self.neck_norm = nn.LayerNorm(width)
        self.last_norm = nn.LayerNorm(last) if config.last_norm else nn.Identity()
        self.build_head(width + last)

    def forward_features(self, images: Tensor) -> Tensor:
        """Pooled neck and pooled last stage: [B, 3, H, W] -> [B, neck_width + channels of the last stage]."""
        stages = self.backbone(images)
        vectors = []
        if self.has_neck:
            vectors.append(self.neck_norm(self.neck_pool(self.neck(self.aggregation(stages)))))
        vectors.append(self.last_norm(self.last_pool(stages[-1])))
        return torch.cat(vectors, 1)

    def parts(self) -> dict[str, nn.Module]:
        """The neck, the last stage's own path to the classifier, and each stage's path into the neck."""
        if not self.has_neck:
            return {"last_stage": self.last_norm}
        stages = {f"stage_{i}": scale for i, scale in enumerate(self.aggregation.scales)}
        return {"neck": self.neck_norm, "last_stage": self.last_norm, **stages}
