"""A folder of clips with labels.csv: judged by the pipeline itself, one prediction per clip."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from models.architectures import LoadedDetector
from pipeline import assembly
from pipeline.detectors import Detector
from pipeline.scanner_options import ScannerOptions
from pipeline.sources import Source
from pipeline.video.sampling import Fps
from tests import media
from tests.trainers.evaluation.conftest import Evaluate

LABELS = """file,label,method,dataset
one.mp4,real,,made
one_fake.mp4,fake,blend,made
two.mp4,real,,made
no_face.mp4,real,,made
gone.mp4,fake,blend,made
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, no_face: Path) -> Path:
    folder = tmp_path_factory.mktemp("clips") / "made clips"
    folder.mkdir()
    media.make_clip(folder / "one.mp4", seconds=1)
    media.make_fake(folder / "one.mp4", folder / "one_fake.mp4")
    media.make_clip(folder / "two.mp4", seconds=1, faces=2, size=(800, 360), seed=3)
    shutil.copy(no_face, folder / "no_face.mp4")
    (folder / "labels.csv").write_text(LABELS)
    return folder


@pytest.fixture(scope="module")
def run(
    evaluate: Evaluate, weights: Path, folder: Path, manifest: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Result, dict[str, Any], list[dict[str, str]], str]:
    """Crops and clips in one run."""
    out = tmp_path_factory.mktemp("out")
    outputs = ("--json", out / "o.json", "--predictions", out / "o.csv", "--report", out / "o.md")
    options = ("--backend", "torch", "--resamples", 50, "--ladder", "none", "--workers", 1)
    result = evaluate("--weights", weights, "--manifest", folder, "--manifest", manifest, *options, *outputs)
    with (out / "o.csv").open(newline="") as file:
        predictions = list(csv.DictReader(file))
    return result, json.loads((out / "o.json").read_text()), predictions, (out / "o.md").read_text()


Run = tuple[Result, dict[str, Any], list[dict[str, str]], str]


def test_clips_get_the_verdicts_of_scan(run: Run, folder: Path, detector: LoadedDetector) -> None:
    _, found, _, _ = run
    clips = {clip["file"]: clip for clip in found["sets"][0]["clips"]}
    of = Detector.of(detector.model, detector.info, detector.sha256)
    with assembly.scanner(of, ScannerOptions(Fps(2.0), backend="torch", workers=1), portraits=False) as scanner:
        for name in ("one_fake.mp4", "two.mp4", "no_face.mp4"):
            report = scanner.scan(Source(str(folder / name)))
            assert report is not None
            verdict, clip = report.verdict, clips[name]
            assert (clip["outcome"], clip["people"]) == (verdict.outcome, len(verdict.people))
            assert (clip["word"], clip["error"]) == (verdict.label, verdict.error)
            if verdict.probability is None:
                assert clip["probability"] is None
            else:
                assert clip["probability"] == pytest.approx(verdict.probability, abs=1e-6)


def test_outcomes_without_a_score_are_counted_and_never_a_number(run: Run) -> None:
    result, found, predictions, text = run
    assert result.exit_code == 3, result.output
    clips = found["sets"][0]
    assert clips["outcomes"] == {"no_face": 1, "scored": 3, "unavailable": 1}
    assert clips["rows"] == 5
    assert clips["video"]["counts"] == {"total": 3, "real": 2, "fake": 1}
    assert [clip["file"] for clip in clips["clips"]] == [line.split(",")[0] for line in LABELS.splitlines()[1:]]
    assert [row["path"] for row in predictions[:3]] == ["one.mp4", "one_fake.mp4", "two.mp4"]
    assert "no_face: no face in" in text
    assert "2 of 5 clips ended without a score" in result.output


def test_auc_is_over_the_scored_clips(run: Run) -> None:
    _, found, predictions, _ = run
    clips = found["sets"][0]
    chances = {row["path"]: float(row["probability"]) for row in predictions if row["set"] == "made clips"}
    fake = chances.pop("one_fake.mp4")
    expected = sum((fake > real) + 0.5 * (fake == real) for real in chances.values()) / 2
    assert clips["video"]["metrics"]["auc"]["value"] == pytest.approx(expected)
    assert clips["frame"] is None
    assert clips["ladder"] is None
    assert [(group["dataset"], group["method"]) for group in clips["methods"]] == [("made", "blend")]


def test_several_sets_are_separated(run: Run, manifest: Path) -> None:
    _, found, predictions, text = run
    names = ["made clips", manifest.parent.name]
    assert [each["name"] for each in found["sets"]] == names
    assert list(predictions[0]) == ["path", "label", "probability", "set"]
    assert [sum(row["set"] == name for row in predictions) for name in names] == [3, 60]
    assert all(f"## {name}" in text for name in names)
    assert found["sets"][0]["sampling"] == "fps=2"
    assert found["sets"][0]["face_detector"].startswith("mtcnn")


def test_labels_in_the_report_match_the_clips(run: Run) -> None:
    _, found, _, _ = run
    clips = found["sets"][0]
    said = [clip["word"] for clip in clips["clips"] if clip["label"] == "real" and clip["word"]]
    reals = clips["video"]["called"]["reals"]
    assert {label: reals[label] for label in ("fake", "inconclusive", "real")} == {
        label: said.count(label) for label in ("fake", "inconclusive", "real")
    }


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (None, "needs labels.csv with columns file and label"),
        ("file,label\n", "lists no clips"),
        ("name,label\na.mp4,real\n", "column file missing"),
        ("file,label\na.mp4,perhaps\n", "row 1: expected a file and the label real or fake"),
        ("file,label\na.mp4,real\n./a.mp4,fake\n", "lists a file twice"),
    ],
)
def test_bad_labels(labels: str | None, says: str, evaluate: Evaluate, weights: Path, tmp_path: Path) -> None:
    if labels is not None:
        (tmp_path / "labels.csv").write_text(labels)
    result = evaluate("--weights", weights, "--manifest", tmp_path)
    assert result.exit_code == 2
    assert says in result.output


def test_a_face_detector_that_does_not_exist(evaluate: Evaluate, weights: Path, folder: Path) -> None:
    result = evaluate("--weights", weights, "--manifest", folder / "labels.csv", "--detector", "eyes")
    assert result.exit_code == 2
    assert "mtcnn, yunet" in result.output
