"""Small teachers with random weights."""

from __future__ import annotations

from pathlib import Path

import torch

from models.architectures import get_model
from models.checkpoint import Calibration


def make_teacher(path: Path, *, seed: int = 1, scale: float = 1.0, bias: float = 0.0, **options: object) -> Path:
    """A checkpoint of an xception over timm's smallest test model, whose log-odds differ from image to image."""
    torch.manual_seed(seed)
    options = {"backbone": "test_resnet.r160_in1k", "input_size": 96, "neck_width": 16} | options
    model = get_model("xception", pretrained=False, **options)
    with torch.no_grad():
        model.head.linear.weight.mul_(20)
    model.save_checkpoint(path, epoch=1, name="teacher", calibration=Calibration(scale, bias))
    return path
