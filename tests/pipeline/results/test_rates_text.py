"""Which measured rates are those of clips like a judged one, and what is said of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from models.error_rates import Called, Rates, RateTable
from pipeline.contracts import Label, Outcome, Verdict
from pipeline.results.rates_text import error_rates, face_facts
from tests.pipeline.records import record
from tests.pipeline.results.test_report import scored

TABLE = RateTable(
    weights_sha256="0" * 64,
    model="mine",
    looks="",
    measured_on="2026-11-29",
    datasets={"dfdc": (100, 200)},
    split="val",
    half="report",
    rows_sha256=("ab",),
    whole=Rates(Called(4, 32, 64), Called(100, 60, 40)),
    videos=None,
    quality=(Rates(Called(0, 10, 30), Called(10, 20, 10), low=0.25, high=0.75),),
    face_px=(Rates(Called(1, 1, 8), Called(5, 4, 1), low=64, high=96),),
    degraded=(Rates(Called(0, 5, 5), Called(1, 8, 1), name="h264 crf 35"),),
)


def clip(**changes: object) -> Verdict:
    """A clip whose faces are 80 px wide, with qualities around one half."""
    return scored("clip.mp4", 0.9, Label.FAKE, tracks=2).verdict.model_copy(update=changes)


def test_the_slices_are_those_of_the_deciding_person() -> None:
    facts = face_facts(clip())
    assert facts is not None
    assert (facts.track, facts.faces, facts.width_px) == (0, 20, 80)
    found = error_rates(clip(), [TABLE])
    assert found.rows[1][:2] == ("faces 64 to 96 px wide", "10.0 % (1 of 10; 1.8 to 40.4)")
    assert found.rows[2][:2] == ("quality 0.25 to 0.75", "0.0 % (0 of 40; 0.0 to 8.8)")
    assert found.rows[0][0] == "all 300 crops"
    assert found.rows[3][0] == "sample of 20, h264 crf 35"
    text = " ".join(found.sentences)
    assert "DFDC (100 reals, 200 fakes)" in text
    assert "few crops: its intervals are wide" in text
    assert "several people" in text
    values = found.to_dict()
    assert (values["known"], values["slices"]["face_px"]["reals"]["fake"]) == (True, 1)


def test_the_first_table_of_the_weights_counts() -> None:
    newer = replace(TABLE, measured_on="2027-01-01")
    other = replace(TABLE, weights_sha256="1" * 64)
    assert error_rates(clip(), [other, newer, TABLE]).table is newer


@pytest.mark.parametrize("tables", [[], [replace(TABLE, weights_sha256="1" * 64)]])
def test_unknown_rates_are_said_to_be_unknown(tables: list[RateTable]) -> None:
    found = error_rates(clip(), tables)
    assert (found.table, found.rows) == (None, ())
    assert "are not known" in found.sentences[0]
    assert found.to_dict()["known"] is False


def test_a_clip_without_faces_has_no_slice() -> None:
    found = error_rates(record(outcome=Outcome.NO_FACE), [TABLE])
    assert found.facts is None
    assert [row[0] for row in found.rows] == ["all 300 crops", "sample of 20, h264 crf 35"]
    assert any("no slice" in sentence for sentence in found.sentences)


def test_a_slice_without_crops_is_named() -> None:
    found = error_rates(clip(), [replace(TABLE, quality=())])
    assert any("No measured crop is in this clip's slice by quality" in sentence for sentence in found.sentences)
