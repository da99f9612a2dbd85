"""Real backends on a small real network: all give the same scores."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import psutil
import pytest
import torch

from models.architectures import get_model
from models.base import BaseModel
from models.precision import Capability, precision_for, probe
from pipeline.graphs.format import Graph
from pipeline.graphs.make import convert, make_graph
from pipeline.scoring import backends
from pipeline.scoring.backend import Backend, BackendError
from pipeline.scoring.backends import backend_names, create_backend
from pipeline.scoring.engine import Engine
from pipeline.scoring.openvino_backend import OpenVinoBackend
from pipeline.scoring.torch_backend import TorchBackend
from pipeline.types import Floats, Image
from tests.media import face_picture
from tests.weights import small_model

SIZE = 96
PATIENCE_S = 200
# What the backends promise, against eager fp32: in fp32 log-odds to a thousandth; bf16 has 8 bits of mantissa, and
# the probability moves by a few hundredths where the network is least sure.
FP32_LOG_ODDS = 1e-3
# A graph has its weights in float16, with 11 bits of mantissa.
GRAPH_LOG_ODDS = 0.02
BF16_PROBABILITY = 0.05

FP32_ONLY = Capability("cpu", bf16=False, fp16=False, reason="forced")
BF16 = Capability("cpu", bf16=True, fp16=False, reason="forced")


@pytest.fixture(scope="module")
def crops() -> Image:
    """uint8 [12, SIZE, SIZE, 3]: a real face, near and far, in many lights."""
    rng = np.random.default_rng(0)
    picture = face_picture()
    cut = []
    for _ in range(12):
        x, y, side = rng.integers((100, 0, 100), (180, 80, 220))
        crop = cv2.resize(picture[y : y + side, x : x + side], (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        cut.append(np.clip(crop * rng.uniform(0.5, 1.4, 3), 0, 255).astype(np.uint8))
    return np.stack(cut)


@pytest.fixture(scope="module")
def model(crops: Image) -> BaseModel:
    """A network with varied scores: its log-odds on the crops have mean 0 and deviation 1."""
    model = small_model(SIZE).eval()
    said = by_hand(model, crops)
    with torch.no_grad():
        model.head.linear.weight /= float(said.std())
        model.head.linear.bias[1] -= float(by_hand(model, crops).mean())
    return model


def by_hand(model: BaseModel, crops: Image) -> Floats:
    """Log-odds as the input spec defines them, one crop at a time, in fp32."""
    spec = model.input_spec
    images = (crops / 255 - np.array(spec.mean)) / np.array(spec.std)
    mixed, model.mixed_precision = model.mixed_precision, False
    with torch.inference_mode():
        logits = torch.cat([model(torch.from_numpy(image).float().permute(2, 0, 1)[None]) for image in images])
    model.mixed_precision = mixed
    return (logits[:, 1] - logits[:, 0]).numpy()


def score(backend: Backend, pixels: Image) -> Floats:
    answered = threading.Event()
    results: list[Floats | Exception] = []

    def done(result: Floats | Exception) -> None:
        results.append(result)
        answered.set()

    backend.start(pixels, done)
    assert answered.wait(PATIENCE_S)
    (result,) = results
    if isinstance(result, Exception):
        raise result
    return result


def score_all(backend: Backend, crops: Image, batch: int) -> Floats:
    return np.concatenate([score(backend, crops[i : i + batch]) for i in range(0, len(crops), batch)])


def sigmoid(log_odds: Floats) -> Floats:
    return (1 / (1 + np.exp(-log_odds))).astype(np.float32)


@pytest.fixture(scope="module")
def graph(model: BaseModel) -> Graph:
    return make_graph(model, "0" * 64)


@pytest.fixture(scope="module")
def openvino_f32(graph: Graph) -> Iterator[Backend]:
    backend = OpenVinoBackend(graph, precision="f32")
    yield backend
    backend.close()


def test_torch_scores_by_the_input_spec(model: BaseModel, crops: Image) -> None:
    backend = TorchBackend(model, precision_for("cpu", FP32_ONLY))
    got = score(backend, crops[:8])
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, by_hand(model, crops[:8]), atol=FP32_LOG_ODDS)


def test_fp32_is_fp32_for_a_detector_that_was_trained_in_bf16(
    model: BaseModel, crops: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.base.precision_for", lambda device: precision_for(device, BF16))
    exact = by_hand(model, crops)
    model.mixed_precision = True
    backend = TorchBackend(model, precision_for("cpu", FP32_ONLY))
    np.testing.assert_allclose(score_all(backend, crops, 4), exact, atol=FP32_LOG_ODDS)


def test_the_crops_have_different_scores(model: BaseModel, crops: Image) -> None:
    assert by_hand(model, crops).std() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_a_graph_in_fp32_scores_as_torch(openvino_f32: Backend, model: BaseModel, crops: Image, batch: int) -> None:
    np.testing.assert_allclose(score_all(openvino_f32, crops, batch), by_hand(model, crops), atol=GRAPH_LOG_ODDS)


@pytest.mark.skipif(not probe("cpu").bf16, reason=f"needs native bf16: {probe('cpu').reason}")
@pytest.mark.parametrize("kind", ["openvino", "torch"])
def test_bf16_stays_close(kind: str, graph: Graph, model: BaseModel, crops: Image) -> None:
    backend: Backend
    if kind == "openvino":
        backend = OpenVinoBackend(graph, precision="bf16")
    else:
        backend = TorchBackend(model, precision_for("cpu", BF16))
    assert backend.name == {"openvino": "openvino-bf16", "torch": "torch-bfloat16"}[kind]
    got = score_all(backend, crops, 4)
    backend.close()
    assert not np.array_equal(got, by_hand(model, crops))
    np.testing.assert_allclose(sigmoid(got), sigmoid(by_hand(model, crops)), atol=BF16_PROBABILITY)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_compiled_torch_scores_as_torch(model: BaseModel, crops: Image) -> None:
    backend = TorchBackend(model, precision_for("cpu", FP32_ONLY), compiled=True)
    # Three are padded to the graph for four: one compilation for both.
    expected = by_hand(model, crops)
    np.testing.assert_allclose(score_all(backend, crops, 4), expected, atol=FP32_LOG_ODDS)
    np.testing.assert_allclose(score_all(backend, crops, 3), expected, atol=FP32_LOG_ODDS)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["torch", "torch-compiled"])
def test_cuda_scores_as_the_cpu(name: str, model: BaseModel, crops: Image) -> None:
    with Engine(create_backend(model, backend=name, device="cuda")) as engine:
        got = np.concatenate([engine.submit(crops[i : i + 3]).result(PATIENCE_S) for i in range(0, len(crops), 3)])
    np.testing.assert_allclose(sigmoid(got), sigmoid(by_hand(model.cpu(), crops)), atol=BF16_PROBABILITY)


@pytest.mark.parametrize("name", ["openvino", "torch"])
def test_other_crops_in_a_batch_change_nothing(
    name: str, openvino_f32: Backend, model: BaseModel, crops: Image
) -> None:
    backend = openvino_f32 if name == "openvino" else TorchBackend(model, precision_for("cpu", FP32_ONLY))
    keep_open = Unclosed(backend)

    def scored(groups: Sequence[int]) -> Floats:
        with Engine(keep_open) as engine:
            requests = [engine.submit(part) for part in np.split(crops, np.cumsum(groups)[:-1])]
            return np.concatenate([request.result(PATIENCE_S) for request in requests])

    alone = scored([1] * 12)
    for groups in ([12], [5, 1, 6], [3, 3, 3, 3]):
        np.testing.assert_allclose(scored(groups), alone, atol=FP32_LOG_ODDS)


class Unclosed:
    """A backend that several engines use one after the other."""

    def __init__(self, backend: Backend) -> None:
        self.name, self.start, self.fit = backend.name, backend.start, backend.fit
        self.input_size, self.max_batch, self.concurrency = backend.input_size, backend.max_batch, backend.concurrency

    def close(self) -> None:
        """The fixture closes it."""


@pytest.mark.parametrize("shape", [(3, SIZE, SIZE, 3), (1, SIZE // 2, SIZE, 3)])
def test_openvino_survives_an_inference_that_fails(openvino_f32: Backend, crops: Image, shape: tuple[int, ...]) -> None:
    with pytest.raises((RuntimeError, ValueError)):
        score(openvino_f32, np.zeros(shape, np.uint8))
    for _ in range(2 * openvino_f32.concurrency):
        assert score(openvino_f32, crops[:4]).shape == (4,)


def test_larger_batches_are_prepared_beside_the_first_crops(graph: Graph, crops: Image) -> None:
    backend = OpenVinoBackend(graph, precision="f32")
    assert [backend.fit(waiting) for waiting in (1, 2, 9)] == [1, 1, 1]
    with Engine(backend) as engine:
        deadline_s = time.monotonic() + PATIENCE_S
        while (backend.fit(9), backend.fit(2)) != (4, 2) and time.monotonic() < deadline_s:
            engine.submit(crops).result(PATIENCE_S)
        assert [backend.fit(waiting) for waiting in (1, 2, 3, 9)] == [1, 2, 2, 4]


def test_closing_does_not_wait_for_batches_that_nobody_needs(
    graph: Graph, crops: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = OpenVinoBackend(graph, precision="f32")
    prepared, started, go_on = [], threading.Event(), threading.Event()

    def slowly(batch: int) -> None:
        prepared.append(batch)
        started.set()
        assert go_on.wait(PATIENCE_S)

    monkeypatch.setattr(backend, "_prepare", slowly)
    engine = Engine(backend)
    for _ in range(6):
        engine.submit(crops).result(PATIENCE_S)
    assert started.wait(PATIENCE_S)
    closing = threading.Thread(target=engine.close)
    closing.start()
    while not backend._closed:
        time.sleep(0.01)
    go_on.set()
    closing.join(PATIENCE_S)
    assert prepared == [4]


def test_converting_leaves_the_model_as_it_was(model: BaseModel, crops: Image) -> None:
    before = by_hand(model, crops[:2])
    mixed = model.mixed_precision
    convert(model)
    assert model.mixed_precision is mixed
    np.testing.assert_array_equal(by_hand(model, crops[:2]), before)


def test_converted_models_free_their_memory() -> None:
    process = psutil.Process()
    sizes = []
    for _ in range(3):
        model = get_model("xception", pretrained=False, backbone="tf_efficientnet_lite0", input_size=32)
        bytes_each = sum(parameter.nbytes for parameter in model.parameters())
        convert(model)
        del model
        gc.collect()
        sizes.append(process.memory_info().rss)
    # The first one loads libraries.
    assert sizes[-1] - sizes[0] < bytes_each


@pytest.mark.parametrize(
    ("capability", "expected"),
    [(FP32_ONLY, ("openvino-f32", "torch-fp32")), (BF16, ("openvino-bf16", "torch-bfloat16"))],
)
def test_the_precision_follows_the_chip(
    capability: Capability, expected: tuple[str, str], model: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.precision.probe", lambda _device: capability)
    flags = frozenset({"avx512_bf16"} if capability.bf16 else ())
    monkeypatch.setattr("models.devices.cpu_flags", lambda: flags)
    made = [create_backend(model, backend=name, device="cpu", threads=1) for name in ("openvino", "torch")]
    assert tuple(backend.name for backend in made) == expected
    for backend in made:
        backend.close()


@pytest.mark.parametrize(("device", "first"), [("cpu", "openvino"), ("cuda", "torch-compiled"), ("mps", "torch")])
def test_auto_takes_the_fastest_backend_of_the_device(device: str, first: str) -> None:
    assert backend_names(device)[0] == first


def test_an_unknown_backend_lists_the_available_ones(model: BaseModel) -> None:
    with pytest.raises(BackendError, match=r"no backend 'tensorrt' for cpu.*auto, openvino, torch, torch-compiled"):
        create_backend(model, backend="tensorrt", device="cpu")


def test_without_openvino_torch_takes_over(model: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda _name: None)
    with pytest.raises(BackendError, match="pip install openvino"):
        create_backend(model, backend="openvino", device="cpu")
    assert create_backend(model, device="cpu").name.startswith("torch-")


def test_a_model_in_training_mode_is_put_into_evaluation(model: BaseModel, crops: Image) -> None:
    expected = by_hand(model, crops[:1])
    model.train()
    backend = create_backend(model, backend="torch", device="cpu")
    assert not model.training
    np.testing.assert_allclose(sigmoid(score(backend, crops[:1])), sigmoid(expected), atol=BF16_PROBABILITY)
