"""What this machine computes on, asked without importing torch."""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from models.errors import UnmaskError

# Devices of the drivers of NVIDIA, NVIDIA under WSL, and AMD. Without any of them torch finds no GPU either.
_GPU_DRIVERS = ("dev/nvidiactl", "dev/nvidia0", "dev/dxg", "dev/kfd")
# Either one computes bfloat16 in hardware (names of flags in Linux's arch/x86/include/asm/cpufeatures.h).
_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})


# What brings torch and what scoring with it, reading its checkpoints and MTCNN's networks need.
INSTALL_TORCH = "pip install torch torchvision timm safetensors huggingface_hub facenet-pytorch"


class DeviceError(UnmaskError, ValueError):
    """A device was asked for that does not exist here."""


def torch_installed() -> bool:
    """Whether torch can be imported; it is not imported."""
    spec = importlib.util.find_spec("torch")
    return spec is not None and spec.origin is not None  # what an uninstallation leaves has no origin


def has_gpu_driver(root: Path = Path("/")) -> bool:
    """Whether this system has the driver of a GPU that torch may be able to use.

    Args:
        root: where `dev` is searched.
    """
    return sys.platform == "darwin" or any((root / device).exists() for device in _GPU_DRIVERS)


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The features of the first CPU; empty where the system does not list them."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return frozenset()
    return next((frozenset(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), frozenset())


def openvino_precision(flags: Iterable[str] | None = None) -> Literal["bf16", "f32"]:
    """The inference precision to ask of OpenVINO's CPU plugin.

    The chip decides: on AVX-512 without the bf16 instructions OpenVINO takes bf16 too, but simulates it, slower
    than f32 (its documentation of bfloat16 inference).

    Args:
        flags: features of the CPU; by default those of this one.
    """
    return "bf16" if _BF16_FLAGS.intersection(cpu_flags() if flags is None else flags) else "f32"


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The model of the first CPU."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
