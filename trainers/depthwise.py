"""Depthwise convolutions with fast gradients on a CPU.

oneDNN has no fast kernels for two of them: the gradient of the input of a strided depthwise convolution, and in bf16
the gradient of the weights of a 5x5 one. Together they took half of a training step of tf_efficientnet_lite0
(bf16, 160 px, batch 32, AVX512-BF16: 47 img/s with them, 69 without). Here the first is computed as a stride-1
convolution of the gradient with zeros between its positions, the second in fp32.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn
from torch.nn import functional as F


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(images, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        images, weight = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        of_images = of_weight = None
        if ctx.needs_input_grad[0]:
            if ctx.stride == 1:
                of_images = _library(gradient, images, weight, 1, ctx.padding, 0)
            else:
                of_images = _spread(gradient, images, weight, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1]:
            slow = weight.shape[-1] > 3 and gradient.dtype is torch.bfloat16
            operands = (gradient, images, weight)
            if slow:
                operands = (gradient.float(), images.float(), weight.float())
            of_weight = _library(*operands, ctx.stride, ctx.padding, 1).to(weight.dtype)
        return of_images, of_weight, None, None


def _library(gradient: Tensor, images: Tensor, weight: Tensor, stride: int, padding: int, which: int) -> Tensor:
    wanted = [which == 0, which == 1, False]
    found = torch.ops.aten.convolution_backward(
        gradient, images, weight, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], len(weight), wanted
    )
    result: Tensor = found[which]
    return result


def _spread(gradient: Tensor, images: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """The transposed convolution: zeros between the gradient's positions, then the flipped kernel at stride 1."""
    batch, channels, height, width = images.shape
    kernel = weight.shape[-1]
    rows, columns = height + 2 * padding - kernel + 1, width + 2 * padding - kernel + 1
    spread = torch.zeros((batch, channels, rows, columns), dtype=gradient.dtype, device=gradient.device).contiguous(
        memory_format=torch.channels_last
    )
    spread[:, :, ::stride, ::stride] = gradient
    return F.conv2d(spread, weight.flip(2, 3), None, 1, kernel - 1 - padding, 1, channels)


class DepthwiseConv2d(nn.Conv2d):
    """`nn.Conv2d` with one filter a channel, symmetric padding and the gradients above."""

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, h, w]."""
        return _convolve(input, self.weight, self.stride[0], int(self.padding[0]))


class DepthwiseConv2dSame(Conv2dSame):  # type: ignore[misc]
    """timm's convolution with TensorFlow's "same" padding, with the gradients above."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, ceil(H / stride), ceil(W / stride)]."""
        return _convolve(pad_same(x, self.kernel_size, self.stride), self.weight, self.stride[0], 0)


def use_fast_gradients(model: nn.Module) -> int:
    """Give the depthwise convolutions of a model the gradients above; parameters and outputs do not change.

    Returns:
        How many were replaced: those with odd, square kernels, without bias and dilation.
    """
    changed = 0
    for module in model.modules():
        if type(module) is nn.Conv2d and isinstance(module.padding, tuple) and _is_depthwise(module):
            module.__class__ = DepthwiseConv2d
        elif type(module) is Conv2dSame and _is_depthwise(module):
            module.__class__ = DepthwiseConv2dSame
        else:
            continue
        changed += 1
    return changed


def _is_depthwise(conv: Any) -> bool:
    square = len(set(conv.kernel_size)) == len(set(conv.stride)) == 1 and conv.kernel_size[0] % 2 == 1
    alone = conv.groups == conv.in_channels == conv.out_channels > 1
    return square and alone and conv.bias is None and conv.dilation == (1, 1) and conv.padding_mode == "zeros"


def _convolve(images: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    if torch.is_autocast_enabled(images.device.type):
        dtype = torch.get_autocast_dtype(images.device.type)
        images, weight = images.to(dtype), weight.to(dtype)
    result: Tensor = _Depthwise.apply(images, weight, stride, padding)
    return result
