"""Metrics against scikit-learn, ties included, and the bootstrap against theory."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from models.checkpoint_info import LOGIT_LIMIT
from trainers.metrics import (
    METRICS,
    MixedVideoError,
    average_precision,
    ece,
    eer,
    estimate,
    reals_needed,
    reliability,
    roc_auc,
    roc_curve,
    tpr_at_fpr,
    video_index,
    video_labels,
    video_logits,
)

Scored = tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]


@st.composite
def scored(draw: st.DrawFn, both: bool = True) -> Scored:
    """Labels and probabilities in float32; few distinct values give many ties."""
    labels = draw(st.lists(st.integers(0, 1), min_size=2, max_size=60))
    if both:
        labels = [0, 1, *labels]
    levels = draw(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=12))
    scores = draw(st.lists(st.sampled_from(levels), min_size=len(labels), max_size=len(labels)))
    return np.array(labels, np.int8), np.array(scores, np.float32)


def blobs(items: int, *, seed: int = 0, apart: float = 1.5) -> Scored:
    """Two overlapping classes, probabilities of a calibrated logistic model."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(items) < 0.5).astype(np.int8)
    logits = apart * (rng.standard_normal(items) + apart * (labels - 0.5))
    return labels, (1 / (1 + np.exp(-logits))).astype(np.float32)


@given(scored())
def test_ranking_metrics_equal_scikit_learn(data: Scored) -> None:
    labels, scores = data
    assert roc_auc(labels, scores) == pytest.approx(sk.roc_auc_score(labels, scores))
    assert average_precision(labels, scores) == pytest.approx(sk.average_precision_score(labels, scores))
    fpr, tpr, thresholds = sk.roc_curve(labels, scores, drop_intermediate=False)
    ours = roc_curve(labels, scores)
    for mine, theirs in ((ours.fpr, fpr), (ours.tpr, tpr), (ours.thresholds, thresholds)):
        np.testing.assert_allclose(mine, theirs)


@given(scored())
def test_eer_is_where_the_curve_meets_the_diagonal(data: Scored) -> None:
    labels, scores = data
    fpr, tpr, _ = sk.roc_curve(labels, scores, drop_intermediate=False)
    # Parametrised by position on the polyline, since it has vertical pieces.
    steps = np.arange(len(fpr))
    place = brentq(lambda s: np.interp(s, steps, fpr) - 1 + np.interp(s, steps, tpr), 0, len(fpr) - 1, xtol=1e-12)
    assert eer(labels, scores) == pytest.approx(np.interp(place, steps, fpr), abs=1e-9)


@given(scored(both=False))
def test_ece_is_the_gap_between_confidence_and_share_of_fakes(data: Scored) -> None:
    labels, probability = data
    share, confidence = calibration_curve(labels, probability.astype(np.float64), n_bins=15)
    bins = reliability(labels, probability)
    filled = bins.items > 0
    np.testing.assert_allclose(bins.fakes[filled], share)
    np.testing.assert_allclose(bins.confidence[filled], confidence)
    expected = np.average(np.abs(share - confidence), weights=bins.items[filled])
    assert ece(labels, probability) == pytest.approx(expected)
    assert bins.items.sum() == len(labels)


@given(scored(), st.integers(2, 5))
def test_balanced_ece_is_that_of_a_set_with_equal_classes(data: Scored, times: int) -> None:
    labels, probability = data
    # Each class as often as the other has items: equal priors by repetition instead of weights.
    often = np.where(labels == 1, (labels == 0).sum(), (labels == 1).sum())
    even = np.repeat(labels, often), np.repeat(probability, often)
    assert ece(labels, probability, balanced=True) == pytest.approx(ece(*even))
    assert ece(np.tile(labels, times), np.tile(probability, times)) == pytest.approx(ece(labels, probability))


@pytest.mark.parametrize("fpr", [0.01, 0.05])
def test_tpr_is_taken_from_the_curve_without_interpolation(fpr: float) -> None:
    labels, scores = blobs(4000)
    scores = scores.round(2)
    x, y, _ = sk.roc_curve(labels, scores, drop_intermediate=False)
    assert tpr_at_fpr(labels, scores, fpr) == pytest.approx(y[x <= fpr].max())


@pytest.mark.parametrize(("fpr", "reals"), [(0.05, 200), (0.01, 1_000), (0.001, 10_000)])
def test_too_few_reals_give_no_tpr(fpr: float, reals: int) -> None:
    assert reals_needed(fpr) == reals
    scores = np.linspace(0, 1, reals + 10).astype(np.float32)
    enough = (np.arange(reals + 10) >= reals).astype(np.int8)
    too_few = (np.arange(reals + 10) >= reals - 1).astype(np.int8)
    assert tpr_at_fpr(enough, scores, fpr) == 1.0
    assert tpr_at_fpr(too_few, scores, fpr) is None
    name = f"tpr_at_{fpr:g}_fpr"
    found = estimate(too_few, scores, np.arange(len(scores)), [name], resamples=0)[name]
    assert found.value is None
    assert found.reason == f"needs {reals:,} reals, there are {reals - 1:,}"


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_has_no_auc_and_gives_the_reason(label: int) -> None:
    labels, scores = np.full(5, label, np.int8), np.linspace(0, 1, 5)
    assert all(math.isnan(metric(labels, scores)) for metric in (roc_auc, eer))
    found = estimate(labels, scores, np.arange(5), resamples=20)
    assert found["auc"].value is None
    assert found["auc"].reason == ("only fakes" if label else "only reals")
    assert found["ece"].value == pytest.approx(ece(labels, scores))


def test_no_items_give_no_metrics() -> None:
    found = estimate(np.zeros(0, np.int8), np.zeros(0, np.float32), np.zeros(0, np.int64))
    assert {each.reason for each in found.values()} == {"no scored items"}


@pytest.mark.parametrize(
    ("labels", "scores", "says"),
    [
        ([0, 2], [0.1, 0.2], "0 .real. or 1"),
        ([0, 1], [0.1, math.nan], "finite"),
        ([0, 1], [0.1], "one length"),
    ],
)
def test_invalid_scores_are_refused(labels: list[int], scores: list[float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        roc_auc(np.array(labels), np.array(scores))


def test_calibration_metrics_need_probabilities() -> None:
    with pytest.raises(ValueError, match=r"0\.\.1"):
        ece(np.array([0, 1]), np.array([-3.0, 3.0]))
    with pytest.raises(ValueError, match="auc, eer, ap"):
        estimate(np.array([0, 1]), np.array([0.1, 0.2]), np.arange(2), ["f1"])


@settings(max_examples=25, deadline=None)
@given(scored())
def test_estimates_are_the_metrics_within_their_interval(data: Scored) -> None:
    labels, probability = data
    found = estimate(labels, probability, np.arange(len(labels)), resamples=60)
    assert set(found) == set(METRICS)
    assert found["auc"].value == pytest.approx(roc_auc(labels, probability))
    assert found["eer"].value == pytest.approx(eer(labels, probability))
    assert found["ap"].value == pytest.approx(average_precision(labels, probability))
    assert found["ece"].value == pytest.approx(ece(labels, probability))
    for name, each in found.items():
        assert (each.low is None) == (each.reason is not None)
        if each.low is not None and each.high is not None:
            # In bits: a certain and wrong probability costs more than one.
            assert 0 <= each.low <= each.high <= (24 if name == "cllr" else 1)


def test_the_interval_has_the_theoretical_width() -> None:
    labels, scores = blobs(2000)
    found = estimate(labels, scores, np.arange(len(labels)), ["auc"])["auc"]
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    # Hanley and McNeil, "The meaning and use of the area under a ROC curve", 1982
    a, fakes, reals = found.value, int(labels.sum()), int((labels == 0).sum())
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    variance = (a * (1 - a) + (fakes - 1) * (q1 - a * a) + (reals - 1) * (q2 - a * a)) / (fakes * reals)
    assert found.high - found.low == pytest.approx(2 * 1.96 * math.sqrt(variance), rel=0.15)


def test_reliability_at_equal_priors_has_intervals_over_videos() -> None:
    labels, chance = blobs(3000)
    few = np.flatnonzero((labels == 1) | (np.arange(3000) % 4 == 0))  # four times as many fakes
    labels, chance = labels[few], chance[few]
    bins = reliability(labels, chance, resamples=200)
    known = np.isfinite(bins.low)
    assert known.sum() >= 10
    assert (bins.low[known] <= bins.balanced[known]).all()
    assert (bins.balanced[known] <= bins.high[known]).all()
    # Calibrated at equal priors: the raw share is far off, the balanced one is close.
    assert (
        np.abs(bins.balanced - bins.confidence)[known].mean()
        < 0.06
        < np.abs(bins.fakes - bins.confidence)[known].mean()
    )
    whole = reliability(labels, chance, np.arange(len(labels)) // 30, resamples=200)
    assert (whole.high - whole.low)[known].mean() > 0
    assert np.isnan(reliability(np.ones(5, np.int8), np.full(5, 0.5)).balanced).all()


def test_frames_of_one_video_are_not_independent() -> None:
    labels, scores = blobs(120)
    once = estimate(labels, scores, np.arange(120), ["auc"])["auc"]
    frames = np.repeat(np.arange(120), 20)
    repeated = estimate(labels[frames], scores[frames], frames, ["auc"])["auc"]
    assert repeated == once
    singly = estimate(labels[frames], scores[frames], np.arange(len(frames)), ["auc"])["auc"]
    assert singly.high - singly.low < 0.5 * (once.high - once.low)  # type: ignore[operator]


def test_equal_seeds_give_equal_intervals() -> None:
    labels, scores = blobs(200)
    first, second, other = (estimate(labels, scores, np.arange(200), ["auc"], seed=seed)["auc"] for seed in (1, 1, 2))
    assert first == second
    assert first != other
    assert first.value == other.value


def test_a_chunked_bootstrap_draws_like_an_unchunked_one() -> None:
    labels, scores = blobs(20_000)
    found = estimate(labels, scores, np.arange(20_000) // 10, ["auc", "ece"], resamples=300)
    assert found["auc"].low < found["auc"].value < found["auc"].high  # type: ignore[operator]


def test_a_single_video_has_no_interval() -> None:
    labels, scores = blobs(50)
    alone = estimate(labels, scores, np.full(50, 7), ["auc"])["auc"]
    assert (alone.low, alone.high, alone.reason) == (None, None, "a single video has no interval")
    two = estimate(labels, scores, labels.astype(np.int64), ["auc"])["auc"]
    assert (two.low, two.reason) == (None, "too few videos of one class for an interval")


def test_videos_are_identified_by_dataset_and_source_not_by_folder() -> None:
    datasets = ["dfdc", "dfdc", "ffpp", "dfdc", "dfdc", "dfdc"]
    sources = ["a", "a", "a", "b", "", ""]
    paths = ["one.tar/a0.jpg", "two.tar/a1.jpg", "one.tar/a0.jpg", "one.tar/b.jpg", "x.jpg", "y.jpg"]
    assert video_index(datasets, sources, paths).tolist() == [0, 0, 1, 2, 3, 4]
    assert video_index([], [], []).shape == (0,)


def test_a_video_is_judged_by_the_mean_of_its_clipped_logits() -> None:
    logits = np.array([100.0, -1.0, np.nan, 2.0, np.nan], np.float32)
    found = video_logits(logits, np.array([0, 0, 0, 1, 2]))
    np.testing.assert_allclose(found, [(LOGIT_LIMIT - 1) / 2, 2.0, np.nan])


def test_the_label_of_a_video() -> None:
    videos = np.array([0, 0, 1])
    assert video_labels(np.array([1, 1, 0]), videos, ["a", "a", "b"]).tolist() == [1, 0]
    with pytest.raises(MixedVideoError, match="such as 'a'"):
        video_labels(np.array([1, 0, 0]), videos, ["a", "a", "b"])
