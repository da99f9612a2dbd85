"""Three feature scales with cross-attention, global context and gated fusion."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from models.architectures.registry import register
from models.base import BaseModel
from models.config import TransformerConfig
from models.layers.attention import CrossAttention, FeedForward, GlobalContext, PositionEmbedding2d, to_tokens
from models.layers.fusion import GatedFusion
from models.layers.pooling import pool_by
from models.layers.regularization import depth_shares

_SCALES = ("fine", "middle", "coarse")


@dataclass(frozen=True, kw_only=True)
class CrossAttentionConfig(TransformerConfig):
    """Options of `cross_attention`."""

    backbone: str = "resnet50"
    # Narrower than usual: with three scales, tokens are many.
    width: int = 128
    heads: int = 4


class _Layer(nn.Module):
    """Each scale attends to the others, then passes through a feed-forward block."""

    def __init__(self, scales: int, config: CrossAttentionConfig, share: float) -> None:
        super().__init__()
        rates = {"share": share, "drop_path_rate": config.drop_path_rate}
        self.attention = nn.ModuleList(CrossAttention(config.width, config.heads, **rates) for _ in range(scales))
        self.feed_forward = nn.ModuleList(FeedForward(config.width, config.mlp_ratio, **rates) for _ in range(scales))

    def forward(self, scales: list[Tensor]) -> list[Tensor]:
        found = []
        for i, (tokens, attention, feed_forward) in enumerate(
            zip(scales, self.attention, self.feed_forward, strict=True)
        ):
            others = torch.cat([other for j, other in enumerate(scales) if j != i], 1)
            tokens = tokens + attention(tokens, others)
            found.append(tokens + feed_forward(tokens))
        return found


@register("cross_attention", CrossAttentionConfig)
class CrossAttentionNetwork(BaseModel):
    """Features at strides 8, 16 and 32 with cross-attention between the scales, global context and gated fusion.

    A forgery shows as a scale that does not fit the others: texture that the face's lighting does not explain, edges
    that end where no part of the face does. The tokens of each scale attend to those of the other two (Chen et al.,
    "CrossViT", 2021, with all tokens as queries); the finest scale is averaged onto the grid of the middle one first,
    where it costs as much as that.
    """

    levels = 3

    def __init__(self, config: CrossAttentionConfig, *, pretrained: bool = False) -> None:
        super().__init__(config, pretrained=pretrained)
        channels, width = self.backbone.channels, config.width
        fine, middle, coarse = self.backbone.reductions
        self.pool_factor = middle // fine
        self.project = nn.ModuleList(
            # The norm gives positions the same weight whatever the scale of the backbone's features.
            nn.Sequential(nn.Conv2d(c, width, 1), LayerNorm2d(width))
            for c in channels
        )
        self.positions = nn.ModuleList(
            PositionEmbedding2d(config.input_size, max(reduction, middle), width)
            for reduction in (fine, middle, coarse)
        )
        self.context = GlobalContext(channels[-1], width)
        self.layers = nn.ModuleList(_Layer(self.levels, config, share) for share in depth_shares(config.depth))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in channels)
        self.fusion = GatedFusion(self.levels, width)
        self.norm = nn.LayerNorm(width)
        self.build_head(width)

    def forward_features(self, images: Tensor) -> Tensor:
        """The gated sum of all scales: [B, 3, H, W] -> [B, width]."""
        fine, middle, coarse = self.backbone(images)
        context = self.context(coarse).unsqueeze(1)
        maps = (pool_by(fine, self.pool_factor), middle, coarse)
        scales = [
            to_tokens(project(level)) + position(*level.shape[-2:]) + context
            for project, position, level in zip(self.project, self.positions, maps, strict=True)
        ]
        for layer in self.layers:
            scales = layer(scales)
        vectors = [norm(tokens).mean(1) for norm, tokens in zip(self.norms, scales, strict=True)]
        features: Tensor = self.norm(self.fusion(vectors))
        return features

    def parts(self) -> dict[str, nn.Module]:
        """Each scale and its position embedding, the global context, and each scale's attention in each layer."""
        named: dict[str, nn.Module] = {"global_context": self.context}
        for name, project, position in zip(_SCALES, self.project, self.positions, strict=True):
            named |= {f"{name}_scale": project, f"{name}_position": position}
        for i, layer in enumerate(self.layers):
            for j, name in enumerate(_SCALES):
                named[f"{name}_attention_{i}"] = layer.get_submodule(f"attention.{j}")
        return named
