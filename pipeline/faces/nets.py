"""The three networks of MTCNN (Zhang et al. 2016, arXiv:1604.02878) on OpenVINO or torch.

The weights are in facenet-pytorch's wheel. Both backends take uint8 RGB and compute in fp32, also inside autocast.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pipeline import quiet_openvino
from pipeline.faces.detector import DetectorError
from pipeline.types import Floats, Image

if TYPE_CHECKING:
    import torch

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


def load_weights() -> tuple[dict[str, dict[str, torch.Tensor]], str]:
    """State dicts of "pnet", "rnet" and "onet", and the sha256 over their three files in this order.

    The files are read without importing facenet-pytorch, which would import torchvision, PIL and requests.

    Raises:
        DetectorError: facenet-pytorch is not installed, or incomplete.
    """
    import torch

    package = importlib.util.find_spec("facenet_pytorch")
    if package is None or not package.submodule_search_locations:
        raise DetectorError(
            "MTCNN's weights are part of facenet-pytorch, which is missing: pip install facenet-pytorch==2.5.3"
        )
    folder = Path(package.submodule_search_locations[0]) / "data"
    weights = {}
    digest = hashlib.sha256()
    for net in ("pnet", "rnet", "onet"):
        path = folder / f"{net}.pt"
        try:
            digest.update(path.read_bytes())
        except OSError as error:
            raise DetectorError(f"facenet-pytorch is incomplete, reinstall version 2.5.3: {error}") from error
        weights[net] = torch.load(path, map_location="cpu", weights_only=True)
    return weights, digest.hexdigest()


class OpenVinoNets:
    """The three networks built from OpenVINO operations, with normalisation and softmax in the graph."""

    backend = "openvino"

    def __init__(self, weights: dict[str, dict[str, torch.Tensor]], *, threads: int | None, streams: int) -> None:
        from pipeline.faces.openvino_net import OpenVinoNet

        self._pnet, self._rnet, self._onet = (
            OpenVinoNet(_graph(net, {k: v.numpy() for k, v in weights[net].items()}), threads=threads, streams=streams)
            for net in ("pnet", "rnet", "onet")
        )

    def pnet(self, image: Image) -> tuple[Floats, Floats]:
        """See `MtcnnNets`."""
        probability, offsets = self._pnet(image[None])
        return probability[0, 1], offsets[0].transpose(1, 2, 0)

    def rnet(self, patches: Image) -> tuple[Floats, Floats]:
        """See `MtcnnNets`."""
        probability, offsets = _in_batches(self._rnet, patches)
        return probability[:, 1], offsets

    def onet(self, patches: Image) -> tuple[Floats, Floats, Floats]:
        """See `MtcnnNets`."""
        probability, offsets, points = _in_batches(self._onet, patches)
        return probability[:, 1], offsets, _landmarks(points)


class TorchNets:
    """facenet-pytorch's own modules, channels last, on any torch device."""

    backend = "torch"

    def __init__(self, weights: dict[str, dict[str, torch.Tensor]], *, device: torch.device) -> None:
        import torch
        from facenet_pytorch.models.mtcnn import ONet, PNet, RNet

        self._torch = torch
        self._device = device
        self._nets = {"pnet": PNet(pretrained=False), "rnet": RNet(pretrained=False), "onet": ONet(pretrained=False)}
        for name, net in self._nets.items():
            net.load_state_dict(weights[name])
            net.eval().to(device, memory_format=torch.channels_last)

    def pnet(self, image: Image) -> tuple[Floats, Floats]:
        """See `MtcnnNets`."""
        offsets, probability = self._run("pnet", image[None])
        return probability[0, 1], offsets[0].transpose(1, 2, 0)

    def rnet(self, patches: Image) -> tuple[Floats, Floats]:
        """See `MtcnnNets`."""
        offsets, probability = _in_batches(lambda batch: self._run("rnet", batch), patches)
        return probability[:, 1], offsets

    def onet(self, patches: Image) -> tuple[Floats, Floats, Floats]:
        """See `MtcnnNets`."""
        offsets, points, probability = _in_batches(lambda batch: self._run("onet", batch), patches)
        return probability[:, 1], offsets, _landmarks(points)

    def _run(self, net: str, batch: Image) -> tuple[Floats, ...]:
        torch = self._torch
        with torch.inference_mode(), torch.autocast(self._device.type, enabled=False):
            # NHWC viewed as NCHW is torch's channels last.
            x = torch.from_numpy(np.ascontiguousarray(batch)).to(self._device).permute(0, 3, 1, 2)
            outs = self._nets[net]((x.float() - 127.5) / 128)
            return tuple(out.cpu().numpy() for out in outs)


def _in_batches(run: Callable[[Image], tuple[Floats, ...]], patches: Image) -> tuple[Floats, ...]:
    """Run at most `MAX_BATCH` patches per call and concatenate copies of the results."""
    parts = [
        [np.array(out) for out in run(patches[start : start + MAX_BATCH])]
        for start in range(0, len(patches), MAX_BATCH)
    ]
    return tuple(outs[0] if len(outs) == 1 else np.concatenate(outs) for outs in zip(*parts, strict=True))


def _landmarks(flat: Floats) -> Floats:
    """[N, 10], five x then five y, as [N, 5, 2]."""
    return flat.reshape(-1, 2, 5).transpose(0, 2, 1)


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
