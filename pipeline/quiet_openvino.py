"""OpenVINO without telemetry, and with one core for the whole process.

Importing it, and converting a model, reports to its maker over the network, unasked. What is examined here, and that it
is, concerns nobody else. Where the reporting package cannot be imported, OpenVINO takes a stub in its place.

Each `Core` gives its thread an alternate signal stack, and puts the former one back when it goes. Two that go in the
order in which they came leave the thread with a stack that is unmapped, and the next signal (SIGTERM, the end of a
child) kills the process. So there is one, and it stays.
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
    """The package `openvino`, or a module of it (`load("preprocess")`). All our imports of it go through here.

    Raises:
        ImportError: OpenVINO is not installed.
    """
    sys.modules.setdefault(_REPORTING, None)  # type: ignore[arg-type]  # None makes its import fail
    return importlib.import_module(f"openvino.{submodule}" if submodule else "openvino")


def core() -> Any:
    """The process's `openvino.Core`: whatever reads or compiles a model does it through this one.

    Raises:
        ImportError: OpenVINO is not installed.
    """
    global _core
    with _lock:
        if _core is None:
            _core = load().Core()
        return _core
