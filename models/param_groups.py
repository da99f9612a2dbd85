"""Parameters grouped for an optimizer: a learning rate for each depth, and no weight decay where it would hurt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def param_groups(
    model: nn.Module, layer_ids: Mapping[str, int], lr: float, weight_decay: float, layer_decay: float
) -> list[dict[str, Any]]:
    """One group for each depth, split again into parameters with and without weight decay.

    Layer-wise decay of the learning rate as in Bao et al., "BEiT", 2022: the top layers, which start from random
    weights, learn at `lr`, each layer below at `layer_decay` times the rate of the next. Each group holds its own,
    already scaled `lr`; OneCycleLR needs these rates as its list of `max_lr`, or it sets them all to one.

    Args:
        model: whose parameters; frozen ones are left out.
        layer_ids: depth of each parameter by its name, 0 for the first layer.
        lr: of the top layer.
        weight_decay: of all weights that have any.
        layer_decay: 1 for one rate everywhere.

    Returns:
        Groups with `params`, `lr`, `weight_decay` and `layer_id`, the first layer first.
    """
    spared, top = no_weight_decay(model), max(layer_ids.values())
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((layer_ids[name], name not in spared), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": lr * layer_decay ** (top - layer),
            "weight_decay": weight_decay if decays else 0.0,
            "layer_id": layer,
        }
        for (layer, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def adamw(
    groups: list[dict[str, Any]], lr: float, *, head_lr_factor: float = 1.0, extra: nn.Module | None = None
) -> torch.optim.AdamW:
    """AdamW over the groups of `param_groups`.

    Args:
        groups: each with its own `lr`; those of the top layers are changed.
        lr: of the top layers, before the factor.
        head_lr_factor: of the rate of the top layers, which start from random weights.
        extra: layers that are trained with the detector, at the rate of its top layers and without weight decay.
    """
    top = max(group["layer_id"] for group in groups)
    for group in groups:
        if group["layer_id"] == top:
            group["lr"] *= head_lr_factor
    if extra is not None and (parameters := list(extra.parameters())):
        groups.append({"params": parameters, "lr": lr * head_lr_factor, "weight_decay": 0.0, "layer_id": top})
    return torch.optim.AdamW(groups, lr=lr)


def no_weight_decay(model: nn.Module) -> set[str]:
    """Names of parameters without weight decay: biases, norms, and what a layer's own `no_weight_decay` names."""
    spared = {name for name, parameter in model.named_parameters() if parameter.ndim <= 1}
    for prefix, module in model.named_modules():
        if hasattr(module, "no_weight_decay"):
            spared |= {f"{prefix}.{name}" for name in module.no_weight_decay()}
    return spared
