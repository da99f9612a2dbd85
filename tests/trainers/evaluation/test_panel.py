"""`unmask evaluate` with an ensemble and additional views, checked against the results of each member."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.architectures import LoadedDetector, get_model, load_detector
from models.checkpoint import Calibration, Thresholds, read_checkpoint
from pipeline.faces.views import Looks
from tests.trainers.evaluation.conftest import Evaluate
from tests.weights import SMALL_BACKBONE
from trainers.data.images import ImageStore
from trainers.data.manifest import Manifest
from trainers.evaluation.panel import Panel, load_panel
from trainers.evaluation.scoring import score_images


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With other size, normalisation and calibration than `weights`."""
    torch.manual_seed(3)
    model = get_model("two_stream", pretrained=False, backbone=SMALL_BACKBONE, input_size=96)
    path = tmp_path_factory.mktemp("other") / "other.safetensors"
    thresholds = Thresholds(0.02, (0.8,) * 8, (0.3,) * 8)
    model.save_checkpoint(path, epoch=0, name="other", calibration=Calibration(0.5, 0.25), thresholds=thresholds)
    return path


def run(evaluate: Evaluate, manifest: Path, out: Path, *options: object) -> tuple[dict[str, Any], dict[str, float]]:
    """The report and the probabilities by path."""
    outputs = ("--json", out / "o.json", "--predictions", out / "o.csv")
    quick = ("--backend", "torch", "--resamples", 0, "--ladder", "none")
    result = evaluate("--manifest", manifest, *quick, *outputs, *options)
    assert result.exit_code == 0, result.output
    with (out / "o.csv").open(newline="") as file:
        chances = {row["path"]: float(row["probability"]) for row in csv.DictReader(file)}
    return json.loads((out / "o.json").read_text()), chances


def log_odds(chances: dict[str, float]) -> np.ndarray:
    found = np.array(list(chances.values()))
    return np.asarray(np.log(found / (1 - found)))


def test_an_ensemble_is_evaluated_as_the_mean_of_its_members(
    evaluate: Evaluate, manifest: Path, weights: Path, other: Path, tmp_path: Path
) -> None:
    report, together = run(evaluate, manifest, tmp_path, "--weights", f"{weights},{other}")
    alone = [run(evaluate, manifest, tmp_path, "--weights", each)[1] for each in (weights, other)]
    expected = (log_odds(alone[0]) + log_odds(alone[1])) / 2
    np.testing.assert_allclose(log_odds(together), expected, atol=1e-3)
    model = report["model"]
    assert model["name"] == "small+other"
    assert model["architecture"] == "xception+two_stream"
    assert [each["weights_sha256"] for each in model["members"]] == [
        read_checkpoint(each).sha256 for each in (weights, other)
    ]
    assert model["looks"] == ""
    assert model["thresholds"]["fpr"] == 0.05


@pytest.mark.parametrize("text", ["flip", "scales", "flip,scales"])
def test_looks_are_averaged(detector: LoadedDetector, manifest: Path, text: str) -> None:
    rows = Manifest.read(manifest)
    looks, spec = Looks.parse(text), detector.info.input_spec
    panel = Panel.of([detector], looks)
    with panel.backend(backend="torch") as backend:
        found = score_images(backend, spec, rows).logits
    store = ImageStore(rows.root)
    pictures = [store.load(str(path)) for path in rows.path]
    with Panel.of([detector]).backend(backend="torch") as plain:
        by_hand = [
            score_images(plain, spec, rows, transform=lambda _, row, view=view: view.of_picture(pictures[row])).logits  # type: ignore[misc]
            for view in looks.views(spec)
        ]
    np.testing.assert_allclose(found, np.mean(by_hand, axis=0), atol=1e-4)


def test_the_command_accepts_looks_and_reports_them(
    evaluate: Evaluate, manifest: Path, weights: Path, tmp_path: Path
) -> None:
    plain = run(evaluate, manifest, tmp_path, "--weights", weights)[1]
    report, looked = run(evaluate, manifest, tmp_path, "--weights", weights, "--looks", "flip")
    assert report["model"]["looks"] == "flip"
    assert looked != plain
    assert evaluate("--manifest", manifest, "--looks", "sideways").exit_code == 2


def test_the_same_weights_twice_are_refused(evaluate: Evaluate, manifest: Path, weights: Path) -> None:
    result = evaluate("--manifest", manifest, "--weights", f"{weights},{weights}")
    assert result.exit_code == 2
    assert "named twice" in result.output


def test_one_detector_without_looks_has_a_plain_backend(weights: Path) -> None:
    panel = load_panel(str(weights))
    assert panel.info == load_detector(weights).info
    with panel.backend(backend="torch") as backend:
        assert backend.name.startswith("torch-")
        assert not hasattr(backend, "views")
