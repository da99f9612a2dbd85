"""OpenVINO without telemetry, and with one core for the whole process.

By default, importing it and converting a model send telemetry to its maker. Unmask must not report anything about its
use. If the telemetry package cannot be imported, OpenVINO uses a stub.

Each `Core` gives its thread an alternate signal stack, and restores the previous one when destroyed. Two that are
destroyed in the order of creation leave the thread with an unmapped stack, and the next signal (SIGTERM, SIGCHLD) kills
the process. So there is only one, which is never destroyed.

No network pins threads to cores: a pinned one also binds the thread that calls it, and several such processes share one
core and leave the others idle.
"""

from __future__ import annotations

import importlib
import sys
import threading
from typing import Any

_REPORTING = "openvino_telemetry"
_lock = threading.Lock()
_core: Any = None


def load(submodule: str = "") -> Any:
    """The package `openvino`, or a module of it (`load("preprocess")`). All imports of it use this function.

    Raises:
        ImportError: OpenVINO is not installed.
    """
    sys.modules.setdefault(_REPORTING, None)  # type: ignore[arg-type]  # None makes its import fail
    return importlib.import_module(f"openvino.{submodule}" if submodule else "openvino")


def core() -> Any:
    """The process's only `openvino.Core`, for reading and compiling all models.

    Raises:
        ImportError: OpenVINO is not installed.
    """
    global _core
    with _lock:
        if _core is None:
            made = load().Core()
            made.set_property("CPU", {"ENABLE_CPU_PINNING": False})
            _core = made
        return _core


def read(xml: bytes, weights: bytes) -> Any:
    """An `openvino.Model` from the two parts of an intermediate representation in memory.

    Raises:
        RuntimeError: OpenVINO cannot read it.
    """
    return core().read_model(xml, weights)
