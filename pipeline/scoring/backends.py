"""Backends that compute the scores: torch (eager or compiled) or OpenVINO, from uint8 crops to log-odds of fake."""

from __future__ import annotations

import queue
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from models.base import BaseModel
from models.cores import available_cores
from models.errors import UnmaskError
from models.layers.normalize import Normalize
from models.precision import Precision, best_device, openvino_precision, precision_for
from pipeline import quiet_openvino
from pipeline.types import Floats, Image

BackendName = Literal["auto", "torch", "torch-compiled", "openvino"]
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


class ScoringGraph(nn.Module):
    """From uint8 [B, S, S, 3], RGB, to float32 [B], log-odds of fake: normalisation is part of the graph."""

    def __init__(self, model: BaseModel) -> None:
        super().__init__()
        self.model = model
        self.normalize = Normalize(model.input_spec)

    def forward(self, pixels: Tensor) -> Tensor:
        """Score a batch."""
        logits = self.model(self.normalize(pixels.permute(0, 3, 1, 2))).float()
        return torch.sub(logits[:, 1], logits[:, 0])


class TorchBackend:
    """Torch on any device, eager or compiled, under autocast where `models.precision` finds it faster.

    Compiled graphs need few shapes: batches are padded to the next of `BUCKETS`.
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


class OpenVinoBackend:
    """OpenVINO on the CPU: one request in flight per stream, each batch of one of a few static shapes.

    Thread pinning is off: two pinned processes land on the same core and starve each other.
    """

    # Static shapes; a batch is split, never padded. Beyond 4 little is gained on a CPU (docs/benchmarks.md).
    BUCKETS = (4, 2, 1)

    def __init__(self, model: BaseModel, *, threads: int | None = None, precision: str | None = None) -> None:
        threads = threads or available_cores()
        self.precision = precision or openvino_precision()
        self.name = f"openvino-{self.precision}"
        self.input_size = model.input_spec.size
        self.max_batch = self.BUCKETS[0]
        self.shapes: tuple[int, ...] = self.BUCKETS
        # One stream per core keeps every core busy without a barrier inside a layer; 8 bounds the memory.
        self.concurrency = min(threads, 8)
        graph = convert(model)
        config = {
            "NUM_STREAMS": self.concurrency,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": self.precision,
        }
        # All requests are created and used once now: created later, each would grow the memory of a long run.
        self._requests: dict[int, queue.SimpleQueue[Any]] = {}
        for bucket in self.BUCKETS:
            shape = [bucket, self.input_size, self.input_size, 3]
            graph.reshape(shape)
            compiled = quiet_openvino.core().compile_model(graph, "CPU", config)
            self._requests[bucket] = queue.SimpleQueue()
            for _ in range(self.concurrency):
                request = compiled.create_infer_request()
                request.infer({0: np.zeros(shape, np.uint8)})
                self._requests[bucket].put(request)
        # Not ov.AsyncInferQueue: it never calls back for a failed inference, and refuses all work afterwards.
        self._threads = ThreadPoolExecutor(self.concurrency, thread_name_prefix="openvino")

    def fit(self, waiting: int) -> int:
        """The largest static shape that the waiting crops fill."""
        return next(bucket for bucket in self.BUCKETS if bucket <= waiting)

    def start(self, pixels: Image, done: Done) -> None:
        """Score on a thread of the backend's own."""
        self._threads.submit(self._score, self._requests[len(pixels)], pixels, done)

    def close(self) -> None:
        """Wait for the last requests, and free all of them with their compiled networks."""
        self._threads.shutdown()
        self._requests.clear()

    def _score(self, requests: queue.SimpleQueue[Any], pixels: Image, done: Done) -> None:
        request = requests.get()
        try:
            # The outputs are copies; only the input is shared.
            result: Floats | Exception = request.infer({0: pixels}, share_inputs=True)[0]
        except Exception as error:  # noqa: BLE001 - any error of a batch is its result
            result = error
        requests.put(request)
        done(result)


def _closed(pixels: Tensor) -> Tensor:
    raise BackendError("the backend is closed")


def convert(model: BaseModel) -> Any:
    """The scoring graph as an `openvino.Model` with a free batch dimension; weights stay fp32.

    The model is traced in fp32 whatever its `mixed_precision`: the precision is chosen when it is compiled.
    """
    ov = quiet_openvino.load()
    size = model.input_spec.size
    graph = ScoringGraph(model).eval()
    example = torch.zeros(1, size, size, 3, dtype=torch.uint8)
    mixed, model.mixed_precision = model.mixed_precision, False
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            # The tracer warns of shape checks that become constants: the graph has one input size.
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(graph, example, check_trace=False)  # type: ignore[no-untyped-call]
            return ov.convert_model(traced, example_input=example, input=[-1, size, size, 3])
    finally:
        model.mixed_precision = mixed
        _forget_traced()


def _forget_traced() -> None:
    """Clear torch's caches of traced modules: they would keep the weights of each one until the process ends.

    torch's own tests call this between two tests; scripted functions stay usable. Both functions are private: a torch
    version without them only uses more memory.
    """
    for owner, name in ((torch.jit._state, "_clear_class_state"), (torch._C, "_jit_clear_class_registry")):
        getattr(owner, name, lambda: None)()


def backend_names(device: torch.device) -> Sequence[str]:
    """The backends available for a device, the one that `auto` takes first."""
    if device.type == "cuda":
        return ("torch-compiled", "torch")
    if device.type == "cpu" and find_spec("openvino") is not None:
        return ("openvino", "torch", "torch-compiled")
    return ("torch", "torch-compiled")


def create_backend(
    model: BaseModel, *, backend: str = "auto", device: str = "auto", threads: int | None = None
) -> Backend:
    """The backend for a model on a device.

    Args:
        model: the detector; it is put into evaluation mode.
        backend: "auto" takes compiled torch on CUDA, OpenVINO on a CPU where it is installed, else eager torch.
        device: "auto", "cpu", "cuda", "cuda:1", "mps" ...
        threads: of OpenVINO; by default the cores that this process may really use. Torch's are set by torch.

    Raises:
        BackendError: unknown, not installed, or not for this device.
    """
    target = best_device(device)
    available = backend_names(target)
    chosen = available[0] if backend == "auto" else backend
    if chosen not in available:
        hint = "; it comes with `pip install openvino`" if chosen == "openvino" and target.type == "cpu" else ""
        raise BackendError(f"no backend {chosen!r} for {target.type}; there are: auto, {', '.join(available)}{hint}")
    model.eval()
    if chosen == "openvino":
        return OpenVinoBackend(model, threads=threads)
    return TorchBackend(model, precision_for(target), compiled=chosen == "torch-compiled")
