"""Detectors in formats that other programs run."""

from enum import StrEnum


class Format(StrEnum):
    """What `export` writes."""

    SAFETENSORS = "safetensors"
    """Unmask's own checkpoint, without a training state."""
    ONNX = "onnx"
    OPENVINO = "openvino"
