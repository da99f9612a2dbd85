"""Degradations of a batch on its own device: blur, shrinking, noise and JPEG's quantisation, drawn for each image.

Nothing here passes gradients: only the inputs of a network are degraded. `trainers.augment.degrade` has the real codecs
for single images on a CPU.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from trainers.losses.config import ConsistencyConfig

# ITU-T T.81 (JPEG), tables K.1 and K.2: quantisation of luminance and chrominance at quality 50.
_LUMINANCE = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
    *(17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99),
    *(99,) * 32,
)
# JFIF 1.02: RGB to Y, Cb, Cr (Cb and Cr around 0).
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


@torch.no_grad()
def degraded(pixels: Tensor, config: ConsistencyConfig, rng: np.random.Generator) -> Tensor:
    """A degraded copy: blurred, shrunk, noised and compressed in this order, each image by its own draw.

    Args:
        pixels: uint8 [M, 3, S, S].
        config: the ranges.
        rng: source of randomness.

    Returns:
        uint8 [M, 3, S, S], on the device of `pixels`.
    """
    count = len(pixels)
    happens = rng.random((count, 4)) < 0.5
    # Every copy differs from its original.
    happens[np.arange(count), rng.integers(0, 4, count)] |= ~happens.any(1)
    sigma = rng.uniform(*config.blur_sigma_px, count)
    factor = rng.uniform(*config.small, count)
    level = rng.uniform(*config.noise_sigma, count)
    quality = rng.integers(config.jpeg_quality[0], config.jpeg_quality[1] + 1, count)
    seed = int(rng.integers(1 << 62))
    images = pixels.float().contiguous()

    def rows(step: int) -> npt.NDArray[np.int64]:
        return np.flatnonzero(happens[:, step])

    if len(which := rows(0)):
        images[which] = blurred(images[which], sigma[which])
    if len(which := rows(1)):
        images[which] = shrunk(images[which], factor[which])
    if len(which := rows(2)):
        images[which] = noised(images[which], level[which], seed)
    if len(which := rows(3)):
        images[which] = quantised(images[which].round().clamp(0, 255), quality[which])
    return images.round().clamp(0, 255).to(torch.uint8).contiguous(memory_format=torch.channels_last)


def blurred(images: Tensor, sigma_px: npt.NDArray[np.float64]) -> Tensor:
    """Gaussian blur of float [M, 3, H, W] with a sigma above 0 for each image."""
    count, channels, height, width = images.shape
    # Where the Gaussian of the widest kernel has fallen below 1 % of its peak; at most what reflection can pad.
    radius = min(math.ceil(3 * float(sigma_px.max())), height - 1, width - 1)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma_px[:, None]) ** 2)
    kernel /= kernel.sum(1, keepdims=True)
    weights = torch.from_numpy(kernel.astype(np.float32)).to(images.device).repeat_interleave(channels, 0)
    planes = F.pad(images, (radius,) * 4, mode="reflect").reshape(1, count * channels, height + 2 * radius, -1)
    planes = F.conv2d(planes, weights[:, None, None, :], groups=count * channels)
    planes = F.conv2d(planes, weights[:, None, :, None], groups=count * channels)
    return planes.reshape(images.shape)


def shrunk(images: Tensor, factor: npt.NDArray[np.float64]) -> Tensor:
    """float [M, 3, S, S], each shrunk by area to `factor` of its side and enlarged linearly."""
    side = images.shape[-1]
    copies = []
    for i, part in enumerate(factor):
        small = F.interpolate(images[i : i + 1], size=(max(1, round(side * part)),) * 2, mode="area")
        copies.append(F.interpolate(small, size=(side, side), mode="bilinear"))
    return torch.cat(copies)


def noised(images: Tensor, sigma: npt.NDArray[np.float64], seed: int) -> Tensor:
    """float [M, 3, H, W] with white Gaussian noise of a standard deviation for each image, in grey levels."""
    # Drawn on the CPU: the same numbers on every device.
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed)).to(images.device)
    return images + noise * torch.from_numpy(sigma.astype(np.float32)).to(images.device).view(-1, 1, 1, 1)


def quantised(images: Tensor, quality: npt.NDArray[np.int64]) -> Tensor:
    """JPEG's loss applied to float [M, 3, H, W] in 0..255 at a quality 1..100 for each image, chroma halved both ways.

    The lossy steps of ITU-T T.81 with libjpeg's scaling of the tables; entropy coding is lossless and left out.
    """
    height, width = images.shape[-2:]
    to_ycc = torch.tensor(_TO_YCC, device=images.device)
    # Rounded wherever libjpeg stores bytes.
    ycc = torch.einsum("oc,mchw->mohw", to_ycc, images).round()
    padded = F.pad(ycc, (0, -width % 16, 0, -height % 16), mode="replicate")
    luma = _blocks_quantised(padded[:, :1] - 128, _LUMINANCE, quality) + 128
    chroma = _blocks_quantised(F.avg_pool2d(padded[:, 1:], 2).round(), _CHROMINANCE, quality)
    # libjpeg's "fancy upsampling" is this triangle filter.
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear")
    whole = torch.cat([luma, chroma], 1)[..., :height, :width]
    return torch.einsum("co,mohw->mchw", torch.linalg.inv(to_ycc), whole).clamp(0, 255)


def _blocks_quantised(planes: Tensor, table: tuple[int, ...], quality: npt.NDArray[np.int64]) -> Tensor:
    """Planes [M, C, H, W] after the cosine transform of 8 x 8 blocks was rounded to multiples of a scaled table."""
    count, channels, height, width = planes.shape
    scale = np.where(quality < 50, 5000 / quality, 200 - 2 * quality)
    steps = np.floor((np.array(table) * scale[:, None] + 50) / 100).clip(1, 255).astype(np.float32)
    step = torch.from_numpy(steps).to(planes.device).view(count, 1, 1, 1, 8, 8)
    cosine = _cosine_transform(planes.device)
    blocks = planes.reshape(count, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    coefficients = (cosine @ blocks @ cosine.T / step).round() * step
    return (cosine.T @ coefficients @ cosine).round().transpose(3, 4).reshape(planes.shape)


def _cosine_transform(device: torch.device) -> Tensor:
    """The orthonormal DCT-II of 8 points, [8, 8]."""
    place, frequency = np.meshgrid(np.arange(8), np.arange(8))
    matrix = np.sqrt(np.where(frequency == 0, 1, 2) / 8) * np.cos((2 * place + 1) * frequency * np.pi / 16)
    return torch.from_numpy(matrix.astype(np.float32)).to(device)
