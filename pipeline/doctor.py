"""Checks what this machine has of Unmask's requirements, by trying it."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from models.atomic import check_writable
from models.local_files import cache_dir

if TYPE_CHECKING:
    from models.zoo import ZooEntry
    from pipeline.video.cage import Layers

# Decoders by the codec they serve: libav's own "av1" works on a GPU only, so only those that work anywhere count.
CODECS = {
    "h264": ("h264",),
    "hevc": ("hevc",),
    "vp8": ("vp8", "libvpx"),
    "vp9": ("vp9", "libvpx-vp9"),
    "av1": ("libdav1d", "libaom-av1"),
    "mpeg4": ("mpeg4",),
    "mpeg2": ("mpeg2video",),
    "prores": ("prores",),
    "mjpeg": ("mjpeg",),
}
# Most clips need one of these.
REQUIRED_CODECS = frozenset({"h264", "mpeg4"})
LIBRARIES = ("unmask", "openvino", "av", "numpy")
# Of training, of GPUs and of detectors without a graph.
TORCH = ("torch", "torchvision", "timm", "safetensors", "facenet-pytorch")
# Any of these distributions provides cv2.
OPENCV = ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python")

Status = Literal["ok", "optional", "missing"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        name: of the check.
        status: `ok`, `optional` (absent, and not needed for scanning) or `missing` (scanning needs it).
        value: what was found.
        advice: how to get what is missing.
    """

    name: str
    status: Status
    value: str
    advice: str = ""


def examine() -> list[Finding]:
    """Run all checks. A check that fails is a finding and does not stop the others."""
    findings: list[Finding] = []
    for name, look, advice in EXAMINATIONS:
        try:
            findings += look()
        except Exception as error:  # noqa: BLE001 - any error of a broken installation is a finding
            findings.append(Finding(name, "missing", f"{type(error).__name__}: {error}", advice))
    return findings


def can_scan(findings: list[Finding]) -> bool:
    """Whether nothing is missing that scanning needs."""
    return all(finding.status != "missing" for finding in findings)


def _versions() -> Iterator[Finding]:
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for distributions in (*((name,) for name in LIBRARIES), OPENCV):
        version = next(filter(None, map(_version, distributions)), None)
        if version is None:
            yield Finding(distributions[0], "missing", "not installed", f"pip install {distributions[0]}")
        else:
            yield Finding(distributions[0], "ok", version)
    for distribution in TORCH:
        version = _version(distribution)
        if version is None:
            advice = f"pip install {distribution}: for training, GPUs and weights without a graph"
            yield Finding(distribution, "optional", "not installed", advice)
        else:
            yield Finding(distribution, "ok", version)


def _machine() -> Iterator[Finding]:
    import psutil

    from models.cores import available_cores

    cores, host = available_cores(), os.cpu_count()
    share = "" if cores == host else f" of the {host} there are (affinity or CPU quota of the cgroup)"
    yield Finding("cores", "ok", f"{cores}{share}")
    memory = psutil.virtual_memory()
    yield Finding("memory", "ok", f"{memory.total / 2**30:.1f} GiB, {memory.available / 2**30:.1f} GiB of it free")


def _compute() -> Iterator[Finding]:
    from models.device_choice import choose_device
    from models.devices import openvino_precision
    from pipeline.scoring.backends import backend_names

    device = choose_device()
    available = backend_names(device)
    if not available:
        yield Finding("backend", "missing", f"no library that can score on {device}", "pip install openvino")
        return
    backend = available[0]
    yield Finding("device", "ok", device)
    why = {
        "openvino": "installed, and the fastest on a CPU",
        "torch-compiled": "CUDA graphs remove the launch cost of small batches",
        "torch": "the only one for this device" if device != "cpu" else "OpenVINO is not installed",
    }
    yield Finding("backend", "ok", f"{backend}: {why[backend]}")
    if backend == "openvino":
        fast = openvino_precision()
        has = "with" if fast == "bf16" else "without"
        yield Finding("precision", "ok", f"{fast}: CPU {has} AVX512-BF16 or AMX")
        return
    from models.precision import precision_for, probe

    capability = probe(device)
    dtype = precision_for(device, capability).autocast_dtype
    fast_dtype = "fp32" if dtype is None else str(dtype).removeprefix("torch.")
    yield Finding("precision", "ok", f"{fast_dtype}: {capability.reason}")


def _codecs() -> Iterator[Finding]:
    import av
    from av.codec.codec import Codec, UnknownCodecError

    def can_decode(name: str) -> bool:
        try:
            return Codec(name, "r").is_decoder
        except UnknownCodecError:
            return False

    version = ", ".join(
        f"{name} {'.'.join(map(str, av.library_versions[name]))}" for name in ("libavcodec", "libavformat")
    )
    yield Finding("libav", "ok", version)
    present = [name for name, decoders in CODECS.items() if any(map(can_decode, decoders))]
    absent = [name for name in CODECS if name not in present]
    yield Finding("codecs", "ok", ", ".join(present))
    if absent:
        status: Status = "missing" if REQUIRED_CODECS.intersection(absent) else "optional"
        advice = "pip install --force-reinstall --only-binary av av: its wheels carry them all"
        yield Finding("absent codecs", status, ", ".join(absent), advice)


def _decoding() -> Iterator[Finding]:
    from pipeline.video.sampling import Every
    from pipeline.video.sandbox import DecodeServer, Limits

    with tempfile.TemporaryDirectory() as folder, DecodeServer() as server:
        clip = Path(folder) / "grey.mp4"
        _write_clip(clip)
        with server.open(clip, "doctor", sampling=Every(1), limits=Limits(wall_s=60.0)) as reader:
            frames = sum(1 for _ in reader)
            decoder = reader.info.decoder
        isolation = server.isolation
    if frames == 0:
        yield Finding("decode child", "missing", "it started, but returned no frame", _DECODE_ADVICE)
    else:
        yield Finding("decode child", "ok", f"started, decoded {frames} frames with {decoder}")
    yield _cage(isolation.layers)
    if isolation.no_network:
        yield Finding("decode network", "ok", "none: children run in a network namespace of their own")
    else:
        advice = "allow user namespaces, or start as root: then children get a namespace without a network"
        yield Finding("decode network", "optional", "children are not cut off from the network", advice)


# What a decoder that was taken over by a file could do without a layer.
_WITHOUT = {
    "privileges": "use the worker's capabilities",
    "Landlock": "signal the worker's processes, if seccomp is missing too also read its files",
    "seccomp": "start processes that outlive the clip, open sockets and trace other decoders",
}


def _cage(layers: Layers) -> Finding:
    if not layers.missing:
        return Finding("decode cage", "ok", f"no privileges, Landlock {layers.landlock}, seccomp")
    could = "; ".join(_WITHOUT[name] for name in layers.missing)
    advice = (
        f"a file that takes its decoder over could {could}. Linux 5.13 has Landlock, and containers must allow "
        "landlock_create_ruleset, landlock_restrict_self and seccomp (Docker's default profile does); "
        "UNMASK_SANDBOX=required refuses to decode without"
    )
    return Finding("decode cage", "optional", f"without {', '.join(layers.missing)}", advice)


def _write_clip(path: Path) -> None:
    """Two grey frames of 64 x 64 px as MPEG-4, which every libav can write."""
    import av
    import numpy as np

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(2):
            picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 128, np.uint8), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def _faces() -> Iterator[Finding]:
    import numpy as np

    from pipeline.faces.create import create_detector

    detector = create_detector("mtcnn")
    detector.detect([np.zeros((64, 64, 3), np.uint8)])
    yield Finding("face detector", "ok", detector.name)


def _cache() -> Finding:
    """Weights can do without; graphs and compiled networks are then made again in each process."""
    folder = cache_dir()
    try:
        check_writable(folder / "graphs" / "doctor")
    except OSError as error:
        advice = "set UNMASK_CACHE to a folder that can be written: without it each start takes longer"
        return Finding("cache", "optional", f"{folder}: {error.strerror or error}", advice)
    return Finding("cache", "ok", str(folder))


def _weights() -> Iterator[Finding]:
    from models.zoo import ZooError, commands, default_detector, list_entries, locate
    from pipeline.settings import data_dir

    yield _cache()
    for entry in list_entries():
        try:
            path = locate(entry)
        except ZooError as error:
            status: Status = "missing" if entry.name == default_detector() else "optional"
            yield Finding(entry.name, status, "damaged", str(error))
            continue
        if entry.name == default_detector():
            yield _default_weights(entry)
        elif path is None:
            yield Finding(
                entry.name, "optional", "not here", f"{commands(entry)}: {entry.description}".replace("`", "")
            )
        else:
            yield _other_weights(entry, path)
    data = data_dir()
    if data is None or not data.is_dir():
        advice = "set UNMASK_DATA to the folder; only tests and measurements use it"
        yield Finding("research data", "optional", "not set" if data is None else f"no folder {data}", advice)
    else:
        yield Finding("research data", "ok", str(data))


def _default_weights(entry: ZooEntry) -> Finding:
    """Those that a scan takes if it names none; with their graph, or with torch to make one."""
    from models.errors import UnmaskError
    from pipeline.detectors import load

    try:
        detector = load(architecture=None, weights=entry.name, untrained=False)
        graph = detector.graph()
    except UnmaskError as error:
        return Finding(entry.name, "missing", "cannot score", str(error))
    files = [str(path) for path in detector.graph_files]
    return Finding(entry.name, "ok", f"graph of {graph.info.weights_sha256[:16]} in {', '.join(files) or 'memory'}")


def _other_weights(entry: ZooEntry, path: Path) -> Finding:
    """Those that are here; a detector without torch can score only with its graph."""
    from models.devices import torch_installed
    from models.errors import UnmaskError
    from pipeline.detectors import load

    if entry.kind == "detector" and not torch_installed():
        try:
            load(architecture=None, weights=entry.name, untrained=False)
        except UnmaskError as error:
            return Finding(entry.name, "optional", "cannot score", str(error))
    return Finding(entry.name, "ok", str(path))


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


_DECODE_ADVICE = "clips are decoded in child processes: allow this user to start processes and use shared memory"
EXAMINATIONS: tuple[tuple[str, Callable[[], Iterator[Finding]], str], ...] = (
    ("versions", _versions, "pip install unmask"),
    ("machine", _machine, "pip install psutil"),
    ("compute", _compute, "pip install openvino"),
    ("codecs", _codecs, "pip install av"),
    ("decode child", _decoding, _DECODE_ADVICE),
    ("face detector", _faces, "its graph comes with the package: reinstall it"),
    ("weights", _weights, "see `unmask models list`"),
)
