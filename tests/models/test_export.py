"""Exported graphs score like the original network."""

from __future__ import annotations

import warnings

import numpy as np
import openvino
import pytest
import torch
from torch import Tensor, nn

from models.base import BaseModel
from models.layers.frequency import HighPass, Spectrum
from models.spec import IMAGENET_STD
from pipeline import quiet_openvino
from tests.models.conftest import SMALL, BuildSmall, images_for

every_architecture = pytest.mark.parametrize("architecture", sorted(SMALL))


class Scorer(nn.Module):
    """What serving exports: uint8 [B, S, S, 3] -> logits."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: BaseModel) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", 255 * torch.tensor(model.input_spec.mean))
        self.register_buffer("std", 255 * torch.tensor(model.input_spec.std))

    def forward(self, crops: Tensor) -> Tensor:
        logits: Tensor = self.model(((crops.float() - self.mean) / self.std).permute(0, 3, 1, 2))
        return logits


def crops_for(model: BaseModel, count: int) -> Tensor:
    images = images_for(model, count).permute(0, 2, 3, 1)
    spec = model.input_spec
    return (255 * (images * torch.tensor(spec.std) + torch.tensor(spec.mean))).clamp(0, 255).to(torch.uint8)


def to_openvino(module: nn.Module, images: Tensor) -> openvino.Model:
    """Converted from one image, reshaped for any number."""
    with warnings.catch_warnings():
        # Warnings of the converter's tracer: it is deprecated, and it treats sizes as constants.
        warnings.simplefilter("ignore")
        converted = openvino.convert_model(module, example_input=images[:1])
    converted.reshape([-1, *images.shape[1:]])
    return converted


def run_openvino(model: openvino.Model, crops: Tensor, precision: str) -> Tensor:
    compiled = quiet_openvino.core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    return torch.from_numpy(np.array(compiled(crops.numpy())[0]))


@pytest.mark.slow
@every_architecture
def test_openvino_scores_like_eager(small: BuildSmall, architecture: str) -> None:
    scorer = Scorer(small(architecture)).eval()
    crops = crops_for(scorer.model, 3)
    with torch.inference_mode():
        exact = scorer(crops)
    # A detector has this setting after training; its graph is fp32 regardless.
    scorer.model.mixed_precision = True
    converted = to_openvino(scorer, crops)
    torch.testing.assert_close(run_openvino(converted, crops, "f32"), exact, atol=1e-4, rtol=1e-3)
    rough = run_openvino(converted, crops, "bf16")
    torch.testing.assert_close(rough.softmax(1), exact.softmax(1), atol=0.02, rtol=0)


@pytest.mark.slow
@every_architecture
def test_torch_export_scores_like_eager(small: BuildSmall, architecture: str) -> None:
    scorer = Scorer(small(architecture)).eval()
    crops = crops_for(scorer.model, 3)
    with torch.inference_mode():
        exact = scorer(crops)
    scorer.model.mixed_precision = True
    batch = torch.export.Dim("batch", min=2, max=64)
    exported = torch.export.export(scorer, (crops,), dynamic_shapes=({0: batch},)).module()
    for count in (2, 3):
        with torch.inference_mode():
            torch.testing.assert_close(exported(crops[:count]), exact[:count], atol=1e-5, rtol=1e-4)


class SpectrumReader(nn.Module):
    """The spectrum of a tile, read by a convolution, before which OpenVINO may round anything to bf16."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.high_pass, self.spectrum = HighPass(factor, IMAGENET_STD), Spectrum()
        self.read = nn.Conv2d(4, 4, 1, bias=False)
        nn.init.dirac_(self.read.weight)

    def forward(self, images: Tensor) -> Tensor:
        spectra: Tensor = self.read(self.spectrum(self.high_pass(images)[..., :56, :56]))
        return spectra


def natural_images(size: int) -> Tensor:
    """Grey images [2, 3, size, size] in 8 bits whose amplitudes fall with frequency f as f^-1.2 (Field, 1987)."""
    frequency = torch.hypot(*torch.meshgrid(torch.fft.fftfreq(size), torch.fft.rfftfreq(size), indexing="ij"))
    noise = torch.fft.rfft2(torch.randn(2, 1, size, size, generator=torch.Generator().manual_seed(0)))
    images = torch.fft.irfft2(noise / frequency.clamp(min=1 / size) ** 1.2, s=(size, size))
    pixels = (255 * (0.2 * images / images.std() + 0.5).clamp(0, 1)).round() / 255
    # Values that are exact in bf16: OpenVINO's rounding of network inputs is not tested here.
    normalised: Tensor = (pixels - 0.45) / 0.225
    return normalised.bfloat16().float().expand(-1, 3, -1, -1).contiguous()


@pytest.mark.parametrize(("size", "factor"), [(224, 1), (299, 1), (224, 4)])
def test_the_spectrum_keeps_its_weakest_frequencies_in_bf16(size: int, factor: int) -> None:
    reader = SpectrumReader(factor).eval()
    images = natural_images(size)
    with torch.inference_mode():
        exact = reader(images)
    rough = run_openvino(to_openvino(reader, images), images, "bf16")
    log_amplitude, cosine, sine, _ = (rough - exact).square().mean((0, 2, 3)).sqrt()
    # Twice as much if the brightness itself is rounded instead of its high-pass residual.
    assert log_amplitude < 0.003
    assert max(cosine, sine) < 0.015
