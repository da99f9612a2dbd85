"""What a device computes fast, probed at run time in one place for training and serving."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from models.devices import DeviceError

__all__ = [
    "Capability",
    "DeviceError",
    "DeviceType",
    "Precision",
    "available_devices",
    "best_device",
    "precision_for",
    "probe",
]

DeviceType = Literal["cuda", "mps", "cpu"]


@dataclass(frozen=True, slots=True)
class Capability:
    """Which reduced precisions a device computes natively, that is faster than fp32.

    Attributes:
        device_type: `cuda` (also ROCm), `mps` or `cpu`.
        bf16: bfloat16 matrix products and convolutions run in hardware, not emulated.
        fp16: the same of float16.
        reason: one human-readable line: what decided.
    """

    device_type: DeviceType
    bf16: bool
    fp16: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Precision:
    """How a network is run on a device.

    Attributes:
        device: the device.
        autocast_dtype: the dtype for `torch.autocast`; None: plain fp32.
        memory_format: layout of images and convolution weights.
        needs_scaler: gradients would underflow in this dtype without loss scaling.
    """

    device: torch.device
    autocast_dtype: torch.dtype | None
    memory_format: torch.memory_format
    needs_scaler: bool

    def autocast(self, enabled: bool = True) -> torch.autocast:
        """A context manager that does nothing if `enabled` is false or the device has no fast dtype."""
        dtype = self.autocast_dtype
        return torch.autocast(self.device.type, dtype=dtype, enabled=enabled and dtype is not None)

    def scaler(self) -> torch.amp.GradScaler:
        """A gradient scaler for training, a pass-through if none is needed."""
        return torch.amp.GradScaler(self.device.type, enabled=self.needs_scaler)


def best_device(requested: str = "auto") -> torch.device:
    """The device to run on: `auto` takes CUDA, then MPS, then the CPU.

    Args:
        requested: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.

    Raises:
        DeviceError: the device does not exist or the name is invalid; the message lists what exists.
    """
    available = available_devices()
    if requested == "auto":
        return torch.device(available[0])
    wanted = "cuda:0" if requested == "cuda" else requested
    if wanted not in available:
        raise DeviceError(f"device {requested!r} is not available; available: auto, {', '.join(available)}")
    return torch.device(wanted)


def available_devices() -> list[str]:
    """Names of all devices that torch can use here, the fastest kind first; `cpu` is always the last."""
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return [*cuda, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def probe(device: torch.device | str) -> Capability:
    """Ask a device what it computes natively.

    Raises:
        DeviceError: a kind of device that Unmask does not run on.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return _probe_cuda(device)
    if device.type == "mps":
        # The first generation of Apple GPUs emulates bf16, and torch does not distinguish the generations.
        return Capability("mps", bf16=False, fp16=True, reason="Apple GPU: fp16 everywhere, bf16 not on all chips")
    if device.type == "cpu":
        return _probe_cpu()
    raise DeviceError(f"no support for devices of type {device.type!r}; available: cuda, mps, cpu")


def precision_for(device: torch.device | str, capability: Capability | None = None) -> Precision:
    """The fastest safe way to run a network on `device`.

    CUDA takes bf16 where it is native (it has the exponents of fp32: no scaler), else fp16 with a scaler
    where that is fast. A CPU takes bf16 where native, else fp32: on an AVX2 machine, emulated bf16 trained
    20 times slower than fp32 (tf_efficientnet_lite2: 0.8 against 16.4 img/s). MPS stays in fp32: no
    measurement yet shows that fp16 pays for the scaler.

    Args:
        device: where the network runs.
        capability: the result of `probe`, or what to assume instead.
    """
    device = torch.device(device)
    capability = capability or probe(device)
    dtype: torch.dtype | None = None
    if capability.bf16 and device.type in ("cuda", "cpu"):
        dtype = torch.bfloat16
    elif capability.fp16 and device.type == "cuda":
        dtype = torch.float16
    # NHWC is what cuDNN's and oneDNN's convolution kernels want; on MPS it only adds copies.
    layout = torch.contiguous_format if device.type == "mps" else torch.channels_last
    return Precision(device, dtype, layout, needs_scaler=dtype is torch.float16)


def _probe_cuda(device: torch.device) -> Capability:
    with torch.cuda.device(device):
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        name = torch.cuda.get_device_name(device)
        major, minor = torch.cuda.get_device_capability(device)
    # Tensor cores came with Volta (7.0); consumer Pascal computes fp16 at 1/64 of its fp32 rate.
    fp16 = major >= 7
    return Capability("cuda", bf16=bf16, fp16=fp16, reason=f"{name}, compute capability {major}.{minor}")


def _probe_cpu() -> Capability:
    flags = {
        "AVX512-BF16": torch.cpu._is_avx512_bf16_supported(),
        "AMX": torch.cpu._is_amx_tile_supported(),
    }
    native = " and ".join(name for name, present in flags.items() if present)
    # oneDNN's answer alone is yes on every AVX-512 chip, with or without the bf16 instructions.
    built_in: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    onednn = built_in and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if not native:
        reason = "CPU without AVX512-BF16 or AMX: bf16 would be emulated"
    elif not onednn:
        reason = f"CPU with {native}, but this build of torch does not use it"
    else:
        reason = f"CPU with {native}"
    return Capability("cpu", bf16=bool(native) and onednn, fp16=False, reason=reason)
