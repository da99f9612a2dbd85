"""Creates face detectors. torch and OpenVINO are imported only when needed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import get_args

from models.devices import torch_installed
from models.zoo import packaged_dir, resolve
from pipeline.faces.detector import DETECTORS, MIN_FACE_PX, Backend, DetectorError, FaceDetector
from pipeline.graphs.format import SUFFIX, GraphError, read_graph


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
    """Create a face detector.

    Args:
        name: one of `DETECTORS`.
        min_face_px: smallest face to find, in pixels of the frames. Frames are shrunk as far as it allows.
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
        raise ValueError(f"min_face_px must be at least 12, the smallest face that detectors find, got {min_face_px}")
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


def _create_mtcnn(min_face_px: float, backend: str, device: str, threads: int | None, streams: int) -> FaceDetector:
    from pipeline.faces.mtcnn import Mtcnn
    from pipeline.faces.nets import NETS, MtcnnNets, OpenVinoNets

    nets: MtcnnNets
    if backend == "openvino":
        try:
            graph = read_graph(packaged_dir() / f"mtcnn{SUFFIX}")
        except GraphError as error:
            raise DetectorError(f"MTCNN's graph comes with the package; reinstall it: {error}") from error
        if missing := sorted(set(NETS) - set(graph.networks)):
            raise DetectorError(f"MTCNN's graph is another one, without {', '.join(missing)}; reinstall unmask")
        nets, sha256 = OpenVinoNets(graph, threads=threads, streams=streams), graph.info.weights_sha256
    else:
        if not torch_installed():
            raise DetectorError(
                "the face detector's backend 'torch' needs torch and facenet-pytorch, or take 'openvino'"
            )
        import torch

        from pipeline.faces.torch_nets import TorchNets, load_weights

        if device.startswith("cuda") and not torch.cuda.is_available():
            raise DetectorError(f"device {device}: torch sees no CUDA device here; take device 'cpu'")
        weights, sha256 = load_weights()
        nets = TorchNets(weights, device=torch.device(device))
    return Mtcnn(nets, min_face_px=min_face_px, weights_sha256=sha256)


def _create_yunet(min_face_px: float, weights: str | Path | None, threads: int | None, streams: int) -> FaceDetector:
    from pipeline.faces.yunet import YuNet

    path = Path(weights) if weights is not None else resolve("yunet")
    try:
        onnx = path.read_bytes()
    except OSError as error:
        raise DetectorError(f"YuNet's weights cannot be read; expected yunet_n_dynamic.onnx: {error}") from error
    return YuNet(onnx, min_face_px=min_face_px, threads=threads, streams=streams)


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
