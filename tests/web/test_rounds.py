"""Rounds of reviewing, agreement: pure functions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from pipeline.contracts import Label
from web.agreement import agreement, share
from web.rounds import OPEN, Choice, Policy, Round, contradicts, is_sampled, standing

FAKE, REAL, UNSURE, NOT_APPLICABLE = Choice
NOBODY_TWICE = Policy(second_share=0)
choices = st.sampled_from(list(Choice))
labels = st.sampled_from([*Label, None])


@pytest.mark.parametrize(
    ("label", "made", "expected", "answer"),
    [
        (Label.REAL, [], Round.FIRST, None),
        (None, [], Round.FIRST, None),
        (Label.REAL, [REAL], Round.CLOSED, REAL),
        (Label.INCONCLUSIVE, [FAKE], Round.CLOSED, FAKE),
        (Label.REAL, [FAKE], Round.SECOND, None),
        (Label.FAKE, [REAL], Round.SECOND, None),
        (Label.FAKE, [NOT_APPLICABLE], Round.CLOSED, NOT_APPLICABLE),
        (Label.REAL, [UNSURE], Round.SECOND, None),
        (Label.REAL, [FAKE, FAKE], Round.CLOSED, FAKE),
        (Label.REAL, [FAKE, REAL], Round.SENIOR, None),
        (Label.REAL, [FAKE, REAL, UNSURE], Round.CLOSED, UNSURE),
    ],
)
def test_who_is_asked_next(label: Label | None, made: list[Choice], expected: Round, answer: Choice | None) -> None:
    now = standing("a", label, made, NOBODY_TWICE)
    assert (now.round, now.answer) == (expected, answer)


@given(st.text(max_size=30), labels, st.lists(choices, max_size=5), st.floats(0, 1), st.floats(0, 1))
def test_a_clip_is_open_or_has_an_answer(
    id_: str, label: Label | None, made: list[Choice], audited: float, second: float
) -> None:
    policy = Policy(frozenset({Label.REAL}), audit_share=audited, second_share=second)
    now = standing(id_, label, made, policy)
    assert (now.answer is None) == (now.round in OPEN)
    assert now.answer is None or now.answer in made or now.round is Round.AUTOMATIC


def test_a_label_decides_but_for_its_audits() -> None:
    policy = Policy(frozenset({Label.REAL}), audit_share=0.25)
    rounds = [standing(f"video {i}", Label.REAL, [], policy).round for i in range(4000)]
    audits = rounds.count(Round.AUDIT)
    assert 850 < audits < 1150
    assert audits + rounds.count(Round.AUTOMATIC) == 4000
    assert standing("video", Label.FAKE, [], policy).round is Round.FIRST


def test_samples_for_different_purposes_are_independent() -> None:
    both = [is_sampled(str(i), "audit", 0.5) and is_sampled(str(i), "second", 0.5) for i in range(4000)]
    assert 850 < sum(both) < 1150
    assert not is_sampled("a", "audit", 0)
    assert is_sampled("a", "audit", 1)


@given(choices, labels)
def test_only_opposite_statements_contradict(choice: Choice, label: Label | None) -> None:
    assert contradicts(choice, label) == ((choice, label) in {(FAKE, Label.REAL), (REAL, Label.FAKE)})


@pytest.mark.parametrize("wrong", [{"audit_share": -0.1}, {"second_share": 1.1}, {"golden_share": math.nan}])
def test_shares_outside_their_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="is from 0 to 1"):
        Policy(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="real and fake"):
        Policy(frozenset({Label.INCONCLUSIVE}))


@given(st.lists(st.tuples(choices, choices), min_size=1, max_size=60))
def test_kappa_is_cohens(pairs: list[tuple[Choice, Choice]]) -> None:
    found = agreement(pairs)
    if len({each for pair in pairs for each in pair}) == 1:
        assert found.kappa is None
        return
    assert found.kappa == pytest.approx(cohen_kappa_score([a for a, _ in pairs], [b for _, b in pairs]))
    assert found.low is not None
    assert found.high is not None
    assert -1 <= found.low <= found.kappa + 1e-9
    assert found.kappa - 1e-9 <= found.high <= 1


def test_the_interval_of_kappa_is_that_of_fleiss_cohen_and_everitt() -> None:
    # A table of two by two, for which the variance can be computed by hand: 40 and 30 equal, 10 and 20 not.
    pairs = [(FAKE, FAKE)] * 40 + [(FAKE, REAL)] * 10 + [(REAL, FAKE)] * 20 + [(REAL, REAL)] * 30
    found = agreement(pairs)
    assert found.kappa == pytest.approx(0.4)
    assert found.low is not None
    # p_e = .5; (.4 (1 - 1.1 .6)^2 + .3 (1 - .9 .6)^2 + .36 (.1 (.6 + .5)^2 + .2 (.4 + .5)^2) - (.4 - .3)^2) / (100 .25)
    variance = (0.4 * 0.34**2 + 0.3 * 0.46**2 + 0.36 * (0.1 * 1.1**2 + 0.2 * 0.9**2) - 0.1**2) / 25
    assert found.kappa - found.low == pytest.approx(1.959964 * math.sqrt(variance))


def test_the_interval_of_a_share_is_wilsons() -> None:
    # Brown, Cai and DasGupta, Interval estimation for a binomial proportion, 2001: 0 of 10 gives 0 to .2775.
    assert share(0, 10).high == pytest.approx(0.2775, abs=1e-4)
    assert share(10, 10).low == pytest.approx(1 - 0.2775, abs=1e-4)
    assert share(0, 0).high is None
    with pytest.raises(ValueError, match="3 of 2"):
        share(3, 2)


@given(st.integers(1, 500).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
def test_a_share_is_within_its_interval(found: tuple[int, int]) -> None:
    made = share(*found)
    assert made.low is not None
    assert made.high is not None
    assert 0 <= made.low <= found[0] / found[1] + 1e-12
    assert found[0] / found[1] - 1e-12 <= made.high <= 1
