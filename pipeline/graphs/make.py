"""Makes graphs from detectors. This needs torch; what runs them (`pipeline.scoring.openvino_backend`) does not."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.base import BaseModel
from models.layers.normalize import Normalize
from pipeline import quiet_openvino
from pipeline.graphs.format import SHAPES, Graph, GraphInfo
from pipeline.graphs.serialize import serialize

DETECTOR = "detector"


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


def make_graph(model: BaseModel, weights_sha256: str) -> Graph:
    """The graph of a detector, with weights in float16.

    Args:
        model: in evaluation mode.
        weights_sha256: of its checkpoint.

    Raises:
        ImportError: OpenVINO is not installed.
    """
    info = GraphInfo(weights_sha256, model.input_spec, SHAPES, "f16", converter_versions())
    graph = convert(model)
    _halve(graph)
    return Graph(info, {DETECTOR: serialize(graph, DETECTOR)})


def convert(model: BaseModel) -> Any:
    """The scoring graph as an `openvino.Model` with a free batch dimension; weights stay as they are, in fp32.

    The model is traced in fp32 whatever its `mixed_precision`: the precision is chosen when it is compiled.

    `openvino.convert_model` would merge the batch norms into the weights, which float16 then no longer holds exactly;
    the compiler merges them in any case. So the front end is called here, and only constants are folded.
    """
    ov = quiet_openvino.load()
    frontends, passes = quiet_openvino.load("frontend"), quiet_openvino.load("passes")
    decoder = quiet_openvino.load("frontend.pytorch.ts_decoder").TorchScriptPythonDecoder
    size = model.input_spec.size
    graph = ScoringGraph(model).eval()
    example = torch.zeros(1, size, size, 3, dtype=torch.uint8)
    mixed, model.mixed_precision = model.mixed_precision, False
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            # The tracer warns of shape checks that become constants: the graph has one input size.
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(graph, example, check_trace=False)  # type: ignore[no-untyped-call]
            # A name of its own: the front end does not keep it alive.
            source = decoder(traced, example_input=example)
            frontend = frontends.FrontEndManager().load_by_framework("pytorch")
            converted = frontend.convert(frontend.load(source))
    finally:
        model.mixed_precision = mixed
        _forget_traced()
    converted.reshape(ov.PartialShape([-1, size, size, 3]))
    folding = passes.Manager()
    folding.register_pass(passes.ConstantFolding())
    folding.run_passes(converted)
    return converted


def _halve(graph: Any) -> None:
    """Store weights in fp16, except vectors and what fp16 cannot hold, as `models.checkpoint.halved` does."""
    ov, op = quiet_openvino.load(), quiet_openvino.load("opset13")
    for node in graph.get_ordered_ops():
        if node.get_type_name() != "Constant" or node.get_element_type() != ov.Type.f32 or len(node.shape) < 2:
            continue
        with np.errstate(over="ignore"):
            half = node.data.astype(np.float16)
        if np.isfinite(half).all():
            whole = op.convert(op.constant(half), np.float32)
            for target in node.output(0).get_target_inputs():
                target.replace_source_output(whole.output(0))


def converter_versions() -> dict[str, str]:
    """Versions of what converts, without build numbers."""
    return {
        "openvino": quiet_openvino.load().__version__.partition("-")[0],
        "torch": torch.__version__.partition("+")[0],
    }


def _forget_traced() -> None:
    """Clear torch's caches of traced modules: they would keep the weights of each one until the process ends.

    torch's own tests call this between two tests; scripted functions stay usable. Both functions are private: a torch
    version without them only uses more memory.
    """
    for owner, name in ((torch.jit._state, "_clear_class_state"), (torch._C, "_jit_clear_class_registry")):
        getattr(owner, name, lambda: None)()
