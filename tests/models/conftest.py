"""Small detectors of every architecture, built once and copied."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import torch

from models.architectures import get_model
from models.base import BaseModel
from tests.models.small_swin import SMALL_SWIN

# The test models of timm, and a small Swin.
SMALL: dict[str, dict[str, Any]] = {
    "clip_vit": {"backbone": "test_vit", "input_size": 96, "block_width": 16},
    "cnn_transformer": {"backbone": "test_resnet", "input_size": 96, "width": 32, "heads": 4},
    "cross_attention": {"backbone": "test_resnet", "input_size": 96, "width": 32, "heads": 4},
    "swin_transformer": {"backbone": SMALL_SWIN, "input_size": 64, "stage_width": 16},
    "two_stream": {"backbone": "test_resnet", "input_size": 96, "frequency_width": 16, "fusion_width": 32},
    "xception": {"backbone": "test_efficientnet", "input_size": 96, "neck_width": 16},
}

BuildSmall = Callable[..., BaseModel]


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """A second thread costs these small networks more than it saves, especially on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def _built(architecture: str) -> BaseModel:
    torch.manual_seed(0)
    return get_model(architecture, pretrained=False, **SMALL[architecture])


@pytest.fixture
def small() -> BuildSmall:
    """`small(architecture, **options)`: a small detector with random weights, in eval mode, a copy per test."""

    def build(architecture: str, **options: Any) -> BaseModel:
        if not options:
            return copy.deepcopy(_built(architecture)).eval()
        torch.manual_seed(0)
        return get_model(architecture, pretrained=False, **(SMALL[architecture] | options)).eval()

    return build


def images_for(model: BaseModel, count: int = 2, seed: int = 0) -> torch.Tensor:
    """Normalised random images [count, 3, size, size]: noise over a smooth ramp, so that all frequencies occur."""
    size = model.input_spec.size
    generator = torch.Generator().manual_seed(seed)
    ramp = torch.linspace(-1.5, 1.5, size).expand(count, 3, size, size)
    angles = torch.rand(count, 3, 1, 1, generator=generator) * 2 - 1
    return (
        ramp * angles
        + ramp.transpose(2, 3) * (1 - angles.abs())
        + 0.3 * torch.randn(count, 3, size, size, generator=generator)
    )
