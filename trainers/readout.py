"""A detector's features along with its logits."""

from __future__ import annotations

from torch import Tensor

from models.base import BaseModel


def read_out(model: BaseModel, images: Tensor) -> tuple[Tensor, Tensor]:
    """One forward pass: the features that the classifier sees, and the logits.

    Args:
        model: in its current mode, under its own autocast.
        images: float [B, 3, size, size], normalised.

    Returns:
        Features [B, num_features] in the dtype of the pass, and logits, float32 [B, num_classes].
    """
    seen: list[Tensor] = []
    hook = model.head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        logits: Tensor = model(images)
    finally:
        hook.remove()
    return seen[0], logits


def plain_log_odds(model: BaseModel, features: Tensor) -> Tensor:
    """Log-odds of fake, float32 [B], of features [B, num_features], without dropout, as in serving."""
    logits: Tensor = model.head.linear(features.float())
    return log_odds(logits)


def log_odds(logits: Tensor) -> Tensor:
    """Log-odds of fake [B] of logits [B, 2]."""
    return logits[:, 1] - logits[:, 0]
