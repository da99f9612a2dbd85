"""Two records of one clip are compared field by field."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.contracts import Outcome, Person, ScoredFace
from pipeline.results.replay import VARYING, difference
from tests.pipeline.records import record

PERSON = Person(track=0, probability=0.93, frames=20, first_s=0.0, last_s=9.5)
FACE = ScoredFace(t_s=0.5, index=15, track=0, box=(1.0, 2.0, 3.0, 4.0), probability=0.91, quality=0.8)
FULL = record(people=[PERSON], frames=[FACE], not_judged={"tiny": 2})


def test_only_the_time_that_it_took_may_differ() -> None:
    assert frozenset({"elapsed_s"}) == VARYING
    assert difference(FULL, FULL.model_copy(update={"elapsed_s": 99.0})) is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"source": "other.mp4"}, "source: 'clip.mp4' before, 'other.mp4' now"),
        ({"people": []}, "people: 1 before, 0 now"),
        ({"frames": [FACE.model_copy(update={"box": (1.0, 2.0, 3.0, 5.0)})]}, "frames[0].box[3]: 4.0 before, 5.0 now"),
        ({"frames": [FACE, FACE]}, "frames: 1 before, 2 now"),
        ({"not_judged": {"tiny": 2, "dark": 1}}, "not_judged.dark: None before, 1 now"),
        ({"not_judged": {}}, "not_judged.tiny: 2 before, None now"),
        ({"software": "unmask 9"}, "provenance.software: 'unmask 0.1.0' before, 'unmask 9' now"),
        ({"probability": 0.7500000000000001}, "probability: 0.75 before, 0.7500000000000001 now"),
    ],
)
def test_the_first_difference_is_named(changes: dict[str, Any], expected: str) -> None:
    fields: dict[str, Any] = {"id": FULL.id, "people": [PERSON], "frames": [FACE], "not_judged": {"tiny": 2}}
    assert difference(FULL, record(**(fields | changes))) == expected


def test_an_outcome_is_a_difference() -> None:
    assert difference(FULL, record(outcome=Outcome.NO_FACE)) == "outcome: 'scored' before, 'no_face' now"
