"""Scores with OpenVINO on a CPU, from a graph alone: without torch."""

from __future__ import annotations

import logging
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from models.cores import available_cores
from models.devices import openvino_precision
from pipeline.graphs.compiled import compile_network
from pipeline.graphs.format import Graph, GraphError
from pipeline.scoring.backend import Done
from pipeline.types import Floats, Image

log = logging.getLogger(__name__)

# Larger batches gain less on so few crops than compiling for them takes.
_FEW_CROPS = 64


class OpenVinoBackend:
    """OpenVINO on the CPU: one request in flight per stream, each batch of one of a few static shapes.

    The smallest shape is prepared at once, the others after some dozens of crops, or when a batch of theirs comes: one
    short clip does without. Thread pinning is off: two pinned processes land on the same core and starve each other.

    Args:
        graph: of a detector.
        threads: in all; by default the cores that this process may really use.
        precision: `bf16` or `f32`; by default what this CPU computes fast.

    Raises:
        GraphError: not the graph of a detector, or this version of OpenVINO cannot run it.
    """

    def __init__(self, graph: Graph, *, threads: int | None = None, precision: str | None = None) -> None:
        if graph.info.input_spec is None or len(graph.networks) != 1 or not graph.info.shapes:
            raise GraphError(f"not the graph of a detector: it holds {', '.join(graph.networks)}")
        threads = threads or available_cores()
        self.precision = precision or openvino_precision()
        self.name = f"openvino-{self.precision}"
        self.input_size = graph.info.input_spec.size
        self.shapes = tuple(sorted(graph.info.shapes, reverse=True))
        self.max_batch = self.shapes[0]
        # One stream per core keeps every core busy without a barrier inside a layer; 8 bounds the memory.
        self.concurrency = min(threads, 8)
        config = {
            "NUM_STREAMS": self.concurrency,
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": self.precision,
        }
        (self._network,) = graph.networks.values()
        self._config = config
        self._ready: dict[int, queue.SimpleQueue[Any]] = {}
        self._preparing = threading.Lock()
        self._started = 0
        self._more: threading.Thread | None = None
        self._closed = False
        self._prepare(self.shapes[-1])
        # Not ov.AsyncInferQueue: it never calls back for a failed inference, and refuses all work afterwards.
        self._threads = ThreadPoolExecutor(self.concurrency, thread_name_prefix="openvino")

    def fit(self, waiting: int) -> int:
        """The largest prepared shape that the waiting crops fill."""
        return max(batch for batch in tuple(self._ready) if batch <= waiting)

    def start(self, pixels: Image, done: Done) -> None:
        """Score on a thread of the backend's own."""
        self._started += len(pixels)
        if self._more is None and self._started > _FEW_CROPS and len(self._ready) < len(self.shapes):
            self._more = threading.Thread(target=self._prepare_all, name="openvino-compile", daemon=True)
            self._more.start()
        self._threads.submit(self._score, pixels, done)

    def close(self) -> None:
        """Wait for the last requests, and free all of them with their compiled networks."""
        self._closed = True
        if self._more is not None:
            self._more.join()
        self._threads.shutdown()
        self._ready.clear()

    def _prepare_all(self) -> None:
        for batch in self.shapes:
            if self._closed:
                return
            try:
                self._prepare(batch)
            except (GraphError, RuntimeError) as error:
                log.warning("batches of %d crops cannot be prepared, smaller ones are used: %s", batch, error)

    def _prepare(self, batch: int) -> queue.SimpleQueue[Any]:
        """The requests of a shape, each used once: created later, they would grow the memory of a long run."""
        with self._preparing:
            if batch not in self._ready:
                shape = (batch, self.input_size, self.input_size, 3)
                compiled = compile_network(self._network, shape, self._config)
                requests = queue.SimpleQueue[Any]()
                for _ in range(self.concurrency):
                    request = compiled.create_infer_request()
                    request.infer({0: np.zeros(shape, np.uint8)})
                    requests.put(request)
                self._ready[batch] = requests
            return self._ready[batch]

    def _score(self, pixels: Image, done: Done) -> None:
        try:
            requests = self._ready.get(len(pixels)) or self._prepare(self._shape(len(pixels)))
            request = requests.get()
            try:
                # The outputs are copies; only the input is shared.
                result: Floats | Exception = request.infer({0: pixels}, share_inputs=True)[0]
            finally:
                requests.put(request)
        except Exception as error:  # noqa: BLE001 - any error of a batch is its result
            result = error
        done(result)

    def _shape(self, crops: int) -> int:
        if crops not in self.shapes:
            raise ValueError(f"a batch of {crops} crops; there are shapes for {', '.join(map(str, self.shapes))}")
        return crops
