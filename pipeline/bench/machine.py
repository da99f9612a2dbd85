"""One line about the machine of a measurement."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import psutil

from models.cores import available_cores
from models.devices import cpu_name, openvino_precision


def describe() -> str:
    """CPU, cores, memory, fast precision and versions, which every figure needs."""
    libraries = ", ".join(
        f"{name} {found}" for name in ("torch", "openvino", "av", "timm") if (found := _version(name))
    )
    return (
        f"{cpu_name()}, {available_cores()} cores, {psutil.virtual_memory().total >> 30} GiB, fast in "
        f"{openvino_precision()}; Python {platform.python_version()}, {libraries}"
    )


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
