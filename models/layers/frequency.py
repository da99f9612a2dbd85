"""Fourier features: log-amplitude and phase of an image's tiles, at several scales."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.fusion import SeparableConv
from models.layers.pooling import AttentionPool, AveragePool

# ITU-R BT.601 luma.
_LUMA = (0.299, 0.587, 0.114)
# The five-point Laplacian, over 4: its coefficients are exact in any floating-point format, and sum to zero in it.
_LAPLACIAN = ((0.0, -0.25, 0.0), (-0.25, 1.0, -0.25), (0.0, -0.25, 0.0))
# Root mean square of the rounding of 8-bit pixels, 1 / (255 sqrt 12). An orthonormal transform keeps it: whatever
# is below it in the spectrum is rounding, and its phase is random.
_NOISE_FLOOR = 1.0 / (255.0 * math.sqrt(12.0))


class HighPass(nn.Module):
    """High-pass residual of the brightness: normalised images [B, 3, H, W] -> float32 [B, 1, H // f, W // f].

    Averages over f x f px, then the Laplacian, in one convolution. It leaves the phase as it is and removes most of
    the fall of natural spectra with frequency. So the residual is small, and so are the errors where a compiler rounds
    it: OpenVINO in bf16 rounds what autocast leaves alone, and rounding the brightness itself would drown the high
    frequencies (logits of a small trained network, 5.6 on average, off by up to 1.8, with the residual by up to 0.16).
    """

    kernel: Tensor

    def __init__(self, factor: int, std: tuple[float, float, float]) -> None:
        """Make the kernel.

        Args:
            factor: f above.
            std: per channel (RGB), of the images' normalisation, which is undone.
        """
        super().__init__()
        self.factor = factor
        channels = torch.tensor([weight * s for weight, s in zip(_LUMA, std, strict=True)])
        box = torch.full((factor, factor), 1.0 / factor**2)
        kernel = torch.kron(torch.tensor(_LAPLACIAN), box)
        self.register_buffer("kernel", channels.view(1, 3, 1, 1) * kernel, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Filter, in fp32 under any autocast. Outside the image counts as mean colour."""
        with torch.autocast(images.device.type, enabled=False):
            return F.conv2d(images.float(), self.kernel, stride=self.factor, padding=self.factor)


class Spectrum(nn.Module):
    """Spectra of square tiles: [N, 1, p, p] -> float32 [N, 4, p, p // 2 + 1].

    Each tile is faded out to its edges (Hann window: a tile does not repeat, and its edges would fill the spectrum),
    transformed, and described by four channels. Frequency 0 is in the middle row of the first column; the rows
    go down to the negative and up to the positive vertical frequencies, the columns to the horizontal ones.

    0. log-amplitude: 0 at the noise of 8-bit rounding, 1 at amplitude 1;
    1. and 2. cosine and sine of the phase, shrinking to 0 where the amplitude sinks below that noise;
    3. distance from frequency 0 in units of the Nyquist frequency: a convolution does not know where it is.

    Everything is computed in fp32 under any autocast: half-precision transforms exist for powers of two only.
    """

    def forward(self, tiles: Tensor) -> Tensor:
        """Transform each tile."""
        with torch.autocast(tiles.device.type, enabled=False):
            side, device = tiles.shape[-1], tiles.device
            window = torch.hann_window(side, device=device)
            spectrum = torch.fft.rfft2(tiles.float() * torch.outer(window, window), norm="ortho")
            real, imaginary = spectrum.real.roll(side // 2, 2), spectrum.imag.roll(side // 2, 2)
            amplitude = (real.square() + imaginary.square() + _NOISE_FLOOR**2).sqrt()
            log_amplitude = 1.0 - amplitude.log() / math.log(_NOISE_FLOOR)
            rows = torch.arange(-(side // 2), side - side // 2, device=device) / (side / 2)
            columns = torch.arange(side // 2 + 1, device=device) / (side / 2)
            radius = (rows.square()[:, None] + columns.square()).sqrt().expand_as(amplitude)
            return torch.cat([log_amplitude, real / amplitude, imaginary / amplitude, radius], 1)


class FrequencyScale(nn.Module):
    """One vector for the spectra of an image at one scale: normalised images [B, 3, S, S] -> [B, width].

    The tiles share their weights; a learned attention weights them, since a forgery may be local.
    """

    def __init__(self, factor: int, tiles: int, width: int, std: tuple[float, float, float]) -> None:
        """Build the encoder.

        Args:
            factor: by which the image is made smaller first.
            tiles: of what is left, along each side.
            width: of the vector, a multiple of 4.
            std: per channel (RGB), of the images' normalisation.
        """
        super().__init__()
        self.tiles = tiles
        self.high_pass = HighPass(factor, std)
        self.spectrum = Spectrum()
        self.encoder = nn.Sequential(
            nn.Conv2d(4, width // 4, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width // 4),
            nn.ReLU(inplace=True),
            SeparableConv(width // 4, width // 2, stride=2),
            SeparableConv(width // 2, width, stride=2),
        )
        # Over one tile a softmax is always 1, and its score would never learn.
        self.tile_pool = AttentionPool(width) if tiles > 1 else AveragePool()

    def forward(self, images: Tensor) -> Tensor:
        """Encode every tile and pool over them; incomplete tiles on the right and at the bottom are cut."""
        n = self.tiles
        residual = self.high_pass(images)
        side = residual.shape[-1] // n
        grid = residual[..., : side * n, : side * n].reshape(-1, n, side, n, side)
        tiles = grid.transpose(2, 3).reshape(-1, 1, side, side)
        vectors = self.encoder(self.spectrum(tiles)).mean((2, 3))
        pooled: Tensor = self.tile_pool(vectors.unflatten(0, (-1, n * n)).transpose(1, 2).unsqueeze(-1))
        return pooled


class FrequencyStream(nn.Module):
    """Spectra at several scales into one vector: normalised images [B, 3, S, S] -> [B, scales x width].

    The tiles of all scales have the same side in px, so the coarsest scale is one spectrum of the whole image made
    smaller, and the finest one shows the highest frequencies tile by tile.

    Attributes:
        scales: one `FrequencyScale` for each factor.
    """

    def __init__(
        self,
        factors: tuple[int, ...],
        width: int,
        std: tuple[float, float, float],
    ) -> None:
        """Build the scales.

        Args:
            factors: by which each scale makes the image smaller; each divides the largest.
            width: of one scale's vector, a multiple of 4.
            std: per channel (RGB), of the images' normalisation.
        """
        super().__init__()
        self.scales = nn.ModuleList(FrequencyScale(factor, max(factors) // factor, width, std) for factor in factors)

    def forward(self, images: Tensor) -> Tensor:
        """Encode the spectra at all scales."""
        return torch.cat([scale(images) for scale in self.scales], 1)
