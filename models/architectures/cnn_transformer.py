"""A convolutional network; transformers with cross-attention read its last two feature levels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from models.architectures.registry import register
from models.base import BaseModel
from models.config import TransformerConfig
from models.layers.attention import CrossAttention, PositionEmbedding2d, TransformerBlock, to_tokens
from models.layers.regularization import depth_shares


@dataclass(frozen=True, kw_only=True)
class CNNTransformerConfig(TransformerConfig):
    """Options of `cnn_transformer`."""

    backbone: str = "resnet50"


class _Layer(nn.Module):
    """Self-attention within each level, then attention of each level to the other."""

    def __init__(self, config: CNNTransformerConfig, share: float) -> None:
        super().__init__()
        rates = {"share": share, "drop_path_rate": config.drop_path_rate}
        self.fine = TransformerBlock(config.width, config.heads, config.mlp_ratio, **rates)
        self.coarse = TransformerBlock(config.width, config.heads, config.mlp_ratio, **rates)
        self.coarse_to_fine = CrossAttention(config.width, config.heads, **rates)
        self.fine_to_coarse = CrossAttention(config.width, config.heads, **rates)

    def forward(self, fine: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        fine, coarse = self.fine(fine), self.coarse(coarse)
        return fine + self.coarse_to_fine(fine, coarse), coarse + self.fine_to_coarse(coarse, fine)


@register("cnn_transformer", CNNTransformerConfig)
class CNNTransformer(BaseModel):
    """ResNet features at strides 16 and 32 as tokens of two transformers with cross-feature attention.

    The fine level shows where something is odd, the coarse one what it belongs to; each layer lets them attend to each
    other. Positions are learned on the grids of the configured input size and interpolated to others.
    """

    levels = 2

    def __init__(self, config: CNNTransformerConfig, *, pretrained: bool = False) -> None:
        super().__init__(config, pretrained=pretrained)
        channels, reductions, width = self.backbone.channels, self.backbone.reductions, config.width
        self.project = nn.ModuleList(
            # The norm gives positions the same weight whatever the scale of the backbone's features.
            nn.Sequential(nn.Conv2d(c, width, 1), LayerNorm2d(width))
            for c in channels
        )
        self.positions = nn.ModuleList(
            PositionEmbedding2d(config.input_size, reduction, width) for reduction in reductions
        )
        self.layers = nn.ModuleList(_Layer(config, share) for share in depth_shares(config.depth))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in channels)
        self.build_head(2 * width)

    def forward_features(self, images: Tensor) -> Tensor:
        """Mean tokens of both levels, side by side: [B, 3, H, W] -> [B, 2 x width]."""
        fine, coarse = (
            to_tokens(project(level)) + position(*level.shape[-2:])
            for project, position, level in zip(self.project, self.positions, self.backbone(images), strict=True)
        )
        for layer in self.layers:
            fine, coarse = layer(fine, coarse)
        tokens = zip(self.norms, (fine, coarse), strict=True)
        return torch.cat([norm(level).mean(1) for norm, level in tokens], 1)

    def parts(self) -> dict[str, nn.Module]:
        """Both levels, their position embeddings, and the cross-feature attention of each layer in each direction."""
        named: dict[str, nn.Module] = {}
        for name, project, position in zip(("fine", "coarse"), self.project, self.positions, strict=True):
            named |= {f"{name}_level": project, f"{name}_position": position}
        for i, layer in enumerate(self.layers):
            named[f"coarse_to_fine_attention_{i}"] = layer.get_submodule("coarse_to_fine")
            named[f"fine_to_coarse_attention_{i}"] = layer.get_submodule("fine_to_coarse")
        return named
