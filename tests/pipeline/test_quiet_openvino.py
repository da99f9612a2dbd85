"""What all networks that OpenVINO runs have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline import quiet_openvino

# With one thread the caller computes, and with this hint OpenVINO would pin it.
CONFIG = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}


def compiled() -> Any:
    ov, op = quiet_openvino.load(), quiet_openvino.load("opset13")
    pixels = op.parameter([1, 3, 32, 32], np.float32)
    kernel = op.constant(np.ones((4, 3, 3, 3), np.float32))
    model = ov.Model([op.convolution(pixels, kernel, [1, 1], [0, 0], [0, 0], [1, 1])], [pixels])
    return quiet_openvino.core().compile_model(model, "CPU", CONFIG)


def imported() -> Any:
    return quiet_openvino.core().import_model(compiled().export_model().getvalue(), "CPU", CONFIG)


@pytest.mark.parametrize("network", [compiled, imported])
def test_no_network_binds_its_caller_to_one_core(network: Callable[[], Any]) -> None:
    assert network().get_property("ENABLE_CPU_PINNING") is False
