"""The losses as functions: their zero, their direction, and ignored items."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from trainers.augment.pseudo_fakes import KINDS
from trainers.data.kinds import BLENDED, REAL_FACE, REAL_FAKE, RERENDERED, UNKNOWN_KIND, kind_of_fake
from trainers.losses.classes import bernoulli_kl, soft_cross_entropy
from trainers.losses.consistency import feature_consistency, log_odds_consistency
from trainers.losses.distil import Projections, feature_distillation, log_odds_distillation
from trainers.losses.ordered import OrderedHeads, ordered_loss, reached

log_odds = st.floats(-30, 30)


def test_one_hot_soft_labels_match_hard_labels() -> None:
    logits = torch.randn(6, 2)
    labels = torch.tensor([0, 1, 1, 0, 1, 0])
    everything = torch.ones(6, dtype=torch.bool)
    torch.testing.assert_close(
        soft_cross_entropy(logits, labels.float(), everything, 0.1),
        F.cross_entropy(logits, labels, label_smoothing=0.1),
    )
    some = torch.tensor([True, True, False, False, True, False])
    torch.testing.assert_close(
        soft_cross_entropy(logits, labels.float(), some), F.cross_entropy(logits[some], labels[some])
    )


def test_a_batch_without_labels_has_zero_loss() -> None:
    logits = torch.randn(2, 2, requires_grad=True)
    loss = soft_cross_entropy(logits, torch.zeros(2), torch.zeros(2, dtype=torch.bool))
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@given(target=log_odds, answer=log_odds)
def test_the_divergence_is_zero_at_the_target_and_grows_away_from_it(target: float, answer: float) -> None:
    a, b = torch.tensor([target], dtype=torch.float64), torch.tensor([answer], dtype=torch.float64)
    assert abs(float(bernoulli_kl(a, a))) < 1e-12
    near, far = float(bernoulli_kl(a, (a + b) / 2)), float(bernoulli_kl(a, b))
    assert -1e-12 <= near <= far + 1e-12


def test_the_divergence_is_that_of_the_probabilities() -> None:
    p, q = 0.9, 0.4
    logits = [torch.tensor([math.log(v / (1 - v))], dtype=torch.float64) for v in (p, q)]
    expected = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    assert float(bernoulli_kl(*logits)) == pytest.approx(expected)


def test_consistency_gradients_reach_only_the_degraded_output() -> None:
    clean, degraded = torch.randn(4, requires_grad=True), torch.randn(4, requires_grad=True)
    log_odds_consistency(clean, degraded).backward()
    assert clean.grad is None
    assert degraded.grad is not None
    features = torch.randn(4, 8, requires_grad=True), torch.randn(4, 8, requires_grad=True)
    loss = feature_consistency(*features)
    loss.backward()
    assert features[0].grad is None
    assert features[1].grad is not None
    assert float(feature_consistency(features[0], 3 * features[0].detach())) == pytest.approx(0, abs=1e-6)


def test_distillation_ignores_images_without_teacher_outputs() -> None:
    teacher, student = torch.randn(4), torch.randn(4)
    known = torch.tensor([True, False, True, False])
    other = torch.where(known, teacher, -teacher)
    assert log_odds_distillation(teacher, student, known, 2.0) == log_odds_distillation(other, student, known, 2.0)
    features, predicted = torch.randn(4, 5), torch.randn(4, 5)
    changed = torch.where(known[:, None], features, -features)
    assert feature_distillation([features], [predicted], known) == feature_distillation([changed], [predicted], known)
    assert float(feature_distillation([features], [features], known)) == pytest.approx(0, abs=1e-6)


def test_projections_learn_the_features_of_two_teachers() -> None:
    torch.manual_seed(0)
    features = torch.randn(32, 6)
    teachers = [features @ torch.randn(6, 4), features @ torch.randn(6, 9)]
    layers = Projections(6, (4, 9))
    optimizer = torch.optim.Adam(layers.parameters(), lr=0.05)
    known = torch.ones(32, dtype=torch.bool)
    for _ in range(150):
        optimizer.zero_grad()
        loss = feature_distillation(teachers, layers(features), known)
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.01


def test_classes_reach_all_lower_thresholds() -> None:
    kinds = torch.tensor([REAL_FACE, BLENDED, RERENDERED, REAL_FAKE, UNKNOWN_KIND])
    assert reached(kinds).tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1], [0, 0, 0]]


def test_ordered_heads_learn_the_order() -> None:
    torch.manual_seed(0)
    kinds = torch.arange(4).repeat(16)
    features = torch.randn(64, 8) * 0.1
    features[:, 0] += kinds
    heads = OrderedHeads(8)
    optimizer = torch.optim.Adam(heads.parameters(), lr=0.1)
    known = torch.ones(64, dtype=torch.bool)
    for _ in range(300):
        optimizer.zero_grad()
        loss = ordered_loss(heads(features), reached(kinds), known)
        loss.backward()
        optimizer.step()
    assert ((heads(features) > 0).sum(1) == kinds).float().mean() > 0.9


def test_every_pseudo_fake_is_below_a_real_fake() -> None:
    assert {kind_of_fake(kind) for kind in KINDS} <= {BLENDED, RERENDERED}
    assert kind_of_fake("self_blend") == BLENDED
    assert kind_of_fake("same_frame") == kind_of_fake("same_group") == kind_of_fake("apart") == REAL_FAKE
