"""Dropout and stochastic depth whose rates a schedule can move while training.

A rate is a tensor: a compiled network would be compiled again for each new value of a Python number.
"""

from __future__ import annotations

import torch
from timm.layers import DropPath
from torch import Tensor, nn


class Dropout(nn.Module):
    """Sets single features to zero while training, and scales the others so that the mean stays (inverted dropout).

    Attributes:
        rate: share of what is dropped, 0..1 without 1; `set_rate` moves it.
    """

    _rate: Tensor

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.register_buffer("_rate", torch.zeros(()), persistent=False)
        self.set_rate(rate)

    def set_rate(self, rate: float) -> None:
        """Use this rate from now on."""
        self.rate = rate
        self._active = rate > 0  # read by the graph, which is compiled once more when a rate leaves or reaches 0
        self._rate.fill_(rate)

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs of any shape, with features dropped in training mode."""
        if not self.training or not self._active:
            return inputs
        kept = 1 - self._rate
        chance = torch.rand(self._shape(inputs), device=inputs.device)
        return inputs * ((chance < kept) / kept).to(inputs.dtype)

    def _shape(self, inputs: Tensor) -> torch.Size:
        return inputs.shape

    def extra_repr(self) -> str:
        """The rate, for `print(model)`."""
        return f"{self.rate:g}"


class StochasticDepth(Dropout):
    """Drops a residual branch for whole images (Huang et al., "Deep Networks with Stochastic Depth", 2016).

    Attributes:
        share: the branch's part of the model's rate, 0..1, that grows with its depth.
    """

    def __init__(self, share: float, rate: float) -> None:
        """Take `share` of the whole model's `rate`."""
        super().__init__(share * rate)
        self.share = share

    def _shape(self, inputs: Tensor) -> torch.Size:
        return torch.Size([inputs.shape[0], *(1 for _ in inputs.shape[1:])])


def set_drop_path_rate(model: nn.Module, rate: float) -> None:
    """Set every stochastic depth within `model` to its share of `rate`."""
    for module in model.modules():
        if isinstance(module, StochasticDepth):
            module.set_rate(module.share * rate)


def take_over_drop_paths(model: nn.Module) -> int:
    """Replace timm's stochastic depth within a model that was built at rate 1, where each one's rate is its share.

    Returns:
        How many there are.
    """
    found = 0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, DropPath):
                setattr(parent, name, StochasticDepth(child.drop_prob, 0.0))
                found += 1
    return found


def depth_shares(depth: int) -> list[float]:
    """Shares of `depth` branches in a row, rising linearly from 0 to 1; a single one has the whole rate."""
    return [1.0] if depth == 1 else [i / (depth - 1) for i in range(depth)]
