"""`unmask evaluate` with early errors, and with training's libraries only."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models.architectures import LoadedDetector
from pipeline.verdict.calibration import label, probability
from tests.trainers.evaluation.conftest import Evaluate
from trainers.evaluation.items import verdict_labels
from trainers.evaluation.sets import CropSet, SetError, find_sets

ROOT = Path(__file__).resolve().parents[3]
SERVING_ONLY = (
    "pydantic", "structlog", "typer", "rich", "fsspec", "openvino", "av", "jinja2", "matplotlib",
)  # fmt: skip


def test_a_missing_manifest_is_refused(evaluate: Evaluate, weights: Path, tmp_path: Path) -> None:
    result = evaluate("--weights", weights, "--manifest", tmp_path / "none.csv")
    assert result.exit_code == 2
    assert "none.csv: no such file" in result.output


def test_a_missing_split_is_refused(evaluate: Evaluate, weights: Path, manifest: Path) -> None:
    result = evaluate("--weights", weights, "--manifest", manifest, "--split", "train")
    assert result.exit_code == 2
    assert "no rows of split 'train'; available: test, val" in result.output


def test_missing_weights_are_refused(evaluate: Evaluate, manifest: Path, tmp_path: Path) -> None:
    result = evaluate("--weights", tmp_path / "none.safetensors", "--manifest", manifest)
    assert result.exit_code == 2
    assert "none.safetensors" in result.output


def test_invalid_weights_are_refused(evaluate: Evaluate, manifest: Path) -> None:
    result = evaluate("--weights", manifest, "--manifest", manifest)
    assert result.exit_code == 2
    assert "a text file, not an Unmask checkpoint" in " ".join(result.output.split())


def test_without_a_manifest_there_is_nothing_to_evaluate(evaluate: Evaluate, weights: Path) -> None:
    result = evaluate("--weights", weights)
    assert result.exit_code == 2
    with pytest.raises(SetError, match="nothing to evaluate"):
        find_sets([], None, None)


@pytest.mark.parametrize(("option", "says"), [("--backend", "torch"), ("--device", "auto")])
def test_a_missing_backend_or_device_is_refused(
    option: str, says: str, evaluate: Evaluate, weights: Path, manifest: Path
) -> None:
    result = evaluate("--weights", weights, "--manifest", manifest, option, "abacus")
    assert result.exit_code == 2
    assert "abacus" in result.output
    assert says in result.output


@pytest.mark.parametrize("option", ["--json", "--report", "--predictions"])
def test_an_output_that_cannot_be_written_is_found_before_the_scores(
    option: str, evaluate: Evaluate, weights: Path, manifest: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path, tmp_path / "file" / "out.md"):
        result = evaluate("--weights", weights, "--manifest", manifest, option, out)
        assert result.exit_code == 2
        assert f"Error: {option}: " in result.output


def test_outputs_never_replace_what_is_read_or_each_other(
    evaluate: Evaluate, weights: Path, manifest: Path, tmp_path: Path
) -> None:
    before = manifest.read_bytes(), weights.read_bytes()
    out = tmp_path / "out"
    for options in (("--json", manifest), ("--report", weights), ("--json", out, "--predictions", out)):
        result = evaluate("--weights", weights, "--manifest", manifest, *options)
        assert result.exit_code == 2
        said = " ".join(result.output.split())
        assert "would replace an input" in said or "are the same file" in said
    assert (manifest.read_bytes(), weights.read_bytes()) == before
    assert not out.exists()


def test_sets_are_named_after_file_or_folder(manifest: Path) -> None:
    other = manifest.parent / "dfdc-val.csv"
    other.write_text(manifest.read_text())
    names = [each.name for each in find_sets([manifest, other, manifest, other], None, None)]
    folder = manifest.parent.name
    assert names == [folder, "dfdc-val", f"{folder} (2)", "dfdc-val (2)"]


def test_an_empty_half_is_reported(manifest: Path) -> None:
    (whole,) = find_sets([manifest], "test", None)
    assert isinstance(whole, CropSet)
    lone = whole.rows.take(whole.rows.group == whole.rows.group[0])
    file = manifest.parent / "lone.csv"
    lone.write(file)
    empty = [half for half, part in zip(("selection", "report"), lone.halves(), strict=True) if not len(part)]
    with pytest.raises(SetError, match=f"no rows in the {empty[0]} half"):
        find_sets([file], None, empty[0])  # type: ignore[arg-type]


def test_probabilities_and_labels_are_those_of_serving(detector: LoadedDetector) -> None:
    logits = np.linspace(-40, 40, 2001).astype(np.float32)
    info = detector.info
    chances = probability(logits, info.calibration)
    np.testing.assert_array_equal(info.calibration.probability(logits), chances)
    for thresholds in (info.thresholds, None):
        assert verdict_labels(chances, thresholds).tolist() == [label(float(p), 1, thresholds).value for p in chances]


def test_it_runs_with_only_the_libraries_of_training(weights: Path, manifest: Path, tmp_path: Path) -> None:
    """And all modules of training can be imported."""
    program = f"""
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys({SERVING_ONLY!r}))
import models, trainers
for package in (models, trainers):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        # The sub-commands of `unmask` need typer; `python -m trainers` does not use them.
        if not module.name.startswith(("trainers.commands", "trainers.__main__")):
            importlib.import_module(module.name)
from pathlib import Path
from trainers.evaluation.run import EvaluateOptions, run
out = Path({str(tmp_path)!r})
options = dict(weights={str(weights)!r}, split="test", ladder="short", resamples=20)
options |= dict(report=out / "o.md", predictions=out / "o.csv")
code = run(EvaluateOptions(manifests=(Path({str(manifest)!r}),), **options))
clips = run(EvaluateOptions(manifests=(out,), **options))
sys.exit(f"exit codes {{code}} {{clips}}")
"""
    # One thread: see `_one_thread`.
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    (tmp_path / "labels.csv").write_text("file,label\na.mp4,real\n")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=200, check=False, cwd=ROOT, env=env
    )
    assert "exit codes 0 2" in done.stderr, done.stderr
    assert "is not installed; manifests do not" in done.stderr
    # Without PyAV, H.264 is reported, not left out.
    assert "h264 crf 35  - (PyAV is not installed)" in done.stdout
    assert "PyAV is not installed" in (tmp_path / "o.md").read_text()
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 13
