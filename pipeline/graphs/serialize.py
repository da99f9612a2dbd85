"""From an OpenVINO model in memory to the bytes of its intermediate representation."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from pipeline import quiet_openvino
from pipeline.graphs.format import Network


def serialize(graph: Any, name: str) -> Network:
    """An `openvino.Model` as bytes: equal networks give equal bytes, so names, which count up, are replaced.

    Args:
        graph: the model, which is changed.
        name: of the network.
    """
    graph.set_friendly_name(name)
    for number, operation in enumerate(graph.get_ordered_ops()):
        operation.set_friendly_name(f"{operation.get_type_name()}_{number}")
    for number, output in enumerate(graph.outputs):
        output.get_tensor().set_names({f"output_{number}"})
    with tempfile.TemporaryDirectory() as folder:
        xml = Path(folder) / "graph.xml"
        quiet_openvino.load().save_model(graph, xml, compress_to_fp16=False)
        return Network(xml.read_bytes(), xml.with_suffix(".bin").read_bytes())
