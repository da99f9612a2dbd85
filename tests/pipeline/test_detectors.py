"""Detectors: their graph instead of torch, where there is one."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.architectures import load_detector
from models.checkpoint_header import CheckpointError
from models.precision import Capability, precision_for
from models.zoo import packaged_dir
from pipeline import detectors
from pipeline.detectors import Detector, load
from pipeline.faces.torch_nets import load_weights
from pipeline.graphs.format import GraphError, graphs_dir, read_graph
from pipeline.graphs.make import make_graph
from pipeline.scoring.backend import Backend
from pipeline.scoring.openvino_backend import OpenVinoBackend
from pipeline.scoring.torch_backend import TorchBackend
from pipeline.types import Floats, Image
from tests.media import face_picture
from tests.weights import SMALL_BACKBONE, small_weights

# The shipped weights are float16, which the graph keeps exactly.
GRAPH_LOG_ODDS = 1e-3


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "small.safetensors"
    small_weights(path)
    return path


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detectors, "torch_installed", lambda: False)


def faces(size: int) -> Image:
    """uint8 [8, size, size, 3]: a face in different places and lights."""
    rng, picture = np.random.default_rng(0), face_picture()
    cut = []
    for _ in range(8):
        x, y, side = rng.integers((100, 0, 100), (180, 80, 220))
        crop = cv2.resize(picture[y : y + side, x : x + side], (size, size), interpolation=cv2.INTER_AREA)
        cut.append(np.clip(crop * rng.uniform(0.5, 1.4, 3), 0, 255).astype(np.uint8))
    return np.stack(cut)


def score(backend: Backend, crops: Image) -> Floats:
    answers: list[Future[Floats | Exception]] = []
    for start in range(0, len(crops), 4):
        answers.append(Future())
        backend.start(crops[start : start + 4], answers[-1].set_result)
    found = [answer.result(120) for answer in answers]
    backend.close()
    assert all(isinstance(each, np.ndarray) for each in found)
    return np.concatenate(found)  # type: ignore[arg-type]


def made(weights: Path) -> Path:
    """Make the graph of weights in the cache."""
    load(architecture=None, weights=weights, untrained=False).graph()
    (path,) = graphs_dir().iterdir()
    return path


def test_the_packaged_graph_scores_as_the_packaged_weights_in_torch() -> None:
    detector = load(architecture=None, weights=None, untrained=False)
    assert detector.graph_files[0] == packaged_dir() / "unmask-small.graph"
    loaded = load_detector("unmask-small")
    # Otherwise: unmask models graph unmask-small --out models/weights/unmask-small.graph
    assert detector.graph().info.fits(loaded.sha256, loaded.model.input_spec)
    crops = faces(detector.input_spec.size)
    torch_fp32 = TorchBackend(loaded.model, precision_for("cpu", Capability("cpu", False, False, "exact")))
    exact = score(torch_fp32, crops)
    assert exact.std() > 0.2
    np.testing.assert_allclose(
        score(OpenVinoBackend(detector.graph(), precision="f32"), crops), exact, atol=GRAPH_LOG_ODDS
    )


def test_the_packaged_graph_of_mtcnn_is_of_its_weights() -> None:
    # Otherwise: unmask models graph mtcnn --out models/weights/mtcnn.graph
    graph = read_graph(packaged_dir() / "mtcnn.graph")
    assert graph.info.weights_sha256 == load_weights()[1]
    assert (list(graph.networks), graph.info.precision) == (["pnet", "rnet", "onet"], "f32")


def test_a_graph_is_made_once(weights: Path, no_torch: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GraphError, match=r"needs torch, which is not installed.*unmask models graph --out"):
        load(architecture=None, weights=weights, untrained=False)
    monkeypatch.setattr(detectors, "torch_installed", lambda: True)
    path = made(weights)
    monkeypatch.setattr(detectors, "torch_installed", lambda: False)
    detector = load(architecture=None, weights=weights, untrained=False)
    assert detector.graph_files[0] == path
    assert (detector.name, detector.architecture) == ("small", "xception")
    assert detector.network == f"xception over {SMALL_BACKBONE}"
    assert detector.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert len(score(OpenVinoBackend(detector.graph()), faces(64))) == 8
    with pytest.raises(GraphError, match="torch"):
        detector.model()


def test_a_graph_next_to_the_weights_is_used(weights: Path) -> None:
    path = made(weights)
    beside = path.rename(weights.with_suffix(".graph"))
    assert load(architecture=None, weights=weights, untrained=False).graph_files[0] == beside


def test_a_graph_of_other_weights_is_not_used(weights: Path, tmp_path: Path, no_torch: None) -> None:
    weights.with_suffix(".graph").write_bytes((packaged_dir() / "unmask-small.graph").read_bytes())
    with pytest.raises(GraphError, match=r"small\.graph: the graph of other weights.*making another one needs torch"):
        load(architecture=None, weights=weights, untrained=False)


def test_a_damaged_graph_next_to_the_weights_is_named(weights: Path, no_torch: None) -> None:
    weights.with_suffix(".graph").write_bytes(b"PK")
    with pytest.raises(GraphError, match=r"small\.graph: not a graph, or damaged"):
        load(architecture=None, weights=weights, untrained=False)


def test_a_named_pipe_in_the_place_of_a_graph_is_not_opened(weights: Path, no_torch: None) -> None:
    os.mkfifo(weights.with_suffix(".graph"))
    with pytest.raises(GraphError, match=r"small\.graph: not a file; making another one needs torch"):
        load(architecture=None, weights=weights, untrained=False)


def test_a_graph_in_the_place_of_weights_is_called_one() -> None:
    with pytest.raises(CheckpointError, match=r"unmask-small\.graph: a graph, which is used where it is next to"):
        load(architecture=None, weights=packaged_dir() / "unmask-small.graph", untrained=False)


def test_a_copy_of_the_shipped_weights_has_the_shipped_graph(tmp_path: Path, no_torch: None) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes((packaged_dir() / "unmask-small.safetensors").read_bytes())
    detector = load(architecture=None, weights=copy, untrained=False)
    assert detector.graph_files == (packaged_dir() / "unmask-small.graph",)


def test_a_damaged_graph_gives_way_to_a_second_one_in_the_cache(
    weights: Path, no_torch: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detectors, "torch_installed", lambda: True)
    path = made(weights)
    data = bytearray(path.read_bytes())
    data[-len(data) // 3] ^= 1
    path.with_name(f"{path.name.partition('-')[0]}-0.graph").write_bytes(data)
    monkeypatch.setattr(detectors, "torch_installed", lambda: False)
    assert (
        len(score(OpenVinoBackend(load(architecture=None, weights=weights, untrained=False).graph()), faces(64))) == 8
    )


def test_a_damaged_graph_is_made_again(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made(weights)
    data = bytearray(path.read_bytes())
    data[-len(data) // 3] ^= 1
    path.write_bytes(data)
    monkeypatch.setattr(detectors, "torch_installed", lambda: False)
    with pytest.raises(GraphError, match="damaged"):
        load(architecture=None, weights=weights, untrained=False).graph()
    monkeypatch.setattr(detectors, "torch_installed", lambda: True)
    load(architecture=None, weights=weights, untrained=False).graph()
    read_graph(path)


def test_a_damaged_graph_next_to_the_weights_gives_way_to_one_in_the_cache(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytearray(made(weights).read_bytes())
    data[-len(data) // 3] ^= 1
    weights.with_suffix(".graph").write_bytes(data)
    monkeypatch.setattr(detectors, "torch_installed", lambda: False)
    detector = load(architecture=None, weights=weights, untrained=False)
    assert detector.graph_files[0] == weights.with_suffix(".graph")
    assert len(score(OpenVinoBackend(detector.graph()), faces(64))) == 8


def test_without_a_writable_cache_a_graph_is_still_made(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_CACHE", "/dev/null/cache")
    detector = load(architecture=None, weights=weights, untrained=False)
    assert len(score(OpenVinoBackend(detector.graph()), faces(64))) == 8


def test_weights_that_change_while_they_are_used_are_refused(weights: Path) -> None:
    made(weights)
    detector = load(architecture=None, weights=weights, untrained=False)
    small_weights(weights, size_px=96)
    with pytest.raises(CheckpointError, match="has changed"):
        detector.model()


def test_damaged_weights_are_refused_with_and_without_a_graph(weights: Path) -> None:
    made(weights)
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="truncated"):
        load(architecture=None, weights=weights, untrained=False)


def test_a_graph_says_what_it_is_for() -> None:
    mtcnn = read_graph(packaged_dir() / "mtcnn.graph")
    with pytest.raises(GraphError, match="not the graph of a detector"):
        OpenVinoBackend(mtcnn)


def test_equal_detectors_give_equal_graphs(weights: Path) -> None:
    loaded = load_detector(weights)
    first, second = (make_graph(loaded.model, loaded.sha256) for _ in range(2))
    assert first == second
    kept = Detector.of(loaded.model, loaded.info, loaded.sha256)
    kept.graph()
    assert not graphs_dir().exists()  # only graphs of files are kept


def test_scanning_with_a_graph_imports_no_torch(one_face: Path) -> None:
    code = (
        "import sys\n"
        "from pipeline.cli import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    heavy = {'torch', 'torchvision', 'timm', 'facenet_pytorch', 'safetensors'} & sys.modules.keys()\n"
        "    print('imported:', *sorted(heavy), file=sys.stderr)\n"
    )
    scanned = subprocess.run(
        [sys.executable, "-c", code, "scan", str(one_face), "--jsonl", "-", "--backend", "openvino"],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert scanned.returncode == 0, scanned.stderr
    assert scanned.stderr.splitlines()[-1] == "imported:"
    assert json.loads(scanned.stdout.splitlines()[0])["outcome"] == "scored"
