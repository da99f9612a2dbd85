"""The three networks of MTCNN on torch, on any device: facenet-pytorch's own modules, from its weights."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import torch

from pipeline.faces.detector import DetectorError
from pipeline.faces.nets import NETS, in_batches, landmarks
from pipeline.types import Floats, Image


def load_weights() -> tuple[dict[str, dict[str, torch.Tensor]], str]:
    """State dicts of "pnet", "rnet" and "onet", and the sha256 over their three files in this order.

    The files are read without importing facenet-pytorch, which would import torchvision, PIL and requests.

    Raises:
        DetectorError: facenet-pytorch is not installed, or incomplete.
    """
    package = importlib.util.find_spec("facenet_pytorch")
    if package is None or not package.submodule_search_locations:
        raise DetectorError(
            "MTCNN's weights are part of facenet-pytorch, which is missing: pip install facenet-pytorch==2.5.3"
        )
    folder = Path(package.submodule_search_locations[0]) / "data"
    weights = {}
    digest = hashlib.sha256()
    for net in NETS:
        path = folder / f"{net}.pt"
        try:
            digest.update(path.read_bytes())
        except OSError as error:
            raise DetectorError(f"facenet-pytorch is incomplete, reinstall version 2.5.3: {error}") from error
        weights[net] = torch.load(path, map_location="cpu", weights_only=True)
    return weights, digest.hexdigest()


class TorchNets:
    """facenet-pytorch's own modules, channels last. They take uint8 RGB and compute in fp32, also inside autocast."""

    backend = "torch"

    def __init__(self, weights: dict[str, dict[str, torch.Tensor]], *, device: torch.device) -> None:
        from facenet_pytorch.models.mtcnn import ONet, PNet, RNet

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
        offsets, probability = in_batches(lambda batch: self._run("rnet", batch), patches)
        return probability[:, 1], offsets

    def onet(self, patches: Image) -> tuple[Floats, Floats, Floats]:
        """See `MtcnnNets`."""
        offsets, points, probability = in_batches(lambda batch: self._run("onet", batch), patches)
        return probability[:, 1], offsets, landmarks(points)

    def _run(self, net: str, batch: Image) -> tuple[Floats, ...]:
        with torch.inference_mode(), torch.autocast(self._device.type, enabled=False):
            # NHWC viewed as NCHW is torch's channels last.
            x = torch.from_numpy(np.ascontiguousarray(batch)).to(self._device).permute(0, 3, 1, 2)
            outs = self._nets[net]((x.float() - 127.5) / 128)
            return tuple(out.cpu().numpy() for out in outs)
