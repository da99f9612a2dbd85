"""Schedules of learning rate, dropout and stochastic depth over a run, by optimizer step."""

from __future__ import annotations

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from models.base import BaseModel
from trainers.config import ScheduleConfig, TrainConfig


def constant_then_decay(step: int, *, warmup_steps: int, decay_steps: int, total_steps: int) -> float:
    """The rate's factor 0..1 at a step: linear warm-up, constant, linear decay to 0 at `total_steps`.

    Zhai et al., "Scaling Vision Transformers", 2022, section 3.5; a decay can be branched off at any point of the
    constant part (Hagele et al., "Scaling laws and compute-optimal training beyond fixed training durations", 2024).
    """
    up = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    down = min(1.0, max(0, total_steps - step) / decay_steps) if decay_steps else 1.0
    return min(up, down)


def learning_rates(optimizer: torch.optim.Optimizer, config: TrainConfig) -> LRScheduler:
    """The schedule of a run, to be stepped after each optimizer step; each parameter group keeps its own maximum."""
    schedule, total = config.schedule, config.total_steps
    if schedule.kind == "one_cycle":
        return OneCycleLR(
            optimizer,
            # A list: a single number would override the layer-wise rates.
            max_lr=[group["lr"] for group in optimizer.param_groups],
            total_steps=total + 1,
            pct_start=schedule.one_cycle_up,
            # AdamW's beta1 stays constant: with EMA and clipping, a cycled momentum is not needed.
            cycle_momentum=False,
        )
    decay_steps = schedule.decay_samples // config.samples_per_step

    def factor(step: int) -> float:
        return constant_then_decay(step, warmup_steps=schedule.warmup_steps, decay_steps=decay_steps, total_steps=total)

    return LambdaLR(optimizer, factor)


def drop_rates(config: ScheduleConfig, model: BaseModel, part: float) -> tuple[float | None, float | None]:
    """Dropout and stochastic depth at a part 0..1 of the run, linear from the model's own to the final ones.

    Args:
        config: has the final rates; None leaves a rate as it is.
        model: whose config has the first ones.
        part: completed part of the run.
    """

    def between(first: float, final: float | None) -> float | None:
        return None if final is None else first + (final - first) * min(1.0, max(0.0, part))

    return between(model.config.dropout_rate, config.final_dropout), between(
        model.config.drop_path_rate, config.final_drop_path
    )
