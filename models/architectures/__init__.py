"""The detectors, built by name."""

from models.architectures import (  # noqa: F401  (they register themselves)
    clip_vit,
    cnn_transformer,
    cross_attention,
    swin_transformer,
    two_stream,
    xception,
)
from models.architectures.registry import LoadedDetector, get_model, list_architectures, load_detector, register

__all__ = [
    "LoadedDetector",
    "get_model",
    "list_architectures",
    "load_detector",
    "register",
]
