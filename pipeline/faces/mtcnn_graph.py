"""Makes MTCNN's graph from facenet-pytorch's weights: `unmask models graph mtcnn`. This needs torch.

The graph comes with the package, so scanning does not need this module. Its weights stay float32: the thresholds were
chosen in float32, and the three networks have half a million weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline import quiet_openvino
from pipeline.faces.nets import NETS, ONET_PX, RNET_PX
from pipeline.faces.torch_nets import load_weights
from pipeline.graphs.format import Graph, GraphInfo
from pipeline.graphs.make import converter_versions
from pipeline.graphs.serialize import serialize
from pipeline.types import Floats


def make_mtcnn_graph() -> Graph:
    """The graph of P-, R- and O-Net.

    Raises:
        DetectorError: facenet-pytorch is not installed, or incomplete.
    """
    weights, sha256 = load_weights()
    networks = {
        net: serialize(_graph(net, {name: tensor.numpy() for name, tensor in weights[net].items()}), net)
        for net in NETS
    }
    return Graph(GraphInfo(sha256, None, (), "f32", converter_versions()), networks)


# Of each network: side of its input in px, kernel of the pooling after each convolution (0: none), layers put out.
_SHAPES: dict[str, tuple[int, tuple[int, ...], tuple[str, ...]]] = {
    "pnet": (-1, (2, 0, 0), ("conv4_1", "conv4_2")),
    "rnet": (RNET_PX, (3, 3, 0), ("dense5_1", "dense5_2")),
    "onet": (ONET_PX, (3, 3, 2, 0), ("dense6_1", "dense6_2", "dense6_3")),
}


def _graph(net: str, w: dict[str, Floats]) -> Any:
    """An `openvino.Model`: uint8 NHWC in; class probabilities, offsets (and landmarks) out."""
    ov, op = quiet_openvino.load(), quiet_openvino.load("opset13")

    side, pools, heads = _SHAPES[net]

    def convolution(x: Any, layer: str) -> Any:
        y = op.convolution(x, w[f"{layer}.weight"], [1, 1], [0, 0], [0, 0], [1, 1])
        return op.add(y, w[f"{layer}.bias"].reshape(1, -1, 1, 1))

    def dense(x: Any, layer: str) -> Any:
        return op.add(op.matmul(x, w[f"{layer}.weight"], False, True), w[f"{layer}.bias"])

    image = op.parameter([-1, side, side, 3], np.uint8, name="image")
    x = op.transpose(op.convert(image, np.float32), [0, 3, 1, 2])
    x = op.multiply(op.subtract(x, np.float32(127.5)), np.float32(1 / 128))
    for number, kernel in enumerate(pools, start=1):
        x = op.prelu(convolution(x, f"conv{number}"), w[f"prelu{number}.weight"])
        if kernel:
            x = op.max_pool(x, [2, 2], [1, 1], [0, 0], [0, 0], [kernel, kernel], "ceil").output(0)
    if net == "pnet":
        classes, *rest = (convolution(x, head) for head in heads)
    else:
        # Trained column by column: flattened as width, height, channel.
        x = op.reshape(op.transpose(x, [0, 3, 2, 1]), [0, -1], special_zero=True)
        last = len(pools) + 1
        x = op.prelu(dense(x, f"dense{last}"), w[f"prelu{last}.weight"])
        classes, *rest = (dense(x, head) for head in heads)
    return ov.Model([op.softmax(classes, 1), *rest], [image], net)
