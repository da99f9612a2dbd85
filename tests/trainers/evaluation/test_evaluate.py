"""`unmask evaluate` over crops: its numbers against scikit-learn's, computed from its predictions."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as sk

from models.architectures import LoadedDetector
from pipeline.scoring.backend import Backend
from pipeline.verdict.calibration import label, probability
from pipeline.verdict.evidence import track_probability
from tests.trainers.evaluation.conftest import Evaluate, Evaluation, crop, encoded
from trainers.augment import degrade
from trainers.data.images import ImageStore
from trainers.data.manifest import Manifest, join
from trainers.evaluation.scoring import score_images, score_manifest
from trainers.evaluation.summary import LabelCounts, share_called_fake
from trainers.gate import Evaluation as Evaluated
from trainers.gate import compare

# Compiling takes longer than scoring a few small crops.
TORCH = ("--backend", "torch", "--resamples", 50)
QUICK = (*TORCH, "--ladder", "none")


def predicted(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def rows(manifest: Path) -> Manifest:
    return Manifest.read(manifest)


@pytest.fixture(scope="module")
def chances(evaluation: Evaluation) -> npt.NDArray[np.float32]:
    return np.array([float(row["probability"]) for row in predicted(evaluation.predictions)], np.float32)


@pytest.fixture(scope="module")
def only(evaluation: Evaluation) -> dict[str, Any]:
    """The one set of the report."""
    (result,) = evaluation.json["sets"]
    assert isinstance(result, dict)
    return result


def video_chances(
    rows: Manifest,
    logits: npt.NDArray[np.float32],
    detector: LoadedDetector,
    quality: npt.NDArray[np.float32] | None = None,
) -> tuple[Any, Any]:
    """Labels and probabilities of the videos, by the rule of the pipeline."""
    weights = np.ones(len(logits)) if quality is None else quality
    keys = sorted(set(zip(rows.dataset.tolist(), rows.source_video.tolist(), strict=True)))
    labels, found = [], []
    for dataset, video in keys:
        of = (rows.dataset == dataset) & (rows.source_video == video)
        labels.append(int(rows.label[of][0]))
        found.append(track_probability(logits[of], weights[of], detector.info.calibration))
    return np.array(labels), np.array(found)


def test_predictions_are_calibrated_scores_of_the_manifest(
    evaluation: Evaluation, rows: Manifest, detector: LoadedDetector, backend: Backend, chances: npt.NDArray[np.float32]
) -> None:
    written = predicted(evaluation.predictions)
    assert list(written[0]) == ["path", "label", "probability"]
    assert [row["path"] for row in written] == rows.path.tolist()
    assert [row["label"] for row in written] == ["fake" if fake else "real" for fake in rows.label]
    logits = score_manifest(backend, detector.info.input_spec, rows)
    np.testing.assert_array_equal(chances, probability(logits, detector.info.calibration))


def test_numbers_over_frames(only: dict[str, Any], rows: Manifest, chances: npt.NDArray[np.float32]) -> None:
    frame = only["frame"]
    assert frame["counts"] == {"total": 60, "real": 30, "fake": 30}
    found = frame["metrics"]
    assert found["auc"]["value"] == pytest.approx(sk.roc_auc_score(rows.label, chances))
    assert found["ap"]["value"] == pytest.approx(sk.average_precision_score(rows.label, chances))
    assert found["auc"]["low"] < found["auc"]["value"] < found["auc"]["high"]
    assert found["tpr_at_0.01_fpr"] == {
        "value": None, "low": None, "high": None, "reason": "needs 1,000 reals, there are 30"
    }  # fmt: skip
    assert sum(each["items"] for each in only["reliability"]) == 60
    assert found["cllr"]["value"] == pytest.approx(sk.log_loss(rows.label, chances) / np.log(2), abs=1e-4)
    assert 0 <= found["cllr_min"]["value"] <= found["cllr"]["value"]
    for each in only["reliability"]:
        if each["balanced_low"] is not None:
            assert 0 <= each["balanced_low"] <= each["balanced"] <= each["balanced_high"] <= 1


def test_numbers_by_quality(
    only: dict[str, Any], rows: Manifest, detector: LoadedDetector, backend: Backend, chances: npt.NDArray[np.float32]
) -> None:
    quality = score_images(backend, detector.info.input_spec, rows, quality=True).quality
    assert only["bands"]
    assert sum(band["counts"]["total"] for band in only["bands"]) == 60
    for band in only["bands"]:
        inside = (quality >= band["low"]) & (quality < band["high"])
        assert band["counts"]["fake"] == rows.label[inside].sum()
        assert set(band["metrics"]) == {"auc", "cllr", "cllr_min", "ece_balanced"}
        if band["metrics"]["auc"]["value"] is not None:
            assert band["metrics"]["auc"]["value"] == pytest.approx(
                sk.roc_auc_score(rows.label[inside], chances[inside])
            )


def test_numbers_by_the_width_of_the_face(only: dict[str, Any], rows: Manifest, detector: LoadedDetector) -> None:
    bands = only["face_bands"]
    assert sum(band["counts"]["total"] for band in bands) == np.isfinite(rows.source_width).sum() > 0
    assert bands[-1]["high"] is None or bands[-1]["high"] <= 192
    assert sum(band["called"]["reals"]["total"] for band in bands) == sum(band["counts"]["real"] for band in bands)


def test_numbers_over_videos(only: dict[str, Any], rows: Manifest, detector: LoadedDetector, backend: Backend) -> None:
    scored = score_images(backend, detector.info.input_spec, rows, quality=True)
    labels, found = video_chances(rows, scored.logits, detector, scored.quality)
    assert only["video"]["counts"] == {"total": 30 - 6, "real": 12, "fake": 12}
    assert only["video"]["metrics"]["auc"]["value"] == pytest.approx(sk.roc_auc_score(labels, found))
    assert only["video"]["metrics"]["ap"]["value"] == pytest.approx(sk.average_precision_score(labels, found))


def test_the_labels_are_those_of_the_pipeline(
    only: dict[str, Any], rows: Manifest, detector: LoadedDetector, chances: npt.NDArray[np.float32]
) -> None:
    said = np.array([label(float(chance), 1, detector.info.thresholds).value for chance in chances])
    assert set(said) == {"fake", "inconclusive", "real"}
    for number, name in ((0, "reals"), (1, "fakes")):
        expected = {
            verdict: int((said[rows.label == number] == verdict).sum()) for verdict in ("fake", "inconclusive", "real")
        }
        assert only["frame"]["called"][name] == {"total": 30, **expected}


def test_people_outside_training_have_separate_figures(
    evaluate: Evaluate, weights: Path, manifest: Path, tmp_path: Path
) -> None:
    rows = Manifest.read(manifest)
    # Of the first dataset, groups 0 to 2 show a person who is also in the split train, groups 3 to 5 another one.
    actor = np.where(rows.dataset == "first", np.where(rows.group < "group-3", "seen", "unseen"), "")
    training = replace(
        rows.take(np.array([0])), path=np.array(["t.jpg"]), split=np.array(["train"]), actor=np.array(["seen"])
    )
    join([replace(rows, actor=actor), training], manifest.parent).write(tmp_path / "actors.csv")
    out = tmp_path / "o.json"
    arguments = ("--manifest", tmp_path / "actors.csv", "--split", "val", "--json", out, *QUICK)
    result = evaluate("--weights", weights, *arguments)
    assert result.exit_code == 0, result.output
    (only,) = json.loads(out.read_text())["sets"]
    assert [each["dataset"] for each in only["datasets"]] == ["first", "second", "first, unseen actors"]
    assert only["datasets"][2]["frame"]["counts"] == {"total": 12, "real": 6, "fake": 6}


def test_each_method_is_compared_with_all_reals_of_its_dataset(
    only: dict[str, Any], rows: Manifest, chances: npt.NDArray[np.float32]
) -> None:
    assert [each["dataset"] for each in only["datasets"]] == ["first", "second"]
    assert {(each["dataset"], each["method"]) for each in only["methods"]} == {
        (dataset, method) for dataset in ("first", "second") for method in ("swap", "reenact")
    }
    for each in (*only["datasets"], *only["methods"]):
        of = rows.dataset == each["dataset"]
        if each["method"] is not None:
            of &= (rows.label == 0) | (rows.method == each["method"])
        assert each["frame"]["counts"]["total"] == of.sum()
        auc = sk.roc_auc_score(rows.label[of], chances[of])
        assert each["frame"]["metrics"]["auc"]["value"] == pytest.approx(auc)


def test_slices_are_thirds_of_the_known_values(
    only: dict[str, Any], rows: Manifest, chances: npt.NDArray[np.float32]
) -> None:
    by = {name: [each for each in only["slices"] if each["by"] == name] for name in ("size", "sharpness", "brightness")}
    known = np.isfinite(rows.source_width)
    assert [len(each) for each in by.values()] == [3, 3, 3]
    assert sum(each["counts"]["total"] for each in by["size"]) == known.sum() == 48
    assert sum(each["counts"]["total"] for each in by["brightness"]) == 60
    for each in by["size"]:
        of = (rows.source_width >= each["low"]) & (rows.source_width <= each["high"])
        assert of.sum() == each["counts"]["total"] == 16
        assert each["auc"]["value"] == pytest.approx(sk.roc_auc_score(rows.label[of], chances[of]))
    store = ImageStore(rows.root)
    grey = [cv2.cvtColor(store.load(path), cv2.COLOR_RGB2GRAY).mean() for path in rows.path.tolist()]
    darkest, brightest = by["brightness"][0], by["brightness"][-1]
    assert darkest["low"] == pytest.approx(min(grey), abs=0.5)
    assert brightest["high"] == pytest.approx(max(grey), abs=0.5)


def test_the_baseline_uses_only_the_size_as_jpeg(only: dict[str, Any], rows: Manifest) -> None:
    store = ImageStore(rows.root)
    sizes = [-len(encoded(store.load(path), 90)) for path in rows.path.tolist()]
    assert only["jpeg_size"]["value"] == pytest.approx(sk.roc_auc_score(rows.label, sizes))


def test_the_ladder_has_every_rung(only: dict[str, Any]) -> None:
    assert [rung["name"] for rung in only["ladder"]["rungs"]] == [
        "clean", "jpeg 90", "jpeg 70", "jpeg 50", "jpeg 30",
        "h264 crf 23", "h264 crf 28", "h264 crf 35", "h264 crf 40",
        "resize 0.5", "resize 0.25",
        "blur sigma 1", "blur sigma 2", "blur sigma 3", "blur sigma 5", "blur sigma 8",
        "defocus radius 4", "defocus radius 8", "motion length 8", "motion length 16", "mosaic cell 4", "mosaic cell 8",
        "noise sigma 5", "noise sigma 10", "noise sigma 25",
    ]  # fmt: skip
    assert (only["ladder"]["rows"], only["ladder"]["of"]) == (60, 60)
    clean = only["ladder"]["rungs"][0]
    assert clean["frame"]["metrics"]["auc"] == only["frame"]["metrics"]["auc"]
    assert clean["video"]["called"] == only["video"]["called"]


def test_a_rung_counts_reals_and_fakes_called_fake(evaluation: Evaluation, only: dict[str, Any]) -> None:
    for rung in only["ladder"]["rungs"]:
        called = rung["video"]["called"]
        for name, members in (("false_alarms", "reals"), ("caught", "fakes")):
            share, given = rung[name], called[members]
            assert share["items"] == given["total"]
            assert share["value"] == pytest.approx(given["fake"] / given["total"])
            assert 0 <= share["low"] <= share["value"] <= share["high"] <= 1
            # The interval of a few videos is wide, also around 0 and 1.
            assert share["high"] - share["low"] > 0.1
    blur = next(rung for rung in only["ladder"]["rungs"] if rung["name"] == "blur sigma 8")["false_alarms"]
    text = f"{100 * blur['value']:.1f} % ({100 * blur['low']:.1f} to {100 * blur['high']:.1f})"
    row = next(line for line in evaluation.report.read_text().splitlines() if line.startswith("| blur sigma 8 "))
    assert text in row


@given(total=st.integers(1, 3000), data=st.data())
def test_the_interval_of_a_share_contains_it(total: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, total))
    share = share_called_fake(LabelCounts(total, count, 0, total - count))
    assert share.value is not None
    assert share.low is not None
    assert share.high is not None
    assert 0 <= share.low <= share.value <= share.high <= 1
    # scipy's, which has the same formula.
    theirs = binomtest(count, total).proportion_ci(method="wilson")
    assert (share.low, share.high) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


def test_a_rung_is_the_set_with_each_stored_crop_degraded(
    only: dict[str, Any], rows: Manifest, detector: LoadedDetector, backend: Backend
) -> None:
    rungs = {rung["name"]: rung for rung in only["ladder"]["rungs"]}
    for name, transform in (
        ("jpeg 30", lambda image, row: degrade.jpeg(image, 30)),
        ("h264 crf 35", lambda image, row: degrade.h264(image, 35)),
        ("resize 0.25", lambda image, row: degrade.resize(image, 0.25)),
        ("noise sigma 10", lambda image, row: degrade.noise(image, 10, np.random.default_rng((0, row)))),
    ):
        scored = score_images(
            backend,
            detector.info.input_spec,
            rows,
            transform=transform,
            quality=True,
            size=0.25 if name == "resize 0.25" else 1.0,
        )
        chances = probability(scored.logits, detector.info.calibration)
        found = rungs[name]["frame"]["metrics"]
        assert set(found) == {"auc", "eer"}
        assert found["auc"]["value"] == pytest.approx(sk.roc_auc_score(rows.label, chances)), name
        labels, videos = video_chances(rows, scored.logits, detector, scored.quality)
        assert rungs[name]["video"]["metrics"]["auc"]["value"] == pytest.approx(sk.roc_auc_score(labels, videos)), name


def test_the_report_names_model_data_and_settings(
    evaluation: Evaluation, only: dict[str, Any], rows: Manifest, detector: LoadedDetector, weights: Path
) -> None:
    model = evaluation.json["model"]
    assert evaluation.json["schema"] == 1
    assert model["name"] == "small"
    assert model["weights_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert model["input_spec_hash"] == detector.info.input_spec.hash
    assert model["calibration"]["scale"] == detector.info.calibration.scale
    assert evaluation.json["settings"]["resamples"] == 200
    assert {"torch", "numpy", "opencv"} <= evaluation.json["software"].keys()
    assert only["manifest_sha256"] == only["rows_sha256"] == rows.sha256
    assert (only["kind"], only["split"], only["half"], only["rows"]) == ("crops", None, None, 60)


def test_markdown_with_plots_next_to_it(evaluation: Evaluation, only: dict[str, Any]) -> None:
    text = evaluation.report.read_text()
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert pictures == ["o-roc.png", "o-reliability.png", "o-ladder.png"]
    for name in pictures:
        picture = cv2.imread(str(evaluation.report.with_name(name)))
        assert min(picture.shape[:2]) > 300
        # More than an empty frame of axes.
        assert len(np.unique(picture.astype(int) @ (1, 256, 65536))) > 20
    for table in ("Metrics", "Verdicts", "Baseline", "Datasets and methods", "Slices", "Robustness ladder"):
        assert f"### {table}" in text
    auc = only["frame"]["metrics"]["auc"]
    assert f"{auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f})" in text
    widths = {line.count("|") for line in text.split("### Metrics")[1].split("###")[0].splitlines() if line}
    assert widths == {4}


def test_the_terminal_shows_the_same_numbers(evaluation: Evaluation, only: dict[str, Any]) -> None:
    said = evaluation.result.output
    assert f"{only['frame']['metrics']['auc']['value']:.3f}" in said
    assert "h264 crf 35" in said
    assert "o.csv" in said


def test_a_split_and_its_halves(
    evaluate: Evaluate, weights: Path, manifest: Path, rows: Manifest, tmp_path: Path
) -> None:
    whole = rows.where(split="val")
    found: list[str] = []
    for half, part in zip(("selection", "report"), whole.halves(), strict=True):
        out = tmp_path / f"{half}.csv"
        arguments = ("--manifest", manifest, "--split", "val", "--half", half, *QUICK, "--predictions", out)
        result = evaluate("--weights", weights, *arguments)
        assert result.exit_code == 0, result.output
        paths = [row["path"] for row in predicted(out)]
        assert paths == part.path.tolist()
        found += paths
    assert sorted(found) == sorted(whole.path.tolist())


def test_the_ladder_samples_a_large_set(evaluate: Evaluate, weights: Path, manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    arguments = ("--ladder", "short", "--ladder-rows", 20, *TORCH, "--json", out)
    result = evaluate("--weights", weights, "--manifest", manifest, *arguments)
    assert result.exit_code == 0, result.output
    text = out.read_text()
    assert "NaN" not in text
    (only,) = json.loads(text)["sets"]
    assert (only["ladder"]["rows"], only["ladder"]["of"]) == (20, 60)
    names = ["clean", "h264 crf 35", "resize 0.5", "jpeg 50"]
    assert [rung["name"] for rung in only["ladder"]["rungs"]] == names
    for rung in only["ladder"]["rungs"]:
        assert rung["frame"]["counts"] == {"total": 20, "real": 10, "fake": 10}
    assert "20 of 60 crops" in result.output


def test_broken_images_are_counted_and_the_others_are_scored(evaluate: Evaluate, weights: Path, tmp_path: Path) -> None:
    rows = []
    for number in range(6):
        fake = number % 2 == 1
        (tmp_path / f"{number}.jpg").write_bytes(encoded(crop(number, fake=fake)))
        rows.append({"path": f"{number}.jpg", "label": int(fake), "dataset": "d", "source_video": f"v{number}"})
    (tmp_path / "2.jpg").write_bytes(b"not a picture")
    (tmp_path / "3.jpg").unlink()
    file, out, table = tmp_path / "made.csv", tmp_path / "out.json", tmp_path / "out.csv"
    Manifest.of([{"split": "", "group": "", "method": "", **row} for row in rows], tmp_path).write(file)
    result = evaluate(
        "--weights", weights, "--manifest", file, "--json", out, "--predictions", table, "--ladder", "short"
    )
    assert result.exit_code == 3, result.output
    (only,) = json.loads(out.read_text())["sets"]
    assert only["name"] == "made"
    assert [failure["path"] for failure in only["failures"]] == ["2.jpg", "3.jpg"]
    assert "not an image" in only["failures"][0]["error"]
    assert only["frame"]["counts"] == {"total": 4, "real": 2, "fake": 2}
    assert [rung["failed"] for rung in only["ladder"]["rungs"]] == [2, 2, 2, 2]
    assert [row["path"] for row in predicted(table)] == ["0.jpg", "1.jpg", "4.jpg", "5.jpg"]
    assert "2 of 6 crops could not be scored" in result.output


def test_a_set_of_one_class_has_no_auc_and_gives_the_reason(
    evaluate: Evaluate, weights: Path, rows: Manifest, tmp_path: Path
) -> None:
    file, out = tmp_path / "reals.csv", tmp_path / "out.json"
    rows.take(rows.label == 0).write(file)
    report = tmp_path / "out.md"
    result = evaluate(
        "--weights", weights, "--manifest", file, "--json", out, "--report", report, "--ladder", "short", *TORCH
    )
    assert result.exit_code == 0, result.output
    (only,) = json.loads(out.read_text())["sets"]
    for part in (only["frame"], only["video"], only["ladder"]["rungs"][1]["frame"]):
        assert part["metrics"]["auc"]["value"] is None
        assert part["metrics"]["auc"]["reason"] == "only reals"
    assert math.isfinite(only["frame"]["metrics"]["ece"]["value"])
    assert only["methods"] == []
    assert only["frame"]["called"]["reals"]["total"] == 30
    assert "- (only reals)" in report.read_text()


def test_a_video_of_both_labels_has_no_number_over_videos(evaluate: Evaluate, weights: Path, tmp_path: Path) -> None:
    rows = []
    for number in range(4):
        (tmp_path / f"{number}.jpg").write_bytes(encoded(crop(number, fake=number % 2 == 1)))
        rows.append({"path": f"{number}.jpg", "label": number % 2, "dataset": "d", "source_video": "the same"})
    file, out = tmp_path / "made.csv", tmp_path / "out.json"
    Manifest.of([{"split": "", "group": "", "method": "", **row} for row in rows], tmp_path).write(file)
    result = evaluate("--weights", weights, "--manifest", file, "--json", out, *QUICK)
    assert result.exit_code == 0, result.output
    (only,) = json.loads(out.read_text())["sets"]
    assert only["video"] is None
    assert "'the same'" in only["video_reason"]
    assert only["frame"]["metrics"]["auc"]["value"] is not None
    assert "source_video must name" in result.output


@pytest.mark.data
def test_real_crops_in_shards(evaluate: Evaluate, weights: Path, data_dir: Path, tmp_path: Path) -> None:
    whole = Manifest.read(data_dir / "faces" / "manifest.csv").where(split="val", dataset="ffpp_c23")
    file, out = tmp_path / "ffpp.csv", tmp_path / "out.csv"
    whole.take(np.arange(0, len(whole), 6)).write(file)
    result = evaluate("--weights", weights, "--manifest", file, *QUICK, "--predictions", out)
    assert result.exit_code == 0, result.output
    assert len(predicted(out)) == 60
    assert all(Path(row["path"]).is_absolute() for row in predicted(out))


def test_the_promotion_gate_reads_the_report(evaluation: Evaluation, rows: Manifest, detector: LoadedDetector) -> None:
    found = Evaluated.parse(json.dumps(evaluation.json).encode())
    assert found.weights_sha256 == detector.sha256
    (main,) = found.sets
    assert main.rows == (rows.sha256, None, None, rows.sha256)
    assert main.auc is not None
    assert main.high is not None
    assert main.auc < main.high
    assert "active" in compare(found, found)
