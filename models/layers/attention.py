"""Attention over feature maps as tokens [B, N, width], with positions that fit any grid."""

from __future__ import annotations

import math

import torch
from timm.layers import Mlp
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.pooling import AttentionPool
from models.layers.regularization import StochasticDepth


def to_tokens(features: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, H x W, C], row by row."""
    return features.flatten(2).transpose(1, 2)


class PositionEmbedding2d(nn.Module):
    """A learned vector for each position of a feature map, interpolated to maps of other sizes.

    Bicubic interpolation, as Dosovitskiy et al. ("An Image is Worth 16x16 Words", 2021, section 3.2) do for another
    resolution.
    """

    def __init__(self, input_size: int, reduction: int, width: int) -> None:
        """Make the embedding.

        Args:
            input_size: side of the image in px.
            reduction: px of the image per position of the feature map.
            width: of a token.
        """
        super().__init__()
        self.reduction = reduction
        grid = math.ceil(input_size / reduction)
        self.embedding = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, width, grid, grid), std=0.02))

    def forward(self, height: int, width: int) -> Tensor:
        """Embeddings [1, height x width, width of a token] for a feature map of height x width."""
        return to_tokens(_resize(self.embedding, height, width))

    def set_input_size(self, size: int) -> None:
        """Keep the vectors for images of another size, in px, from now on; make the optimizer afterwards."""
        grid = math.ceil(size / self.reduction)
        self.embedding.data = _resize(self.embedding.data, grid, grid)

    def no_weight_decay(self) -> set[str]:
        """The embedding: a position at zero is as good as any."""
        return {"embedding"}


def _resize(embedding: Tensor, height: int, width: int) -> Tensor:
    if embedding.shape[-2:] == (height, width):
        return embedding
    return F.interpolate(embedding, (height, width), mode="bicubic", align_corners=False)


class MultiHeadAttention(nn.Module):
    """Attention of tokens to other tokens, or to themselves (Vaswani et al., "Attention Is All You Need", 2017)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.project = nn.Linear(width, width)

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        """Attention of `tokens` [B, N, width] to `context` [B, M, width]: [B, N, width]."""
        query = self.query(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.key_value(context).unflatten(-1, (2, self.heads, -1)).transpose(1, 3).unbind(2)
        found = F.scaled_dot_product_attention(query, key, value)
        projected: Tensor = self.project(found.transpose(1, 2).flatten(2))
        return projected


class CrossAttention(nn.Module):
    """The residual branch by which tokens look at those of another feature map; both are normed first."""

    def __init__(self, width: int, heads: int, *, share: float, drop_path_rate: float) -> None:
        """Build the branch.

        Args:
            width: of a token.
            heads: of the attention.
            share: of `drop_path_rate`, see `models.layers.regularization.drop_path`.
            drop_path_rate: of the whole model.
        """
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.context_norm = nn.LayerNorm(width)
        self.attention = MultiHeadAttention(width, heads)
        self.drop_path = StochasticDepth(share, drop_path_rate)

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        """What to add to `tokens` [B, N, width]."""
        found: Tensor = self.drop_path(self.attention(self.norm(tokens), self.context_norm(context)))
        return found


class FeedForward(nn.Module):
    """The residual branch that processes each token by itself; it is normed first."""

    def __init__(self, width: int, ratio: float, *, share: float, drop_path_rate: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mlp = Mlp(width, int(width * ratio))
        self.drop_path = StochasticDepth(share, drop_path_rate)

    def forward(self, tokens: Tensor) -> Tensor:
        """What to add to `tokens` [B, N, width]."""
        added: Tensor = self.drop_path(self.mlp(self.norm(tokens)))
        return added


class TransformerBlock(nn.Module):
    """Self-attention, then feed-forward, each added to what comes in."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, *, share: float, drop_path_rate: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = MultiHeadAttention(width, heads)
        self.drop_path = StochasticDepth(share, drop_path_rate)
        self.feed_forward = FeedForward(width, mlp_ratio, share=share, drop_path_rate=drop_path_rate)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [B, N, width] after attention to each other."""
        normed = self.norm(tokens)
        tokens = tokens + self.drop_path(self.attention(normed, normed))
        added: Tensor = self.feed_forward(tokens)
        return tokens + added


class GlobalContext(nn.Module):
    """One vector that sums up a whole feature map: [B, C, H, W] -> [B, width].

    Attention pooling and a bottleneck with a norm (Cao et al., "GCNet", 2019, figure 4d).
    """

    def __init__(self, channels: int, width: int, reduction: int = 4) -> None:
        super().__init__()
        self.pool = AttentionPool(channels)
        hidden = max(width // reduction, 8)
        self.transform = nn.Sequential(
            nn.Linear(channels, hidden), nn.LayerNorm(hidden), nn.ReLU(inplace=True), nn.Linear(hidden, width)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Sum up one feature map."""
        context: Tensor = self.transform(self.pool(features))
        return context
