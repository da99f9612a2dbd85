"""Scores with torch on any device, eager or compiled."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from models.base import BaseModel
from models.precision import Precision
from pipeline.graphs.make import ScoringGraph
from pipeline.scoring.backend import BackendError, Done
from pipeline.types import Floats, Image


class TorchBackend:
    """Torch on any device, eager or compiled, under autocast where `models.precision` finds it faster.

    Compiled graphs need few shapes: batches are padded to the next of `BUCKETS`.

    Args:
        model: from now on it runs in the precision of the backend, whatever its own `mixed_precision` was.
        precision: of the device.
        compiled: by torch.compile.
    """

    BUCKETS = (1, 2, 4, 8, 16, 32)

    concurrency = 1

    def __init__(self, model: BaseModel, precision: Precision, *, compiled: bool = False) -> None:
        kind = "torch-compiled" if compiled else "torch"
        dtype = precision.autocast_dtype
        self.name = f"{kind}-{'fp32' if dtype is None else str(dtype).removeprefix('torch.')}"
        self.input_size = model.input_spec.size
        # Eager CPU inference gets slower, not faster, beyond 8 (docs/benchmarks.md).
        self.max_batch = 8 if precision.device.type == "cpu" else self.BUCKETS[-1]
        self.shapes = self.BUCKETS[: self.BUCKETS.index(self.max_batch) + 1] if compiled else (1, self.max_batch)
        self._precision = precision
        self._compiled = compiled
        # Otherwise it would run under autocast of its own where the device has a fast dtype, but fp32 is asked for.
        model.mixed_precision = False
        graph = ScoringGraph(model).eval().to(precision.device)
        graph = graph.to(memory_format=precision.memory_format)
        self._graph: Callable[[Tensor], Tensor] = graph
        if compiled:
            # CUDA graphs remove the launch cost of small batches; inductor's CPU code has none.
            mode = "reduce-overhead" if precision.device.type == "cuda" else None
            self._graph = torch.compile(graph, mode=mode, dynamic=False)

    def fit(self, waiting: int) -> int:
        """All of them: batches are padded where needed."""
        return waiting

    def start(self, pixels: Image, done: Done) -> None:
        """Score now, in the calling thread."""
        try:
            result: Floats | Exception = self._score(pixels)
        except Exception as error:  # noqa: BLE001 - any error of a batch is its result
            result = error
        done(result)

    def close(self) -> None:
        """Release the graph, so that a reference to the backend does not keep the weights."""
        self._graph = _closed

    def _score(self, pixels: Image) -> Floats:
        count = len(pixels)
        if self._compiled:
            bucket = next(size for size in self.BUCKETS if size >= count)
            pixels = np.concatenate([pixels, np.zeros((bucket - count, *pixels.shape[1:]), np.uint8)])
        batch = torch.from_numpy(pixels)
        device = self._precision.device
        if device.type == "cuda":
            batch = batch.pin_memory()
        with torch.inference_mode(), self._precision.autocast():
            logits = self._graph(batch.to(device, non_blocking=True))
            return logits[:count].float().cpu().numpy().astype(np.float32, copy=False)


def _closed(pixels: Tensor) -> Tensor:
    raise BackendError("the backend is closed")
