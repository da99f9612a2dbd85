"""Which device to run on. torch is imported only where there may be another one than the CPU."""

from __future__ import annotations

from models.devices import DeviceError, has_gpu_driver, torch_installed


def choose_device(requested: str = "auto") -> str:
    """The device to run on.

    Args:
        requested: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.

    Returns:
        `cpu`, `cuda:N` or `mps`.

    Raises:
        DeviceError: the device does not exist or the name is invalid.
    """
    if requested == "cpu" or (requested == "auto" and not (has_gpu_driver() and torch_installed())):
        return "cpu"
    if not torch_installed():
        raise DeviceError(f"device {requested!r} is not available; available: auto, cpu (torch is not installed)")
    from models.precision import best_device

    return str(best_device(requested))
