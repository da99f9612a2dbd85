from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.architectures import load_detector
from models.calibration import Calibration, probability_of
from tests import media
from tests.weights import small_model
from trainers.calibrate import (
    Calibrated,
    CalibrateOptions,
    CalibrationError,
    bounds_of,
    calibrate,
    choose,
    fit,
    platt,
    run,
    upper_quantiles,
)
from trainers.copies import COPIES, ScoredCopy
from trainers.data.manifest import Manifest, join
from trainers.metrics import cllr, ece


def copy_of(
    name: str, label: np.ndarray, logits: np.ndarray, quality: np.ndarray | float = 1.0, frames: int = 1
) -> ScoredCopy:
    """A copy whose videos have `frames` frames each, one after the other."""
    number = np.arange(len(label)) // frames
    return ScoredCopy(name, label, logits, np.broadcast_to(quality, logits.shape).astype(float), number, number)


def copies(rng: np.random.Generator, count: int = 2000, worse: str = "crf35") -> list[ScoredCopy]:
    """Logits that are twice too confident, with twice as many fakes as reals; one copy's reals score higher."""
    label = np.array([0] * count + [1] * 2 * count, np.int8)
    return [
        copy_of(name, label, 2 * rng.normal(np.where(label == 1, 1.0, -1.0), 1.4) + (1.0 if name == worse else 0.0))
        for name in ("clean", "crf35", "half")
    ]


def test_probabilities_are_calibrated_at_a_prior_of_one_half() -> None:
    label = np.array([0] * 4000 + [1] * 8000, np.int8)
    logits = 2 * np.random.default_rng(0).normal(np.where(label == 1, 1.0, -1.0), 1.4)
    found = platt(label, logits).probability(logits)
    assert ece(label, found, balanced=True) < 0.02
    assert ece(label, Calibration().probability(logits), balanced=True) > 0.05


def probabilities(copy: ScoredCopy, calibration: Calibration) -> np.ndarray:
    """Probabilities of videos with one frame each."""
    return probability_of(copy.tracks(calibration).log_odds)


@pytest.mark.parametrize("worse", ["clean", "crf35", "half"])
def test_the_fake_threshold_holds_on_the_worst_copy(worse: str) -> None:
    scored = copies(np.random.default_rng(1), worse=worse)
    chosen = choose(scored, fpr=0.01, misses=0.1)
    assert chosen.worst == worse
    for copy in scored:
        called = probabilities(copy, chosen.calibration)[copy.label == 0] >= chosen.thresholds.fake[0]
        assert called.mean() <= 0.011
        assert called.mean() > 0.008 or copy.name != worse
    missed = np.concatenate(
        [probabilities(c, chosen.calibration)[c.label == 1] < chosen.thresholds.real[0] for c in scored]
    )
    assert missed.mean() == pytest.approx(0.1, abs=0.005)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), count=st.integers(150, 3000))
def test_the_threshold_grows_with_the_number_of_people(seed: int, count: int) -> None:
    reals = np.random.default_rng(seed).normal(-1, 1.5, count).clip(-6, 6)
    limits = upper_quantiles(reals, 0.01)
    assert (np.diff(limits) >= 0).all()
    assert limits[-1] > limits[0]
    assert np.isfinite(limits).all()


def test_k_people_are_judged_at_one_kth_of_the_rate() -> None:
    rng = np.random.default_rng(3)
    limits = upper_quantiles(rng.normal(-1, 1.5, 3000), 0.01)
    fresh = rng.normal(-1, 1.5, (200_000, 8))
    for k in (1, 2, 4, 8):
        # An exponential tail is heavier than a normal one: the extrapolation is on the safe side.
        assert 0.002 < (fresh[:, :k].max(axis=1) >= limits[k - 1]).mean() < 0.014


def test_too_few_or_useless_scores_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(CalibrationError, match="more than 100 reals, got 50"):
        choose(copies(rng, 50))
    with pytest.raises(CalibrationError, match="reals and fakes"):
        choose([copy_of("clean", np.zeros(500, np.int8), rng.normal(size=500))])
    with pytest.raises(CalibrationError, match="detect nothing"):
        choose([copy_of(c.name, c.label, -c.logits) for c in copies(rng)])


def blurred(rng: np.random.Generator, count: int = 1500) -> list[ScoredCopy]:
    """Clear faces that are separable, and poor ones whose scores are noise: reals among them score like fakes."""
    label = np.array([0] * count + [1] * count, np.int8)
    clear = copy_of("clean", label, rng.normal(np.where(label == 1, 2.0, -2.0), 1.5), rng.uniform(0.6, 1.0, 2 * count))
    poor = copy_of("blur8", label, rng.normal(2.0, 2.0, 2 * count), rng.uniform(0.1, 0.4, 2 * count))
    return [clear, poor]


def test_poor_faces_whose_scores_are_noise_are_not_trusted() -> None:
    clear, poor = blurred(np.random.default_rng(5))
    calibration = fit([clear, poor])
    assert calibration.trust(np.array([0.15, 0.3])).max() < 0.15
    assert calibration.trust(np.array([0.8, 1.0])).min() > 0.95
    found = probability_of(poor.tracks(calibration).log_odds)
    assert cllr(poor.label, found) < 1.05 < cllr(poor.label, fit([clear]).probability(poor.logits))
    assert ece(poor.label, found, balanced=True) < 0.1


def test_poor_reals_are_not_called_fake_and_clear_fakes_still_are() -> None:
    chosen = choose(blurred(np.random.default_rng(6)))
    clear, poor = (copy.tracks(chosen.calibration) for copy in blurred(np.random.default_rng(7)))
    fake = chosen.thresholds.fake[0]
    assert (probability_of(poor.log_odds[poor.label == 0]) >= fake).mean() < 0.01
    assert (probability_of(clear.log_odds[clear.label == 1]) >= fake).mean() > 0.4


def test_heavy_tails_get_a_broken_line_and_linear_scores_a_straight_one() -> None:
    rng = np.random.default_rng(8)
    label = np.tile(np.array([0, 1], np.int8), 3000)
    odds = rng.normal(np.where(label == 1, 1.0, -1.0), np.sqrt(2))  # its own log-likelihood ratio
    stretched = np.where(np.abs(odds) > 1.5, np.sign(odds) * (1.5 + 3 * (np.abs(odds) - 1.5)), odds).clip(-6, 6)
    broken = fit([copy_of("clean", label, stretched)])
    assert broken.curve
    straight = platt(label, stretched)
    assert cllr(label, broken.probability(stretched)) < cllr(label, straight.probability(stretched))


def test_copies_of_a_video_count_as_one_in_the_bounds() -> None:
    rng = np.random.default_rng(9)
    label = np.repeat(np.array([0, 1], np.int8), 500)
    logits = rng.normal(np.where(label == 1, 3.0, -3.0), 2.0)
    once, calibration = copy_of("clean", label, logits), platt(label, logits)
    one, four = (bounds_of([once.tracks(calibration)] * times) for times in (1, 4))
    assert one.upper == pytest.approx(four.upper)
    assert (four.reals, four.fakes) == (500, 500)


def test_every_copy_has_a_size_and_keeps_the_picture() -> None:
    picture = media.face_picture()[:224, :224]
    for name, copy in COPIES.items():
        changed = picture if copy.change is None else copy.change(picture, 3)
        assert (changed.shape, changed.dtype) == (picture.shape, picture.dtype)
        assert 0 < copy.size <= 1
        assert (name == "clean") == (copy.change is None)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "best.safetensors"
    # Random weights rank at random; those of seed 1 rank synthetic fakes above their reals.
    small_model(seed=1).save_checkpoint(path, epoch=1)
    return path


@dataclass(frozen=True)
class Written:
    """A calibration that was run once, for the tests that leave its file as it is."""

    options: CalibrateOptions
    chosen: Calibrated
    sha256: str


@pytest.fixture(scope="module")
def written(weights: Path, crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Written:
    out = tmp_path_factory.mktemp("calibrated") / "out.safetensors"
    options = CalibrateOptions(weights, crops, out, name="mine", fpr=0.2)
    return Written(options, *calibrate(options))


def test_a_detector_is_written_in_half_precision(written: Written, weights: Path, crops: Path) -> None:
    options, chosen, sha256 = written.options, written.chosen, written.sha256
    loaded, before = load_detector(options.out), load_detector(weights)
    assert loaded.sha256 == sha256
    assert loaded.info.name == "mine"
    assert loaded.info.created_at == pytest.approx(options.out.stat().st_mtime, abs=60)
    assert before.info.created_at is None
    assert (loaded.info.calibration, loaded.info.thresholds) == (chosen.calibration, chosen.thresholds)
    assert loaded.info.calibration.quality
    assert loaded.info.calibration.bounds is not None
    assert loaded.info.calibration.bounds.upper <= loaded.info.calibration.bounds.reals + 1
    assert options.out.stat().st_size < 0.56 * weights.stat().st_size
    images = torch.rand(8, 3, 64, 64) * 2 - 1
    torch.testing.assert_close(loaded.model(images), before.model(images), rtol=0.02, atol=0.02)
    # The reporting half was not used.
    report = Manifest.read(crops).where(split="val").halves()[1]
    assert chosen.reals <= len(set(Manifest.read(crops).where(split="val").source_video)) - len(
        set(report.source_video)
    )


def test_a_dataset_of_reals_can_only_raise_the_fake_threshold(
    written: Written, weights: Path, crops: Path, tmp_path: Path
) -> None:
    manifest = Manifest.read(crops)
    reals = manifest.take((manifest.split == "val") & (manifest.label == 0))
    alone = replace(reals, dataset=np.full(len(reals), "portraits"))
    join([manifest, alone], crops.parent).write(tmp_path / "more.csv")
    more, _ = calibrate(CalibrateOptions(weights, tmp_path / "more.csv", tmp_path / "more.safetensors", fpr=0.2))
    assert more.calibration == written.chosen.calibration
    assert more.thresholds.fake[0] >= written.chosen.thresholds.fake[0]


def test_bad_input_is_reported(weights: Path, crops: Path, tmp_path: Path) -> None:
    lines: list[str] = []

    def refused(options: CalibrateOptions) -> str:
        assert run(options, lines.append, lines.append) == 2
        assert not options.out.exists()
        return lines[-1]

    out = tmp_path / "out.safetensors"
    assert "no rows of the split 'test'" in refused(CalibrateOptions(weights, crops, out, split="test"))
    assert "needs more than 100 reals" in refused(CalibrateOptions(weights, crops, out))
    assert "cannot be read" in refused(CalibrateOptions(weights, tmp_path / "m.csv", out))
    assert "absent" in refused(CalibrateOptions(tmp_path / "absent.safetensors", crops, out, fpr=0.2))
    for kept in (weights, crops):
        before = kept.read_bytes()
        assert run(CalibrateOptions(weights, crops, kept), lines.append, lines.append) == 2
        assert "--out would replace an input" in lines[-1]
        assert kept.read_bytes() == before
