"""Scans with several detectors, and with further looks, compared with separate scans."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from models.architectures import get_model
from models.checkpoint import Calibration, Thresholds, read_checkpoint
from models.spec import BoxMargin, InputSpec
from models.zoo import ZooError
from pipeline import assembly
from pipeline.cli import build
from pipeline.contracts import Outcome, Verdict
from pipeline.detectors import load, load_all
from pipeline.faces.views import Looks
from pipeline.scan import Scanner
from pipeline.scanner_options import ScannerOptions
from pipeline.scoring.backends import create_backend
from pipeline.scoring.engine import Engine
from pipeline.scoring.group import EngineGroup
from pipeline.sources import Source
from pipeline.video.sampling import Even, Fps
from pipeline.video.window import Window
from tests.weights import SMALL_BACKBONE


def thresholds(fake: float, real: float) -> Thresholds:
    return Thresholds(0.01, (fake,) * 8, (real,) * 8)


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two detectors that differ in architecture, size, geometry, normalisation and calibration."""
    folder = tmp_path_factory.mktemp("members")
    torch.manual_seed(1)
    first = get_model("xception", pretrained=False, backbone=SMALL_BACKBONE, input_size=64)
    first.save_checkpoint(
        folder / "a.safetensors", epoch=0, name="a", calibration=Calibration(2.0, 0.5), thresholds=thresholds(0.9, 0.2)
    )
    second = get_model("cnn_transformer", pretrained=False, backbone=SMALL_BACKBONE, input_size=96)
    second.input_spec = InputSpec(96, (0.4,) * 3, (0.3,) * 3, BoxMargin(0.3), "bilinear")
    second.save_checkpoint(
        folder / "b.safetensors", epoch=0, name="b", calibration=Calibration(0.7, -1.0), thresholds=thresholds(0.6, 0.4)
    )
    return folder / "a.safetensors", folder / "b.safetensors"


def scanned(clip: Path, *weights: Path, looks: Looks | None = None, part: bool = False) -> Verdict:
    detectors = load_all(architecture=None, weights=",".join(map(str, weights)), untrained=False)
    options = ScannerOptions(Even(5), looks=looks or Looks(), backend="torch", device="cpu", workers=1)
    with assembly.scanner(detectors, options) as scanner:
        report = scanner.scan(Source(str(clip)))
    assert report is not None
    assert report.verdict.outcome is Outcome.SCORED
    return report.verdict


def log_odds(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))


def test_an_ensemble_is_the_mean_of_its_members_calibrated_log_odds(members: tuple[Path, Path], one_face: Path) -> None:
    together = scanned(one_face, *members)
    alone = [scanned(one_face, member) for member in members]
    assert together.probability is not None
    assert log_odds(together.probability) == pytest.approx(
        np.mean([log_odds(verdict.probability or 0) for verdict in alone]), abs=1e-4
    )
    for face, one, other in zip(together.frames, *(verdict.frames for verdict in alone), strict=True):
        assert (face.box, face.t_s) == (one.box, one.t_s) == (other.box, other.t_s)
        expected = (log_odds(one.probability) + log_odds(other.probability)) / 2
        assert log_odds(face.probability) == pytest.approx(expected, abs=1e-3)


def test_the_record_names_all_members(members: tuple[Path, Path], one_face: Path) -> None:
    provenance = scanned(one_face, *members).provenance
    alone = [scanned(one_face, member).provenance for member in members]
    assert provenance.model == "a+b"
    assert provenance.weights_sha256 == [read_checkpoint(member).sha256 for member in members]
    assert provenance.input_spec == "+".join(each.input_spec for each in alone)
    assert not provenance.untrained


def test_thresholds_of_an_ensemble_are_the_mean_in_log_odds(members: tuple[Path, Path]) -> None:
    detectors = load_all(architecture=None, weights=",".join(map(str, members)), untrained=False)
    with assembly.scanner(detectors, ScannerOptions(Even(5), backend="torch", device="cpu", workers=1)) as scanner:
        assert scanner.thresholds is not None
        real, fake = scanner.thresholds.of(1)
    assert log_odds(fake) == pytest.approx((log_odds(0.9) + log_odds(0.6)) / 2)
    assert log_odds(real) == pytest.approx((log_odds(0.2) + log_odds(0.4)) / 2)


def test_members_in_another_order_give_the_same_probability(members: tuple[Path, Path], one_face: Path) -> None:
    assert scanned(one_face, *members[::-1]).probability == pytest.approx(scanned(one_face, *members).probability)


@pytest.mark.parametrize("looks", [Looks(flip=True), Looks(scales=True)])
def test_looks_change_the_score_and_are_in_the_record(members: tuple[Path, Path], one_face: Path, looks: Looks) -> None:
    plain, looked = scanned(one_face, members[0]), scanned(one_face, members[0], looks=looks)
    assert looked.probability != plain.probability
    assert looked.provenance.input_spec == f"{plain.provenance.input_spec};looks={looks.describe()}"
    assert looked.provenance.weights_sha256 == plain.provenance.weights_sha256


def test_a_crop_and_its_mirror_image_count_alike(members: tuple[Path, Path]) -> None:
    detectors = load_all(architecture=None, weights=members[0], untrained=False)
    options = ScannerOptions(Even(2), looks=Looks(flip=True), backend="torch", device="cpu", workers=1)
    with assembly.scanner(detectors, options) as scanner:
        assert isinstance(scanner.engine, EngineGroup)
        crop = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
        mirrored = np.ascontiguousarray(crop[:, :, ::-1])
        one = scanner.engine.submit([crop, mirrored]).result(60)
        other = scanner.engine.submit([mirrored, crop]).result(60)
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_part_of_a_long_clip_is_scored_by_all_members(members: tuple[Path, Path], one_face: Path) -> None:
    detectors = load_all(architecture=None, weights=",".join(map(str, members)), untrained=False)
    with assembly.scanner(detectors, ScannerOptions(Fps(2.0), backend="torch", device="cpu", workers=1)) as scanner:
        whole = scanner.scan(Source(str(one_face)))
        part = scanner.scan_part(Source(str(one_face)), Window(0.0, 2.0))
    assert whole is not None
    by_time = {round(face.t_s, 3): face.probability for face in whole.verdict.frames}
    for frame, chance in zip(part.frame, part.probability, strict=True):
        assert chance == pytest.approx(by_time[round(float(part.t_s[frame]), 3)], abs=1e-5)
    assert part.provenance.weights_sha256 == whole.verdict.provenance.weights_sha256


def test_a_failed_member_fails_the_clip(members: tuple[Path, Path], one_face: Path) -> None:
    detectors = list(load_all(architecture=None, weights=",".join(map(str, members)), untrained=False))
    with torch.no_grad():
        detectors[1].model().head.linear.bias.fill_(torch.nan)
    with assembly.scanner(detectors, ScannerOptions(Even(3), backend="torch", device="cpu", workers=1)) as scanner:
        report = scanner.scan(Source(str(one_face)))
    assert report is not None
    assert report.verdict.outcome is Outcome.MODEL_ERROR


def test_bad_ensembles_are_refused(members: tuple[Path, Path]) -> None:
    first = members[0]

    def load(weights: str, **options: str) -> None:
        load_all(architecture=options.get("architecture"), weights=weights, untrained=False)

    with pytest.raises(ValueError, match="named twice"):
        load(f"{first},{first}")
    with pytest.raises(ZooError, match="single commas"):
        load(f"{first},,{members[1]}")
    with pytest.raises(ZooError, match="nowhere"):
        load(f"{first},nowhere")
    with pytest.raises(ValueError, match="not xception"):
        load(f"{first},{members[1]}", architecture="xception")


def test_a_path_with_a_comma_is_one_file(members: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "a,b.safetensors"
    path.write_bytes(members[0].read_bytes())
    assert len(load_all(architecture=None, weights=str(path), untrained=False)) == 1


def test_other_weights_keep_the_looks(members: tuple[Path, Path], one_face: Path) -> None:
    first, second = (load(architecture=None, weights=member, untrained=False) for member in members)
    options = ScannerOptions(Even(3), looks=Looks(flip=True), backend="torch", device="cpu", workers=1)

    def score(scanner: Scanner) -> Verdict:
        report = scanner.scan(Source(str(one_face)))
        assert report is not None
        return report.verdict

    with assembly.scanner(first, options) as scanner:
        swapped = assembly.with_detector(scanner, second, Engine(create_backend(second, backend="torch", device="cpu")))
        with swapped.engine:
            found = score(swapped)
    with assembly.scanner(second, options) as scanner:
        expected = score(scanner)
    assert found.probability == pytest.approx(expected.probability)
    assert found.provenance == expected.provenance


def test_the_command_scans_with_an_ensemble(members: tuple[Path, Path], one_face: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    options = ["--frames", "3", "--backend", "torch", "--looks", "flip", "--jsonl", str(out)]
    result = CliRunner().invoke(
        build(["scan"]), ["scan", str(one_face), "--weights", f"{members[0]}, {members[1]}", *options]
    )
    assert result.exit_code == 0, result.output
    verdict = Verdict.model_validate_json(out.read_text())
    assert verdict.provenance.model == "a+b"
    assert verdict.provenance.input_spec.endswith(";looks=flip")
    wrong = CliRunner().invoke(build(["scan"]), ["scan", str(one_face), "--looks", "upside-down"])
    assert wrong.exit_code == 2
    assert "there are: flip, scales" in " ".join(wrong.output.split())
