"""Files of `unmask models export` and `import`: they score like the detector and have metadata, or are not kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from typer.testing import CliRunner

from models.architectures import LoadedDetector, get_model, load_detector
from models.base import BaseModel
from models.checkpoint import Calibration, Thresholds, read_checkpoint
from models.spec import InputSpec
from pipeline import quiet_openvino
from pipeline.commands.models import app
from pipeline.interop import Format
from pipeline.interop.check import NoPicturesError, checked, face_crops, random_crops
from pipeline.interop.export import CheckFailedError, ExportError, export
from pipeline.types import Floats, Image
from tests.models.conftest import SMALL, one_thread  # noqa: F401  (a fixture of every test here)

CALIBRATION = Calibration(1.5, -0.25)
THRESHOLDS = Thresholds(0.01, (0.75,) * 8, (0.25,) * 8)
SIZE = 96
# A convolution and the norm behind it.
LARGE, NORM = "backbone.net.conv_stem.weight", "backbone.net.bn1"


def write_detector(architecture: str, path: Path) -> Path:
    torch.manual_seed(0)
    model = get_model(architecture, pretrained=False, mixed_precision=True, **SMALL[architecture])
    with torch.no_grad():
        # Log-odds of a trained network's size: those of a random one would hide a difference.
        model.head.linear.weight.mul_(20)
    model.save_checkpoint(path, epoch=3, name=f"small {architecture}", calibration=CALIBRATION, thresholds=THRESHOLDS)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_detector("xception", tmp_path_factory.mktemp("detector") / "small.safetensors")


@pytest.fixture(scope="module")
def detector(checkpoint: Path) -> LoadedDetector:
    return load_detector(checkpoint)


@pytest.fixture(scope="module")
def crops() -> Image:
    return np.concatenate([random_crops(SIZE), face_crops(SIZE)])


def log_odds(model: BaseModel, crops: Image) -> Floats:
    """By the detector itself, whose images are normalised by hand."""
    spec: InputSpec = model.input_spec
    images = ((crops / 255.0 - np.array(spec.mean)) / np.array(spec.std)).astype(np.float32).transpose(0, 3, 1, 2)
    mixed, model.mixed_precision = model.mixed_precision, False
    with torch.inference_mode():
        logits = model(torch.from_numpy(images))
    model.mixed_precision = mixed
    return (logits[:, 1] - logits[:, 0]).numpy()


def with_a_weight_beyond_fp16(checkpoint: Path) -> LoadedDetector:
    """The same detector with a factor in a weight that the statistics of the norm behind it take out again."""
    detector = load_detector(checkpoint)
    norm = detector.model.get_submodule(NORM)
    with torch.no_grad():
        detector.model.get_parameter(LARGE).mul_(1e7)
        norm.get_buffer("running_mean").mul_(1e7)
        norm.get_buffer("running_var").mul_(1e14)
    return detector


def run_onnx(path: Path, crops: Image) -> Floats:
    return ReferenceEvaluator(str(path)).run(None, {"crops": crops})[0]


def run_openvino(path: Path, crops: Image) -> Floats:
    compiled = quiet_openvino.core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array(compiled({"crops": crops})["logit"])


def check_metadata(values: dict[str, Any]) -> None:
    """Check the metadata that other programs read from a graph."""
    spec = InputSpec.from_dict(json.loads(values["input_spec"]))
    assert (spec.size, spec.hash) == (SIZE, values["input_spec_hash"])
    assert json.loads(values["calibration"]) == {"scale": 1.5, "bias": -0.25}
    assert json.loads(values["thresholds"])["fake"] == [0.75] * 8
    assert values["name"] == "small xception"


@pytest.mark.slow
def test_onnx_scores_like_the_detector(detector: LoadedDetector, crops: Image, tmp_path: Path) -> None:
    exported = export(detector, Format.ONNX, tmp_path / "small.onnx", crops)
    assert exported.files == (tmp_path / "small.onnx",)
    assert exported.check.passed
    assert exported.check.crops == len(crops)
    exact = log_odds(detector.model, crops)
    assert np.ptp(exact) > 0.05
    for count in (1, 2, len(crops)):
        found = run_onnx(tmp_path / "small.onnx", crops[:count])
        np.testing.assert_allclose(found, exact[:count], atol=1e-4, rtol=1e-4)
    graph = onnx.load(tmp_path / "small.onnx")
    check_metadata(
        {p.key.removeprefix("unmask."): p.value for p in graph.metadata_props if p.key.startswith("unmask.")}
    )
    assert {p.key: p.value for p in graph.metadata_props}["unmask.weights_sha256"] == detector.sha256
    assert graph.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8


@pytest.mark.slow
def test_fp16_onnx_with_a_fixed_batch_size(checkpoint: Path, crops: Image, tmp_path: Path) -> None:
    detector = with_a_weight_beyond_fp16(checkpoint)
    export(detector, Format.ONNX, tmp_path / "small.onnx", crops, fp16=True, batch=4)
    weights = sum(tensor.numel() for tensor in detector.model.parameters())
    # The graph's own structure is a quarter of so small a file.
    assert (tmp_path / "small.onnx").stat().st_size < 4 * weights
    found = run_onnx(tmp_path / "small.onnx", crops[:4])
    np.testing.assert_allclose(found, log_odds(detector.model, crops[:4]), atol=0.04, rtol=0.04)
    shape = onnx.load(tmp_path / "small.onnx").graph.input[0].type.tensor_type.shape
    assert [side.dim_value for side in shape.dim] == [4, SIZE, SIZE, 3]


@pytest.mark.slow
def test_onnx_of_a_fourier_transform(tmp_path: Path, crops: Image) -> None:
    detector = load_detector(write_detector("two_stream", tmp_path / "two_stream.safetensors"))
    assert export(detector, Format.ONNX, tmp_path / "two_stream.onnx", crops[:3]).check.passed
    found = run_onnx(tmp_path / "two_stream.onnx", crops[3:])
    np.testing.assert_allclose(found, log_odds(detector.model, crops[3:]), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("fp16", "batch", "bound"), [(False, None, 1e-4), (True, 3, 0.04)])
def test_openvino_scores_like_the_detector(
    detector: LoadedDetector, crops: Image, fp16: bool, batch: int | None, bound: float, tmp_path: Path
) -> None:
    exported = export(detector, Format.OPENVINO, tmp_path / "small.xml", crops, fp16=fp16, batch=batch)
    assert exported.files == (tmp_path / "small.xml", tmp_path / "small.bin")
    assert sorted(tmp_path.iterdir()) == sorted(exported.files)
    found = run_openvino(tmp_path / "small.xml", crops[:3])
    np.testing.assert_allclose(found, log_odds(detector.model, crops[:3]), atol=bound, rtol=bound)
    graph = quiet_openvino.core().read_model(tmp_path / "small.xml")
    assert str(graph.input(0).partial_shape) == f"[{batch or '?'},{SIZE},{SIZE},3]"
    keys = ("name", "input_spec", "input_spec_hash", "calibration", "thresholds")
    check_metadata({key: graph.get_rt_info(["unmask", key]).value for key in keys})
    assert graph.get_rt_info(["unmask", "weights_sha256"]).value == detector.sha256


def test_safetensors_is_a_checkpoint_without_a_training_state(
    detector: LoadedDetector, crops: Image, tmp_path: Path
) -> None:
    export(detector, Format.SAFETENSORS, tmp_path / "full.safetensors", crops)
    full = load_detector(tmp_path / "full.safetensors")
    assert full.info == detector.info
    own = detector.model.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in full.model.state_dict().items())

    export(detector, Format.SAFETENSORS, tmp_path / "half.safetensors", crops, fp16=True)
    half = load_detector(tmp_path / "half.safetensors")
    assert half.info == detector.info
    assert {tensor.dtype for tensor in half.model.parameters()} == {torch.float32}
    stored = read_checkpoint(tmp_path / "half.safetensors").weights
    assert {tensor.dtype for tensor in stored.values() if tensor.ndim > 1} == {torch.float16}
    np.testing.assert_allclose(log_odds(half.model, crops), log_odds(detector.model, crops), atol=0.04, rtol=0.04)
    assert {path.name for path in tmp_path.iterdir()} == {"full.safetensors", "half.safetensors"}


def test_weights_beyond_the_range_of_fp16_stay_as_they_are(checkpoint: Path, crops: Image, tmp_path: Path) -> None:
    detector = with_a_weight_beyond_fp16(checkpoint)
    assert export(detector, Format.SAFETENSORS, tmp_path / "big.safetensors", crops, fp16=True).check.passed
    assert read_checkpoint(tmp_path / "big.safetensors").weights[LARGE].dtype == torch.float32
    before, after = load_detector(checkpoint).model, load_detector(tmp_path / "big.safetensors").model
    np.testing.assert_allclose(log_odds(after, crops), log_odds(before, crops), atol=0.04, rtol=0.04)


def test_a_file_that_scores_differently_fails_the_check_and_is_not_kept(
    checkpoint: Path, crops: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(load_detector(checkpoint), Format.OPENVINO, tmp_path / "small.xml", crops)
    other = load_detector(checkpoint).model
    other.mixed_precision = False
    with torch.no_grad():
        other.head.linear.bias += torch.tensor([0.0, 0.01])
    check = checked(other, Format.OPENVINO, tmp_path / "small.xml", crops, batch=None, tolerance=1e-3)
    assert not check.passed
    assert check.difference == pytest.approx(0.01, abs=1e-3)

    broken = load_detector(checkpoint)
    with torch.no_grad():
        broken.model.head.linear.bias += float("nan")
    before = (tmp_path / "small.xml").read_bytes()
    with pytest.raises(CheckFailedError, match="nan"):
        export(broken, Format.OPENVINO, tmp_path / "small.xml", crops)
    assert (tmp_path / "small.xml").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"small.xml", "small.bin"}


@pytest.mark.parametrize(
    ("target", "file", "batch", "message"),
    [
        (Format.OPENVINO, "small.onnx", None, ".xml"),
        (Format.SAFETENSORS, "small.pth", 2, "not a graph"),
        (Format.ONNX, "small.onnx", 0, "at least 1"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    detector: LoadedDetector, crops: Image, target: Format, file: str, batch: int | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=message):
        export(detector, target, tmp_path / file, crops, batch=batch)
    assert list(tmp_path.iterdir()) == []


def test_faces_to_check_on_come_from_pictures(tmp_path: Path) -> None:
    astronaut = face_crops(64)
    assert astronaut.shape == (2, 64, 64, 3)
    for number, face in enumerate(astronaut):
        cv2.imwrite(
            str(tmp_path / f"{number}.png"), cv2.copyMakeBorder(face, 0, 0, 20, 20, cv2.BORDER_CONSTANT)[..., ::-1]
        )
    (tmp_path / "notes.txt").write_text("no picture")
    np.testing.assert_array_equal(face_crops(64, tmp_path), astronaut)
    np.testing.assert_array_equal(face_crops(64, tmp_path / "1.png"), astronaut[1:])
    (tmp_path / "2.png").write_bytes(b"broken")
    with pytest.raises(NoPicturesError, match=r"2\.png"):
        face_crops(64, tmp_path)
    with pytest.raises(NoPicturesError, match=r"no \.jpg"):
        face_crops(64, tmp_path / "notes.txt")


def call(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def test_the_export_command_prints_what_it_measured(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "new folder" / "small.xml"
    code, output, _ = call("export", str(checkpoint), "--to", "openvino", "--out", str(out), "--json", "-")
    assert code == 0
    described = json.loads(output)
    assert described["files"] == [str(out), str(out.with_suffix(".bin"))]
    assert described["check"]["random_crops"] == 4
    assert described["check"]["face_crops"] == 2
    assert described["check"]["largest_difference"] < described["check"]["tolerance"] == 1e-3
    code, output, _ = call("export", str(checkpoint), "--to", "safetensors", "--fp16", "--out", str(tmp_path / "h.pth"))
    assert code == 0
    assert "differ from torch's by at most" in output
    assert "tolerance 0.04" in output


def test_the_export_command_refuses_with_code_2(checkpoint: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ([str(checkpoint), "--to", "onnx", "--out", "x.onnx", "--batch", "many"], "--batch"),
        ([str(checkpoint), "--to", "openvino", "--out", "x.onnx"], ".xml"),
        ([str(tmp_path / "absent"), "--to", "onnx", "--out", "x.onnx"], "no such file"),
        ([str(checkpoint), "--to", "onnx", "--out", "x.onnx", "--images", str(tmp_path)], "to check on"),
    ):
        code, _, errors = call("export", *arguments)
        assert (code, message in errors) == (2, True), errors


def test_the_import_command_refuses_another_layout(tmp_path: Path) -> None:
    torch.save({"backbone.conv1.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / "theirs.pth")
    out = tmp_path / "ours.safetensors"
    call_with = ("import", str(tmp_path / "theirs.pth"), "--out", str(out), "--layout")
    code, _, errors = call(*call_with, "deepfakebench-xception")
    assert (code, "backbone.bn1.weight is missing" in errors) == (2, True)
    code, _, errors = call(*call_with, "keras")
    assert (code, "deepfakebench-xception" in errors) == (2, True)
    assert not out.exists()
