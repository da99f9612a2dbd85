"""The optimizer of a run."""

from __future__ import annotations

import torch
from torch import nn

from models.base import BaseModel
from trainers.config import OptimConfig


def create_optimizer(model: BaseModel, config: OptimConfig, extra: nn.Module | None = None) -> torch.optim.AdamW:
    """AdamW with a rate for each depth of the backbone, and a higher one for layers that start from random weights.

    Args:
        model: the detector; see `models.param_groups` for its groups.
        config: rates and decay.
        extra: layers trained with it, at the rate of new layers.
    """
    groups = model.param_groups(config.lr, config.weight_decay, config.layer_decay)
    top = max(group["layer_id"] for group in groups)
    for group in groups:
        if group["layer_id"] == top:
            group["lr"] *= config.head_lr_factor
    if extra is not None and (parameters := list(extra.parameters())):
        groups.append(
            {"params": parameters, "lr": config.lr * config.head_lr_factor, "weight_decay": 0.0, "layer_id": top}
        )
    return torch.optim.AdamW(groups, lr=config.lr)
