"""The mean of several checkpoints of one detector: final weights of runs that started at the same weights.

Wortsman et al., "Model soups" (ICML 2022, https://arxiv.org/abs/2203.05482): fine-tuned weights in one basin
average to weights at least as good, at no cost in scoring.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from models.checkpoint import CheckpointError, read_checkpoint, save_checkpoint
from models.checkpoint_info import Calibration


def average(paths: Sequence[Path], out: Path) -> str:
    """Write the equal mean of the weights; floating-point tensors in fp32, others (counters) of the first.

    The result has no calibration, no thresholds and no metrics: those of its parts do not apply.

    Args:
        paths: checkpoints of the same architecture, config and input spec.
        out: file to write.

    Returns:
        sha256 of the file.

    Raises:
        CheckpointError: fewer than two, one cannot be read, or they do not match.
    """
    if len(paths) < 2:
        raise CheckpointError("expected at least two checkpoints")
    first = read_checkpoint(paths[0])
    info = first.info
    total = {name: tensor.double() for name, tensor in first.weights.items() if tensor.is_floating_point()}
    for path in paths[1:]:
        other = read_checkpoint(path)
        same = (info.architecture, info.config, info.input_spec)
        if (other.info.architecture, other.info.config, other.info.input_spec) != same:
            raise CheckpointError(f"{path}: architecture, config or input spec differ from {paths[0]}")
        for name in total:
            total[name] += other.weights[name]
    mean = {name: (tensor / len(paths)).to(torch.float32) for name, tensor in total.items()}
    return save_checkpoint(
        out,
        weights={**first.weights, **mean},
        info=replace(info, calibration=Calibration(), thresholds=None, metrics={}),
    )
