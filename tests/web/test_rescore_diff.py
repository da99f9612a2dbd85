"""The order, the table and the agreement of verdicts before and after."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pipeline.contracts import Label, Outcome
from web.rescore_diff import agreement, is_changed, log_odds_change, matrix, ordered, words
from web.rescores import Judged, Rescored
from web.rounds import Choice

JUDGED = st.one_of(
    st.builds(
        Judged,
        outcome=st.just(Outcome.SCORED),
        label=st.sampled_from(Label),
        probability=st.floats(0, 1),
        weights=st.just("w"),
        sha256=st.just(("0" * 64,)),
    ),
    st.sampled_from([each for each in Outcome if each is not Outcome.SCORED]).map(
        lambda outcome: Judged(outcome, None, None, "w", ("0" * 64,))
    ),
)
VIDEOS = st.lists(
    st.builds(
        Rescored,
        run=st.just("r"),
        video=st.text("0123456789abcdef", min_size=4, max_size=4),
        name=st.just("a.mp4"),
        owner=st.just("k"),
        answer=st.sampled_from([None, *(each.value for each in Choice)]),
        before=JUDGED,
        after=JUDGED,
        finished_s=st.just(1.0),
        is_replaced=st.booleans(),
        replayed=st.none(),
        is_notified=st.booleans(),
    ),
    max_size=30,
    unique_by=lambda each: each.video,
)


def rank(video: Rescored) -> int:
    """As the documentation has it."""
    pair = (video.before.label, video.after.label)
    if pair == (Label.REAL, Label.FAKE):
        return 0
    if pair == (Label.FAKE, Label.REAL):
        return 1
    if is_changed(video) and None not in pair:
        return 2
    return 3 if is_changed(video) else 4


@given(VIDEOS)
def test_changed_labels_come_first_and_then_the_largest_changes(videos: list[Rescored]) -> None:
    found = ordered(videos)
    assert sorted(map(id, found)) == sorted(map(id, videos))
    places = [(rank(each), -abs(log_odds_change(each.before, each.after) or 0.0)) for each in found]
    assert places == sorted(places)
    assert ordered(reversed(found)) == found


@given(VIDEOS)
def test_every_video_is_counted_once(videos: list[Rescored]) -> None:
    counts = matrix(videos)
    assert sum(counts.values()) == len(videos)
    assert sum(count for (before, after), count in counts.items() if before != after) == sum(map(is_changed, videos))
    assert set(words(word for pair in counts for word in pair)) == {word for pair in counts for word in pair}
    found = agreement(videos)
    for choice, (before, after) in found.items():
        assert before.total() == after.total() == sum(each.answer == choice for each in videos)
    assert set(found) == {Choice(each.answer) for each in videos if each.answer in ("fake", "real")}


@given(JUDGED, JUDGED)
def test_a_change_turns_its_sign_with_the_direction(before: Judged, after: Judged) -> None:
    change, back = log_odds_change(before, after), log_odds_change(after, before)
    assert (change is None) == (before.label is None or after.label is None)
    assert change is None or change == -(back or 0.0)
    assert log_odds_change(before, replace(before)) in (0.0, None)
