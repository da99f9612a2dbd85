"""A reference of drift from crops: the scores of `evaluate`, widths of faces from landmarks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from models.architectures import LoadedDetector
from models.spec import LandmarkTemplate
from pipeline.drift.measures import FACE_WIDTH, QUALITY, SCORE
from pipeline.drift.reference import read_reference
from trainers.augment.outline import template_landmarks
from trainers.commands.drift import app
from trainers.data.manifest import Manifest
from trainers.evaluation.crop_quality import face_width_px
from trainers.evaluation.drift import manifest_counts
from trainers.evaluation.panel import Panel

POINTS = template_landmarks(96, LandmarkTemplate())


def test_counts_are_those_of_the_crops(manifest: Path, detector: LoadedDetector) -> None:
    rows = Manifest.read(manifest)
    blind = manifest_counts(rows, Panel.of([detector]))
    assert 0 < len(blind) <= 30
    assert {name for counts in blind for name in counts} == {FACE_WIDTH.name}, "heads may be turned"
    assert sum(sum(counts[FACE_WIDTH.name]) for counts in blind) == pytest.approx(0.8 * 60, abs=6)
    found = manifest_counts(replace(rows, landmarks=np.array([POINTS] * len(rows))), Panel.of([detector]))
    assert len(found) == len(blind)
    for counts in found:
        assert sum(counts[SCORE.name]) == 1, "a video of a manifest is one person"
        assert sum(counts[FACE_WIDTH.name]) <= sum(counts[QUALITY.name]), "the width is not known of every crop"
    assert 50 < sum(sum(counts[QUALITY.name]) for counts in found) <= 60


@pytest.mark.parametrize("source_px", [50.0, 400.0])
def test_the_width_of_a_face_follows_from_its_crop(source_px: float) -> None:
    points = POINTS
    unknown = np.full((5, 2), np.nan, np.float32)
    width_px = face_width_px(points, 96, source_px)
    assert width_px == pytest.approx(face_width_px(unknown, 96, source_px))
    assert width_px == pytest.approx(face_width_px(points * 2, 192, source_px), rel=1e-4)
    # The template's square is 0.5 to 1.7 of the box's longer side, which is its height.
    assert 0.4 < width_px / source_px < 1.2
    assert np.isnan(face_width_px(points, 96, float("nan")))


def test_the_command_writes_counts_only(
    manifest: Path, weights: Path, detector: LoadedDetector, tmp_path: Path
) -> None:
    out = tmp_path / "reference.json"

    def run(*more: str) -> tuple[int, str]:
        given = ["reference", "--manifest", str(manifest), "--weights", str(weights), "--out", str(out), *more]
        done = CliRunner().invoke(app, given)
        return done.exit_code, done.output

    code, said = run("--label", "real")
    assert (code, "at least 30 videos" in said) == (2, True)
    assert not out.exists()
    whole = Manifest.read(manifest)
    rows = [
        row | {"split": "val", "source_video": f"video-{i // 2}", "landmarks": POINTS.ravel().tolist()}
        for i, row in enumerate(whole._rows(whole.root))
    ]
    copies = [row | {"source_video": f"{row['source_video']} {copy}"} for copy in range(3) for row in rows]
    Manifest.of(copies, whole.root).write(manifest := whole.root / "more.csv")
    code, said = run()
    assert code == 0, said
    found = read_reference(out)
    assert found.weights_sha256 == [detector.sha256]
    assert (found.origin.kind, found.origin.label) == ("manifest", "all")
    assert "outcome" not in found.measures, "crops do not say how videos end"
    assert "video-" not in out.read_text()
    assert "group" not in out.read_text()
