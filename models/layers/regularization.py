"""Dropout and stochastic depth whose rates a schedule can move while training."""

from __future__ import annotations

from timm.layers import DropPath
from torch import nn


def drop_path(share: float, rate: float) -> DropPath:
    """Stochastic depth for one residual branch (Huang et al., "Deep Networks with Stochastic Depth", 2016).

    Args:
        share: the branch's part of the rate, 0..1, that grows with its depth.
        rate: of the whole model.
    """
    module = DropPath(share * rate)
    module.share = share
    return module


def set_drop_path_rate(model: nn.Module, rate: float) -> None:
    """Set every stochastic depth within `model` to its share of `rate`."""
    for module in model.modules():
        if isinstance(module, DropPath):
            module.drop_prob = module.share * rate


def depth_shares(depth: int) -> list[float]:
    """Shares of `depth` branches in a row, rising linearly from 0 to 1; a single one has the whole rate."""
    return [1.0] if depth == 1 else [i / (depth - 1) for i in range(depth)]
