"""An OpenVINO network that many threads may call at once."""

from __future__ import annotations

import threading

import numpy as np

from models.cores import available_cores
from pipeline import quiet_openvino
from pipeline.graphs.compiled import compile_network
from pipeline.graphs.format import Network
from pipeline.types import Floats, Image


class OpenVinoNet:
    """A network compiled once for the CPU, with an infer request for each calling thread.

    Args:
        network: with one input of any batch size.
        threads: threads of the network in all; None takes two, or one where there is only one core.
        streams: how many threads will call it at once.
    """

    def __init__(self, network: Network, *, threads: int | None, streams: int) -> None:
        ov = quiet_openvino.load()
        config = {
            # The detectors' thresholds were chosen in fp32.
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": max(threads or min(2, available_cores()), streams),
            "NUM_STREAMS": streams,
        }
        self._tensor = ov.Tensor
        self._compiled = compile_network(network, None, config)
        self._outputs = range(len(self._compiled.outputs))
        self._local = threading.local()

    def __call__(self, batch: Image) -> tuple[Floats, ...]:
        """Run the network on N images; its outputs are views, valid until this thread's next call.

        OpenVINO prepares kernels for each new shape, so the batch is padded with zeros to a power of two.
        """
        n = len(batch)
        missing = (1 << (n - 1).bit_length()) - n
        if missing:
            batch = np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), batch.dtype)])
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._compiled.create_infer_request()
        request.set_input_tensor(self._tensor(batch, shared_memory=True))
        request.infer()
        return tuple(request.get_output_tensor(i).data[:n] for i in self._outputs)
