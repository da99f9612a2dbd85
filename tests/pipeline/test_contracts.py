"""The record, as another program sees it."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.contracts import Label, Outcome, Person, ScoredFace, Verdict, as_text, clip_id_of, is_of_newer_version
from tests.pipeline.records import record

FULL = record(
    people=[Person(track=0, probability=0.93, frames=20, first_s=0.0, last_s=9.5)],
    frames=[ScoredFace(t_s=0.5, index=15, track=0, box=(1.0, 2.0, 3.0, 4.0), probability=0.91, quality=0.8)],
)
# The contract, written out: a code change that alters it must change this too.
KEYS = {
    "schema", "id", "source", "outcome", "probability", "likelihood_ratio", "label", "error", "duration_s",
    "frames_sampled", "frames_scored", "people", "frames", "segments", "coverage", "part", "adapted", "evidence",
    "extent", "limits", "streams", "pixel_aspect", "not_judged", "provenance", "elapsed_s",
}  # fmt: skip
PERSON_KEYS = {"track", "probability", "likelihood_ratio", "frames", "first_s", "last_s", "stream"}
FRAME_KEYS = {"t_s", "index", "track", "box", "probability", "quality", "roll", "stream"}
PROVENANCE_KEYS = {
    "model", "weights_sha256", "input_spec", "detector", "sampling", "decoder", "software", "source_sha256",
    "untrained", "network",
}  # fmt: skip
OUTCOMES = {
    "scored", "no_face", "low_quality", "undecodable", "over_limit", "unavailable", "shed", "model_error"
}  # fmt: skip


def test_a_record_has_exactly_the_fields_of_the_contract() -> None:
    line = json.loads(FULL.to_json())
    assert set(line) == KEYS
    assert set(line["people"][0]) == PERSON_KEYS
    assert set(line["frames"][0]) == FRAME_KEYS
    assert set(line["provenance"]) == PROVENANCE_KEYS
    assert line["schema"] == 1
    assert line["frames"][0]["box"] == [1.0, 2.0, 3.0, 4.0]
    assert "\n" not in FULL.to_json()


def test_the_schema_has_those_fields() -> None:
    schema = Verdict.model_json_schema(by_alias=True, mode="serialization")
    assert set(schema["properties"]) == set(schema["required"]) == KEYS
    defined = schema["$defs"]
    assert set(defined["Outcome"]["enum"]) == OUTCOMES
    assert set(defined["Label"]["enum"]) == {"fake", "real", "inconclusive"}
    for name, keys in (("Person", PERSON_KEYS), ("ScoredFace", FRAME_KEYS), ("Provenance", PROVENANCE_KEYS)):
        assert set(defined[name]["required"]) == keys


def test_a_record_comes_back_as_it_was() -> None:
    assert Verdict.model_validate_json(FULL.to_json()) == FULL


def test_fields_of_later_versions_are_ignored() -> None:
    assert Verdict.model_validate_json(FULL.to_json()[:-1] + ', "mood": "good"}') == FULL


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema", 2),
        ("probability", 1.1),
        ("probability", float("nan")),
        ("likelihood_ratio", 0.0),
        ("likelihood_ratio", float("inf")),
        ("label", "probably"),
        ("outcome", "ok"),
        ("id", "a/b"),
        ("id", ""),
        ("id", "x" * 129),
        ("frames_sampled", -1),
        ("elapsed_s", -0.1),
    ],
)
def test_a_record_that_violates_the_contract_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        Verdict.model_validate(FULL.model_dump(by_alias=True) | {field: value})


# Fields that were added within the version: earlier records lack them.
ADDED = {
    "likelihood_ratio",
    "coverage",
    "part",
    "adapted",
    "segments",
    "streams",
    "pixel_aspect",
    "not_judged",
    "evidence",
    "extent",
    "limits",
}


@pytest.mark.parametrize("missing", sorted(KEYS - {"schema"} - ADDED))
def test_a_record_without_one_of_its_fields_is_refused(missing: str) -> None:
    fields = FULL.model_dump(by_alias=True)
    del fields[missing]
    with pytest.raises(ValidationError, match=missing):
        Verdict.model_validate(fields)


def test_a_record_from_before_likelihood_ratios_is_read() -> None:
    line = json.loads(FULL.to_json())
    del line["likelihood_ratio"], line["people"][0]["likelihood_ratio"]
    old = Verdict.model_validate(line)
    assert old == FULL
    assert old.likelihood_ratio is old.people[0].likelihood_ratio is None


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome is not Outcome.SCORED])
def test_no_other_outcome_has_a_number(outcome: Outcome) -> None:
    assert record(outcome=outcome).probability is None
    with pytest.raises(ValidationError, match="go with 'scored'"):
        record(outcome=outcome, probability=0.5)
    with pytest.raises(ValidationError, match="go with 'scored'"):
        record(outcome=outcome, label=Label.INCONCLUSIVE)
    with pytest.raises(ValidationError, match="likelihood ratio"):
        record(outcome=outcome, likelihood_ratio=3.0)
    with pytest.raises(ValidationError, match="an error goes with"):
        record(outcome=outcome, error=None)


@pytest.mark.parametrize(
    "changes", [{"probability": None}, {"label": None}, {"error": "all is well"}, {"probability": None, "label": None}]
)
def test_scored_has_probability_and_label_and_no_error(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="scored"):
        record(**changes)


def test_the_id_is_the_start_of_the_sources_sha256() -> None:
    assert clip_id_of("a/b.mp4") == hashlib.sha256(b"a/b.mp4").hexdigest()[:32]
    assert clip_id_of(os.fsdecode(b"\xff.mp4")) == hashlib.sha256(b"\xff.mp4").hexdigest()[:32]


@given(st.binary(min_size=1).filter(lambda name: b"\0" not in name))
def test_any_file_name_goes_into_a_record(name: bytes) -> None:
    source = os.fsdecode(name)
    written = record(as_text(source), id=clip_id_of(source))
    assert Verdict.model_validate_json(written.to_json()) == written


@given(st.text())
def test_a_name_that_is_text_stays_as_it_is(name: str) -> None:
    assert as_text(name) == name


@pytest.mark.parametrize(
    ("change", "is_newer"),
    [
        ({"schema": 2}, True), ({"outcome": "of_a_later_version"}, True), ({}, False), ({"schema": 0}, False),
        ({"schema": True, "outcome": "odd"}, False), ({"schema": "2"}, False), ({"outcome": None}, False),
    ],
)  # fmt: skip
def test_a_record_of_a_newer_version_is_recognised(change: dict[str, Any], is_newer: bool) -> None:
    assert is_of_newer_version(json.dumps(json.loads(FULL.to_json()) | change).encode()) is is_newer


@given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
def test_noise_is_not_a_record_of_a_newer_version(data: bytes) -> None:
    assert not is_of_newer_version(data)
