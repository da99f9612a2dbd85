"""Headings of clips and runs: none omits what a reader must see."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clip_report import AppliedThresholds
from pipeline.contracts import Evidence, Label, Limit, LimitCode, Outcome, Person, Verdict
from pipeline.results.wording import (
    CLOSE,
    bound_text,
    evidence_badge,
    evidence_text,
    finding_of,
    limits_text,
    rationale,
    run_headline,
    strength_text,
    times_text,
)
from tests.pipeline.records import record


def clip(label: Label, probability: float, **changes: object) -> Verdict:
    return record(f"{label}-{probability}.mp4", label=label, probability=probability, **changes)


FAKE, REAL = clip(Label.FAKE, 0.995), clip(Label.REAL, 0.03)
CLOSE_CLIP, MIDDLE = clip(Label.INCONCLUSIVE, 0.97), clip(Label.INCONCLUSIVE, 0.5)
BROKEN = record("broken.mp4", Outcome.UNDECODABLE)


@pytest.mark.parametrize(
    ("clips", "headline"),
    [
        ([], "No clips"),
        ([REAL, REAL], "None of 2 clips is called fake"),
        ([REAL, CLOSE_CLIP], "None of 2 clips is called fake; 1 is close to it (p 0.97)"),
        (
            [CLOSE_CLIP, clip(Label.INCONCLUSIVE, 0.91), REAL],
            "None of 3 clips is called fake; 2 are close to it (p up to 0.97)",
        ),
        ([REAL, MIDDLE], "None of 2 clips is called fake; 1 is inconclusive"),
        ([MIDDLE, MIDDLE], "None of 2 clips is called fake; 2 are inconclusive"),
        ([REAL, CLOSE_CLIP, BROKEN], "None of 2 judged clips is called fake; 1 is close to it (p 0.97)"),
        ([FAKE, REAL], "1 of 2 clips likely forged"),
        ([FAKE, CLOSE_CLIP, REAL], "1 of 3 clips likely forged; 1 is close to fake (p 0.97)"),
        ([FAKE, MIDDLE], "1 of 2 clips likely forged"),
        ([BROKEN, BROKEN], "None of 2 clips could be judged"),
        ([clip(Label.INCONCLUSIVE, 0.97, untrained=True)] * 2, "2 clips, no verdicts"),
        ([CLOSE_CLIP], "Inconclusive, close to fake"),
        ([REAL], "No forgery found"),
    ],
)
def test_the_heading_of_a_run(clips: list[Verdict], headline: str) -> None:
    assert run_headline(clips) == headline


verdicts = st.one_of(
    st.builds(clip, st.sampled_from(Label), st.floats(0, 1)),
    st.just(BROKEN),
)


@given(st.lists(verdicts, min_size=2, max_size=12))
def test_every_heading_names_a_clip_close_to_fake(clips: list[Verdict]) -> None:
    headline = run_headline(clips)
    close = [v for v in clips if v.label is Label.INCONCLUSIVE and (v.probability or 0) >= CLOSE]
    assert ("close to" in headline) == bool(close)
    assert ("likely forged" in headline) == any(v.label is Label.FAKE for v in clips)


def test_a_clip_close_to_fake_is_called_so() -> None:
    assert finding_of(CLOSE_CLIP).badge == "Close to fake"
    assert finding_of(MIDDLE).badge == "Inconclusive"
    assert finding_of(clip(Label.INCONCLUSIVE, 0.97, untrained=True)).badge == "Untrained"


@pytest.mark.parametrize(
    ("ratio", "text", "badge"),
    [
        (40.3, "The scores are 40 times more likely if the face is forged than if it is real.", "40 x fake"),
        (1 / 12.4, "The scores are 12 times more likely if the face is real than if it is forged.", "12 x real"),
        (2.24, "The scores are 2.2 times more likely if the face is forged than if it is real.", "2.2 x fake"),
        (1.2, "The scores are about as likely if the face is real as if it is forged.", "even"),
        (0.9, "The scores are about as likely if the face is real as if it is forged.", "even"),
    ],
)
def test_a_likelihood_ratio_as_text(ratio: float, text: str, badge: str) -> None:
    assert evidence_text(ratio) == text
    assert evidence_badge(ratio) == badge


@pytest.mark.parametrize(
    ("evidence", "text"),
    [
        (
            Evidence(supports="forged", strength="moderate", at_bound=True, validation_clips=2106),
            "Moderate support for a forgery",
        ),
        (
            Evidence(supports="real", strength="very_strong", at_bound=False, validation_clips=9),
            "Very strong support for a real face",
        ),
        (
            Evidence(supports="neither", strength="none", at_bound=False, validation_clips=9),
            "No support for either side",
        ),
    ],
)
def test_evidence_in_the_words_of_the_scale(evidence: Evidence, text: str) -> None:
    assert strength_text(evidence) == text
    assert bound_text(evidence) == (
        "That is the most that 2,106 validation clips support." if evidence.at_bound else ""
    )


def test_limits_as_text() -> None:
    limits = [Limit(code=LimitCode.PARTLY_READ, track=None)]
    limits += [Limit(code=code, track=3) for code in (LimitCode.FEW_FRAMES, LimitCode.SMALL_FACE)]
    assert limits_text(limits) == "Only a part of the video could be read; track 3: seen in few frames, a small face."
    assert limits_text([]) == ""
    many = [Limit(code=LimitCode.SMALL_FACE, track=track) for track in range(40)]
    assert limits_text(many).endswith("track 3: a small face; and 36 more people.")
    assert all(limits_text([Limit(code=code, track=None)]) for code in LimitCode)
    assert limits_text([Limit(code="of_a_later_version", track=None)]) == "Of a later version."


def test_the_rationale_is_made_of_facts() -> None:
    person = Person(track=2, probability=0.98, frames=61, first_s=0.0, last_s=30.0)
    found = record(probability=0.98, people=[person])
    thresholds = AppliedThresholds(real=0.33, fake=0.97, fpr=0.01)
    assert rationale(found, thresholds) == (
        "Track 2, scored in 61 frames from 0.00 s to 30.00 s, has 0.98; fake is called from 0.97, real below 0.33."
    )
    assert rationale(found, None) == "Track 2, scored in 61 frames from 0.00 s to 30.00 s, has 0.98."


@given(st.floats(1, 1e6))
def test_a_ratio_and_its_inverse_are_as_many_times(ratio: float) -> None:
    assert float(times_text(ratio).replace(",", "")) == pytest.approx(ratio, rel=0.06)
    assert float(times_text(1 / ratio).replace(",", "")) == pytest.approx(ratio, rel=0.06)
