"""The conditions of the retraining's gate, on made evaluations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from trainers.gate import EvaluationError, Measured, Scores
from trainers.retraining.rules import Check, on_base, on_decisions, on_false_alarms

VIDEOS = 400


def scores(strength: float, *, seed: int = 0, videos: int = VIDEOS, datasets: int = 2) -> Scores:
    """Videos of two datasets, half of them fake, separated the better the higher `strength` is."""
    rng = np.random.default_rng(0)
    label = np.arange(videos) % 2
    noise = rng.normal(size=videos) + 0.3 * np.random.default_rng(seed).normal(size=videos)
    odds = strength * (2 * label - 1) + noise
    names = np.array([f"set{i * datasets // videos}" for i in range(videos)])
    numbers = np.arange(videos)
    return Scores(numbers, numbers // 2, label, 1 / (1 + np.exp(-odds)), names)


def measured(found: Scores | None, **changes: object) -> Measured:
    base = Measured("set", ("m", None, None, "r"), (VIDEOS // 2, VIDEOS // 2), 0.9, 0.95, found)
    return replace(base, **changes)  # type: ignore[arg-type]


def failed(checks: list[Check]) -> list[str]:
    return [check.name for check in checks if not check.passed]


@pytest.mark.parametrize(("strength", "passes"), [(1.3, True), (1.0, False), (0.8, False)])
def test_decisions_must_be_improved(strength: float, passes: bool) -> None:
    check = on_decisions(measured(scores(strength, seed=2)), measured(scores(1.0, seed=2)))
    assert check.passed is passes
    assert "over the same 200 real and 200 fake videos" in check.text


def test_few_decisions_decide_nothing() -> None:
    check = on_decisions(measured(scores(3, videos=18)), measured(scores(0.1, videos=18)))
    assert not check.passed
    assert check.text == "9 real and 9 fake videos; 10 of each are needed"


def test_a_gain_that_chance_explains_is_no_gain() -> None:
    check = on_decisions(measured(scores(1.05, seed=3, videos=24)), measured(scores(1.0, seed=4, videos=24)))
    assert not check.passed


def test_a_loss_on_the_base_set_is_refused_and_named() -> None:
    same = scores(1.0, seed=1)
    assert failed(list(on_base(measured(same), measured(same), 0.01))) == []
    worse = scores(0.7, seed=1)
    assert failed(list(on_base(measured(worse), measured(same), 0.01))) == [
        "base set: not worse by 0.01",
        "base set, set0: not proven worse",
        "base set, set1: not proven worse",
    ]


def test_forgetting_one_dataset_is_refused_though_the_whole_is_better() -> None:
    old, new = scores(1.0, seed=1), scores(2.0, seed=1)
    first = old.dataset == "set0"
    forgotten = replace(new, probability=np.where(first, 1 - old.probability, new.probability))
    found = list(on_base(measured(forgotten), measured(old), 0.5))
    assert failed(found) == ["base set, set0: not proven worse"]


def test_a_loss_under_one_degradation_is_refused() -> None:
    old = measured(scores(1.0), rungs={"clean": scores(1.0), "jpeg 50": scores(1.0), "h264 35": scores(0.9)})
    new = measured(scores(1.0), rungs={"clean": scores(1.0), "jpeg 50": scores(0.6), "h264 35": scores(1.0)})
    assert failed(list(on_base(new, old, 0.01))) == ["base set, jpeg 50: not proven worse"]


def test_other_videos_are_not_compared() -> None:
    for other in (measured(scores(1.0), rows=("m", None, None, "s")), measured(None)):
        with pytest.raises(EvaluationError, match="not of the same videos"):
            list(on_base(measured(scores(1.0)), other, 0.01))
    flipped = scores(1.0)
    with pytest.raises(EvaluationError, match="other labels"):
        on_decisions(measured(scores(1.0)), measured(replace(flipped, label=1 - flipped.label)))


@pytest.mark.parametrize(
    ("ours", "theirs", "refused"),
    [
        ((3, 300), (2, 300), []),
        ((9, 300), (2, 300), ["false alarms, clean"]),
        ((9, 300), (9, 300), []),
        ((1, 20), (0, 20), []),
    ],
)
def test_reals_called_fake_are_limited(ours: tuple[int, int], theirs: tuple[int, int], refused: list[str]) -> None:
    found = on_false_alarms(
        measured(None, alarms={"clean": ours}), measured(None, alarms={"clean": theirs, "jpeg 50": (1, 1)}), 0.01
    )
    assert failed(list(found)) == refused
