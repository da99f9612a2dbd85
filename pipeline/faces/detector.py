"""The face detector's protocol, and the one door through which detectors are made."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol, get_args

from pipeline.types import Faces, Floats, Image

Backend = Literal["auto", "openvino", "torch"]
DETECTORS = ("mtcnn", "yunet")
# Faces under 32 px are not scored (pipeline.faces.flaws), and the networks find faces down to three quarters of the
# size that they are asked for; time goes by the square of it.
MIN_FACE_PX = 40.0


class DetectorError(RuntimeError):
    """A face detector cannot be made: a library, its weights or a device is missing; the message says which."""


class FaceDetector(Protocol):
    """Finds faces, and finds them again. Safe to share between threads.

    The thresholds are the detector's own affair: `detect` returns faces to rely on, for each may begin a person's
    track; `refine` asks less of a face that was there before.
    """

    @property
    def name(self) -> str:
        """Which detector, the settings that change its results, and the start of its weights' sha256."""
        ...

    def detect(self, images: Sequence[Image]) -> list[Faces]:
        """All faces of each image.

        Args:
            images: uint8 [H, W, 3], RGB; of any sizes, the same or not.

        Returns:
            for each image its faces, best first, in its pixels.
        """
        ...

    def refine(self, image: Image, boxes: Floats) -> Faces:
        """Look for faces again near where they were; far cheaper than `detect`.

        Args:
            image: uint8 [H, W, 3], RGB.
            boxes: float32 [N, 4], x0 y0 x1 y1 in pixels of `image`.

        Returns:
            N faces in the order of the boxes. One that is not there any more has score 0, and its box and landmarks
            mean nothing.
        """
        ...


def create_detector(
    name: str = "mtcnn",
    *,
    min_face_px: float = MIN_FACE_PX,
    weights: str | Path | None = None,
    backend: Backend = "auto",
    device: str = "cpu",
    threads: int | None = None,
    streams: int = 1,
) -> FaceDetector:
    """Make a face detector.

    Args:
        name: one of `DETECTORS`.
        min_face_px: smallest face that matters, in pixels of the frames. Frames are shrunk as far as it allows.
        weights: file of YuNet's network; None takes the zoo's. MTCNN has its own from facenet-pytorch.
        backend: what runs the networks. "auto": OpenVINO on the CPU if it is installed, else torch.
        device: of torch; OpenVINO runs on "cpu" only.
        threads: of OpenVINO's networks in all; None takes two, or one where there is only one core.
        streams: how many threads will call the detector at once.

    Raises:
        ValueError: unknown detector or backend, a setting out of range, or settings that exclude each other.
        DetectorError: a library, the weights or the device is missing.
        models.zoo.ZooError: YuNet's weights are not on this machine.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"unknown backend {backend!r}; there are: {', '.join(get_args(Backend))}")
    if min_face_px < 12:
        raise ValueError(f"min_face_px must be at least 12, the smallest face that detectors know, got {min_face_px}")
    if streams < 1 or (threads is not None and threads < 1):
        raise ValueError(f"threads and streams must be at least 1, got {threads} and {streams}")
    if backend == "auto":
        backend = "openvino" if device == "cpu" and _has("openvino") else "torch"
    if backend == "openvino" and device != "cpu":
        raise ValueError(
            f"OpenVINO runs the face detectors on the cpu, not on {device}; backend 'torch' takes other devices"
        )
    if backend == "openvino" and not _has("openvino"):
        raise DetectorError("OpenVINO is not installed: pip install openvino, or take backend 'torch'")
    if name == "mtcnn":
        if weights is not None:
            raise ValueError(f"mtcnn has its weights from facenet-pytorch and takes no others, got {weights}")
        return _create_mtcnn(min_face_px, backend, device, threads, streams)
    if name == "yunet":
        if backend != "openvino":
            raise ValueError(f"yunet runs on OpenVINO, which must be installed, not on {backend}; mtcnn runs on both")
        return _create_yunet(min_face_px, weights, threads, streams)
    raise ValueError(f"unknown face detector {name!r}; there are: {', '.join(DETECTORS)}")


# Imported below: torch and OpenVINO are heavy, and whoever needs the protocol does not need them.


def _create_mtcnn(min_face_px: float, backend: str, device: str, threads: int | None, streams: int) -> FaceDetector:
    from pipeline.faces.mtcnn import Mtcnn
    from pipeline.faces.nets import MtcnnNets, OpenVinoNets, TorchNets, load_weights

    weights, sha256 = load_weights()
    nets: MtcnnNets
    if backend == "openvino":
        nets = OpenVinoNets(weights, threads=threads, streams=streams)
    else:
        import torch

        if device.startswith("cuda") and not torch.cuda.is_available():
            raise DetectorError(f"device {device}: torch sees no CUDA device here; take device 'cpu'")
        nets = TorchNets(weights, device=torch.device(device))
    return Mtcnn(nets, min_face_px=min_face_px, weights_sha256=sha256)


def _create_yunet(min_face_px: float, weights: str | Path | None, threads: int | None, streams: int) -> FaceDetector:
    from models.zoo import resolve
    from pipeline.faces.yunet import YuNet

    path = Path(weights) if weights is not None else resolve("yunet")
    try:
        onnx = path.read_bytes()
    except OSError as error:
        raise DetectorError(f"YuNet's weights cannot be read; expected yunet_n_dynamic.onnx: {error}") from error
    return YuNet(onnx, min_face_px=min_face_px, threads=threads, streams=streams)


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
