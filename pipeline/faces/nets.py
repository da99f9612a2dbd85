"""The three networks of MTCNN (Zhang et al. 2016, arXiv:1604.02878) on OpenVINO.

The weights are facenet-pytorch's; their graph comes with the package. `pipeline.faces.torch_nets` runs them on torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from pipeline.graphs.format import Graph
from pipeline.types import Floats, Image

NETS = ("pnet", "rnet", "onet")
PNET_WINDOW_PX, PNET_STRIDE_PX = 12, 2
RNET_PX, ONET_PX = 24, 48
# Patches per call. More gain no speed on a CPU, and this bounds the memory that a hostile picture can take.
MAX_BATCH = 64


class MtcnnNets(Protocol):
    """P-Net, R-Net and O-Net. Probabilities are of a face; lengths are in parts of the window's or patch's side."""

    @property
    def backend(self) -> str:
        """Name of the runtime, for the provenance."""
        ...

    def pnet(self, image: Image) -> tuple[Floats, Floats]:
        """Slide over uint8 [H, W, 3], sides of 12 px at least: probabilities [h, w], offsets of corners [h, w, 4]."""
        ...

    def rnet(self, patches: Image) -> tuple[Floats, Floats]:
        """Judge uint8 [N, 24, 24, 3]: probabilities [N], offsets of corners [N, 4]."""
        ...

    def onet(self, patches: Image) -> tuple[Floats, Floats, Floats]:
        """Judge uint8 [N, 48, 48, 3]: probabilities [N], offsets of corners [N, 4], landmarks [N, 5, 2]."""
        ...


class OpenVinoNets:
    """The three networks from the graph of `pipeline.faces.mtcnn_graph`: normalisation and softmax are in it."""

    backend = "openvino"

    def __init__(self, graph: Graph, *, threads: int | None, streams: int) -> None:
        from pipeline.faces.openvino_net import OpenVinoNet

        self._pnet, self._rnet, self._onet = (
            OpenVinoNet(graph.networks[net], threads=threads, streams=streams) for net in NETS
        )

    def pnet(self, image: Image) -> tuple[Floats, Floats]:
        """See `MtcnnNets`."""
        probability, offsets = self._pnet(image[None])
        return probability[0, 1], offsets[0].transpose(1, 2, 0)

    def rnet(self, patches: Image) -> tuple[Floats, Floats]:
        """See `MtcnnNets`."""
        probability, offsets = in_batches(self._rnet, patches)
        return probability[:, 1], offsets

    def onet(self, patches: Image) -> tuple[Floats, Floats, Floats]:
        """See `MtcnnNets`."""
        probability, offsets, points = in_batches(self._onet, patches)
        return probability[:, 1], offsets, landmarks(points)


def in_batches(run: Callable[[Image], tuple[Floats, ...]], patches: Image) -> tuple[Floats, ...]:
    """Run at most `MAX_BATCH` patches per call and concatenate copies of the results."""
    parts = [
        [np.array(out) for out in run(patches[start : start + MAX_BATCH])]
        for start in range(0, len(patches), MAX_BATCH)
    ]
    return tuple(outs[0] if len(outs) == 1 else np.concatenate(outs) for outs in zip(*parts, strict=True))


def landmarks(flat: Floats) -> Floats:
    """Points [N, 10], five x then five y, as [N, 5, 2]."""
    return flat.reshape(-1, 2, 5).transpose(0, 2, 1)
