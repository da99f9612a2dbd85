"""OpenVINO without telemetry.

Importing it, and converting a model, reports to its maker over the network, unasked. What is examined here, and that it
is, concerns nobody else. Where the reporting package cannot be imported, OpenVINO takes a stub in its place.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

_REPORTING = "openvino_telemetry"


def load(submodule: str = "") -> Any:
    """The package `openvino`, or a module of it (`load("preprocess")`). All our imports of it go through here.

    Raises:
        ImportError: OpenVINO is not installed.
    """
    sys.modules.setdefault(_REPORTING, None)  # type: ignore[arg-type]  # None makes its import fail
    return importlib.import_module(f"openvino.{submodule}" if submodule else "openvino")
