"""Backends by name: torch (eager or compiled) or OpenVINO. Only the chosen one's library is imported."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from models.device_choice import choose_device
from models.devices import INSTALL_TORCH, torch_installed
from pipeline.detectors import Detector
from pipeline.scoring.backend import Backend, BackendError

if TYPE_CHECKING:
    from models.base import BaseModel


def backend_names(device: str) -> tuple[str, ...]:
    """The backends available for a device, the one that `auto` takes first.

    Args:
        device: `cpu`, `cuda`, `cuda:N` or `mps`.
    """
    if device.startswith("cuda"):
        return ("torch-compiled", "torch")
    with_torch = ("torch", "torch-compiled") if torch_installed() else ()
    if device == "cpu" and find_spec("openvino") is not None:
        return ("openvino", *with_torch)
    return with_torch


def create_backend(
    detector: BaseModel | Detector, *, backend: str = "auto", device: str = "auto", threads: int | None = None
) -> Backend:
    """The backend for a detector on a device.

    Args:
        detector: or its model alone; the model is put into evaluation mode.
        backend: "auto" takes compiled torch on CUDA, OpenVINO on a CPU where it is installed, else eager torch.
        device: "auto", "cpu", "cuda", "cuda:1", "mps" ...
        threads: of OpenVINO; by default the cores that this process may really use. Torch's are set by torch.

    Raises:
        BackendError: unknown, not installed, or not for this device.
        DeviceError: the device does not exist.
        GraphError: the detector's graph is damaged and cannot be made here, or OpenVINO cannot run it.
    """
    target = choose_device(device)
    available = backend_names(target)
    chosen = backend if backend != "auto" else next(iter(available), "")
    kind = target.partition(":")[0]
    if chosen not in available:
        hint = "; it comes with `pip install openvino`" if chosen == "openvino" and kind == "cpu" else ""
        if chosen.startswith("torch") and not torch_installed():
            hint = f"; it needs torch: {INSTALL_TORCH}"
        raise BackendError(f"no backend {chosen!r} for {kind}; there are: {', '.join(('auto', *available))}{hint}")
    if chosen == "openvino":
        from pipeline.scoring.openvino_backend import OpenVinoBackend

        return OpenVinoBackend(_of(detector).graph(), threads=threads)
    from models.precision import precision_for
    from pipeline.scoring.torch_backend import TorchBackend

    model = _of(detector).model().eval()
    return TorchBackend(model, precision_for(target), compiled=chosen == "torch-compiled")


def _of(detector: BaseModel | Detector) -> Detector:
    return detector if isinstance(detector, Detector) else Detector.of(detector.eval(), None, sha256="")
