"""InputSpec: equal inputs have equal hashes, and a spec survives a JSON round trip."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.spec import BoxMargin, InputSpec, Interpolation, LandmarkTemplate

shares = st.floats(0.05, 1.0)
channels = st.tuples(*[st.floats(0.01, 1.0)] * 3)
geometries = st.one_of(st.builds(BoxMargin, st.floats(-0.4, 2.0)), st.builds(LandmarkTemplate, shares, shares, shares))
specs = st.builds(
    InputSpec,
    size=st.integers(16, 1024),
    mean=channels,
    std=channels,
    geometry=geometries,
    interpolation=st.sampled_from(get_args(Interpolation)),
)


@given(specs)
def test_round_trip_through_json_keeps_spec_and_hash(spec: InputSpec) -> None:
    restored = InputSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert restored == spec
    assert restored.hash == spec.hash


@given(specs, specs)
def test_hashes_are_equal_only_for_equal_specs(one: InputSpec, other: InputSpec) -> None:
    assert (one.hash == other.hash) == (one == other)


@pytest.mark.parametrize(
    "change",
    [
        {"size": 225},
        {"mean": (0.5, 0.456, 0.406)},
        {"std": (0.229, 0.224, 0.3)},
        {"geometry": BoxMargin()},
        {"geometry": LandmarkTemplate(eyes_y=0.29)},
        {"interpolation": "bicubic"},
    ],
)
def test_the_hash_depends_on_every_field(change: dict[str, object]) -> None:
    spec = InputSpec(size=224)
    assert replace(spec, **change).hash != spec.hash  # type: ignore[arg-type]


def test_hash_is_frozen() -> None:
    """Existing checkpoints store it: a change of the canonical form would refuse them all."""
    assert InputSpec(size=224).hash == "87108ec158b431c8"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 8}, "at least 16 px"),
        ({"std": [0.1, 0.0, 0.1]}, "std must be positive"),
        ({"geometry": {"kind": "hexagon"}}, "available: box_margin, landmark_template"),
        ({"geometry": {"kind": "box_margin", "margin": 3.0}}, "margin must be in"),
        ({"geometry": {"kind": "box_margin", "padding": 0.1}}, "not an input spec"),
        ({"geometry": None}, "not an input spec"),
        ({"depth": 3}, "not an input spec"),
    ],
)
def test_wrong_fields_are_refused_with_a_reason(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InputSpec.from_dict(InputSpec(size=224).to_dict() | change)


def test_a_missing_field_is_refused() -> None:
    values = InputSpec(size=224).to_dict()
    del values["size"]
    with pytest.raises(ValueError, match="size"):
        InputSpec.from_dict(values)
