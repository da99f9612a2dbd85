"""One line about the machine of a measurement."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

import psutil

from models.cores import available_cores
from models.precision import openvino_precision


def describe() -> str:
    """CPU, cores, memory, fast precision and versions, which every figure needs."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "openvino", "av", "timm"))
    return (
        f"{_cpu()}, {available_cores()} cores, {psutil.virtual_memory().total >> 30} GiB, fast in "
        f"{openvino_precision()}; Python {platform.python_version()}, {libraries}"
    )


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
