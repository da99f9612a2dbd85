"""From names to a detector: which weights score, and their provenance in verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from models.architectures import get_model
from models.base import BaseModel
from models.checkpoint import Calibration, CheckpointError, read_checkpoint
from models.config import ConfigError
from models.zoo import ZooError, default_detector
from pipeline import assembly
from pipeline.assembly import scanner
from pipeline.contracts import Outcome
from pipeline.detectors import load
from pipeline.faces.create import create_detector
from pipeline.faces.detector import FaceDetector
from pipeline.scanner_options import ScannerOptions
from pipeline.scoring.backends import create_backend
from pipeline.scoring.engine import Engine, ScoringError
from pipeline.sources import Source
from pipeline.video.sampling import Even
from tests.weights import SMALL_BACKBONE


@pytest.fixture(scope="module")
def model() -> BaseModel:
    torch.manual_seed(1)
    return get_model("xception", pretrained=False, backbone=SMALL_BACKBONE, input_size=96)


@pytest.fixture(scope="module")
def weights(model: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    model.save_checkpoint(path, epoch=1, name="small", calibration=Calibration(scale=2.0, bias=0.5))
    return path


def test_untrained_weights_are_the_same_each_time() -> None:
    torch.manual_seed(5)
    first = load(architecture="xception", weights=None, untrained=True)
    after = torch.rand(3)
    torch.manual_seed(6)
    second = load(architecture=None, weights=None, untrained=True)
    assert first.sha256 == second.sha256
    assert (first.name, first.info) == ("xception", None)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(3)), "building the model must leave the random numbers of others alone"


def test_weights_set_the_architecture_and_name(weights: Path) -> None:
    detector = load(architecture=None, weights=weights, untrained=False)
    assert (detector.name, detector.architecture) == ("small", "xception")
    assert detector.input_spec.size == 96
    assert detector.sha256 == read_checkpoint(weights).sha256
    assert not detector.model().training


def test_weights_cannot_be_untrained(weights: Path) -> None:
    with pytest.raises(ValueError, match="either weights or untrained"):
        load(architecture=None, weights=weights, untrained=True)


def test_the_shipped_weights_are_the_default() -> None:
    detector = load(architecture=None, weights=None, untrained=False)
    assert detector.name == default_detector()
    assert detector.info is not None
    assert detector.info.thresholds is not None


def test_weights_of_another_architecture_are_refused(weights: Path) -> None:
    with pytest.raises(ValueError, match="holds xception weights, not swin_transformer"):
        load(architecture="swin_transformer", weights=weights, untrained=False)


def test_an_unknown_architecture_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="xception"):
        load(architecture="resnet", weights=None, untrained=True)


def test_missing_weights_are_an_error(tmp_path: Path) -> None:
    with pytest.raises((ZooError, CheckpointError), match="nowhere"):
        load(architecture=None, weights=tmp_path / "nowhere.safetensors", untrained=False)


def test_verdicts_have_their_provenance(weights: Path, one_face: Path) -> None:
    detector = load(architecture=None, weights=weights, untrained=False)
    with scanner(detector, ScannerOptions(Even(5), backend="torch", device="cpu", workers=1)) as scan:
        report = scan.scan(Source(str(one_face)))
    assert report is not None
    verdict = report.verdict
    assert verdict.outcome is Outcome.SCORED
    provenance = verdict.provenance
    assert provenance.model == "small"
    assert provenance.weights_sha256 == [detector.sha256]
    assert provenance.input_spec == detector.input_spec.hash
    assert provenance.detector.startswith("mtcnn")
    assert provenance.sampling == "frames=5"
    assert "torch-" in provenance.software
    assert not provenance.untrained
    assert scan.calibration == Calibration(scale=2.0, bias=0.5)


@pytest.mark.parametrize(
    ("options", "device"),
    [
        (ScannerOptions(), "cuda:0"),
        (ScannerOptions(face_detector="yunet"), "cpu"),
        (ScannerOptions(backend="openvino"), "cpu"),
    ],
)
def test_faces_are_found_on_the_gpu_that_scores(
    options: ScannerOptions, device: str, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine with CUDA; the detector itself is made for the CPU here."""
    asked: list[str] = []

    def create(name: str, *, device: str, **others: Any) -> FaceDetector:
        asked.append(device)
        return create_detector("mtcnn")

    monkeypatch.setattr(assembly, "choose_device", lambda requested: "cuda:0")
    monkeypatch.setattr(assembly, "create_detector", create)
    detector = load(architecture=None, weights=weights, untrained=False)
    engine = Engine(create_backend(detector, backend="torch", device="cpu"))
    with scanner(detector, options, scoring=engine):
        assert asked == [device]


def test_weights_that_cannot_score_end_the_warm_up(model: BaseModel, tmp_path: Path) -> None:
    path = tmp_path / "nan.safetensors"
    state = model.state_dict()
    broken = get_model("xception", pretrained=False, backbone=SMALL_BACKBONE, input_size=96)
    broken.load_state_dict(
        {name: value * float("nan") if value.is_floating_point() else value for name, value in state.items()}
    )
    broken.save_checkpoint(path, epoch=1, name="nan")
    detector = load(architecture=None, weights=path, untrained=False)
    options = ScannerOptions(backend="torch", device="cpu")
    with pytest.raises(ScoringError, match="warm-up"), scanner(detector, options, warm_up=True):
        pass
