from __future__ import annotations

import pytest
import timm
import torch
from timm.layers import Conv2dSame
from torch import nn

from trainers.depthwise import use_fast_gradients


def gradients(layer: nn.Module, images: torch.Tensor, mixed: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    leaf = images.clone().requires_grad_()
    layer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        out = layer(leaf)
    torch.manual_seed(1)
    out.backward(torch.randn_like(out.float()).to(out.dtype))
    assert leaf.grad is not None
    return out.detach().float(), leaf.grad, layer.weight.grad.clone()


@pytest.mark.parametrize("same", [False, True], ids=["symmetric", "tensorflow"])
@pytest.mark.parametrize("mixed", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2), (7, 3)])
@pytest.mark.parametrize("size", [16, 17, 23])
def test_gradients_match_the_library(same: bool, mixed: bool, kernel: int, stride: int, size: int) -> None:
    torch.manual_seed(0)
    kind = Conv2dSame if same else nn.Conv2d
    layer = kind(8, 8, kernel, stride, padding=0 if same else kernel // 2, groups=8, bias=False)
    images = torch.randn(2, 8, size, size).contiguous(memory_format=torch.channels_last)
    theirs = gradients(layer, images, mixed)
    assert use_fast_gradients(layer) == 1
    ours = gradients(layer, images, mixed)
    assert layer(images).shape == theirs[0].shape
    for mine, reference in zip(ours, theirs, strict=True):
        # bf16 has eight bits; the sums behind a gradient have another order here.
        torch.testing.assert_close(mine, reference, rtol=5e-2 if mixed else 1e-4, atol=8e-2 if mixed else 1e-4)


def test_a_whole_network_keeps_outputs_and_names() -> None:
    torch.manual_seed(0)
    net = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    names, images = list(net.state_dict()), torch.randn(1, 3, 64, 64)
    before = net(images)
    assert use_fast_gradients(net) == 16
    assert use_fast_gradients(net) == 0
    torch.testing.assert_close(net(images), before)
    assert list(net.state_dict()) == names


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(8, 8, 3, padding=1),
        nn.Conv2d(8, 16, 3, padding=1, groups=8, bias=False),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=True),
        nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8, bias=False),
        nn.Conv2d(8, 8, (1, 3), padding=(0, 1), groups=8, bias=False),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False, padding_mode="reflect"),
    ],
)
def test_other_convolutions_do_not_change(layer: nn.Module) -> None:
    assert use_fast_gradients(layer) == 0
