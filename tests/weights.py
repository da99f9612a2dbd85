"""Generated checkpoints: small ones, and copies of the shipped ones with another bias of the head."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from models.architectures import get_model
from models.base import BaseModel
from models.checkpoint import Calibration, read_checkpoint, save_checkpoint

HEAD_BIAS = "head.linear.bias"
# timm's smallest EfficientNet: converting it and compiling it takes a third of the time of the shipped backbone.
SMALL_BACKBONE = "test_efficientnet.r160_in1k"


def small_model(size_px: int = 64, *, seed: int = 0) -> BaseModel:
    """A small network with random weights."""
    torch.manual_seed(seed)
    return get_model("xception", pretrained=False, backbone=SMALL_BACKBONE, input_size=size_px)


def small_weights(path: Path, *, size_px: int = 64) -> str:
    """Random weights of a small network; returns the sha256 of the file."""
    model = small_model(size_px)
    model.save_checkpoint(path, epoch=0, name="small", calibration=Calibration(1.0, 0.0))
    return read_checkpoint(path).sha256


def shifted(source: Path, path: Path, by: float) -> str:
    """The same weights with log-odds raised by `by`; returns the sha256 of the file."""
    checkpoint = read_checkpoint(source)
    bias = checkpoint.weights[HEAD_BIAS]
    weights = checkpoint.weights | {HEAD_BIAS: bias + torch.tensor([0.0, by], dtype=bias.dtype)}
    return save_checkpoint(path, weights=weights, info=replace(checkpoint.info, name=f"{path.stem}"))
