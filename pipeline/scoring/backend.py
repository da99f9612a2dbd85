"""What a backend is: it computes the scores of an engine, from uint8 crops to log-odds of fake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from models.errors import UnmaskError
from pipeline.types import Floats, Image

Done = Callable[[Floats | Exception], None]


class BackendError(UnmaskError, RuntimeError):
    """A backend is not available here, or does not support the device."""


class Backend(Protocol):
    """Computes batches for one engine.

    Attributes:
        input_size: side of the crops in px.
        max_batch: crops per call, at most.
        shapes: batch sizes that are prepared when they are first used; a warm-up scores one batch of each.
        concurrency: calls of `start` that may run at once, from any thread.
    """

    name: str
    input_size: int
    max_batch: int
    shapes: tuple[int, ...]
    concurrency: int

    def fit(self, waiting: int) -> int:
        """How many of 1..max_batch waiting crops go into the next batch."""

    def start(self, pixels: Image, done: Done) -> None:
        """Score uint8 [N, S, S, 3]; `done` gets float32 [N] or the exception, once, here or on another thread."""

    def close(self) -> None:
        """Free the backend's resources; no call is in flight."""
