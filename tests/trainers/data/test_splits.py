"""No identity is in two splits."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.data.layouts.splits import Claim, Shares, connected, place

NAMES = st.sampled_from([f"id{n}" for n in range(12)])
CLAIMS = st.lists(
    st.builds(
        Claim,
        st.lists(NAMES, min_size=1, max_size=2, unique=True).map(tuple),
        st.sampled_from([None, None, "train", "val", "test"]),
    ),
    max_size=30,
)


@settings(deadline=None)
@given(claims=CLAIMS, with_test=st.booleans())
def test_no_identity_is_in_two_splits(claims: list[Claim], with_test: bool) -> None:
    homes: dict[str, set[str]] = {}
    for claim, split in zip(claims, place(claims, Shares(), with_test=with_test), strict=True):
        for identity in claim.identities if split else ():
            homes.setdefault(identity, set()).add(split)
    assert all(len(splits) == 1 for splits in homes.values())


@settings(deadline=None)
@given(claims=CLAIMS)
def test_official_test_videos_stay_where_they_are(claims: list[Claim]) -> None:
    for claim, split in zip(claims, place(claims, Shares()), strict=True):
        if claim.official == "test":
            assert split == "test"
        elif claim.official is not None:
            assert split in (claim.official, None)


@settings(deadline=None)
@given(claims=CLAIMS)
def test_a_listed_test_split_is_not_added_to(claims: list[Claim]) -> None:
    tested = {identity for claim in claims if claim.official == "test" for identity in claim.identities}
    for claim, split in zip(claims, place(claims, Shares()), strict=True):
        if claim.official is None and tested & set(claim.identities):
            assert split is None


@settings(deadline=None)
@given(names=st.sets(st.text(min_size=1), min_size=1, max_size=20), more=st.sets(st.text(min_size=1), max_size=20))
def test_a_split_does_not_depend_on_other_identities(names: set[str], more: set[str]) -> None:
    alone = {name: place([Claim((name,))], Shares())[0] for name in names}
    together = sorted(names | more)
    placed = dict(zip(together, place([Claim((name,)) for name in together], Shares()), strict=True))
    assert alone == {name: placed[name] for name in names}


def test_shares_are_kept() -> None:
    splits = [Shares(val=0.2, test=0.1).split_of(f"person {n}") for n in range(4000)]
    assert splits.count("val") == pytest.approx(800, abs=100)
    assert splits.count("test") == pytest.approx(400, abs=80)
    assert {Shares().split_of(f"person {n}", with_test=False) for n in range(200)} == {"train", "val"}


@pytest.mark.parametrize(("val", "test"), [(-0.1, 0.1), (0.5, 0.5), (0.9, 0.2)])
def test_shares_must_leave_training_data(val: float, test: float) -> None:
    with pytest.raises(ValueError, match="leave some for training"):
        Shares(val, test)


@settings(deadline=None)
@given(st.lists(st.lists(NAMES, min_size=1, max_size=3), max_size=15))
def test_components_are_closed(edges: list[list[str]]) -> None:
    components = connected(edges)
    assert set(components) == {node for edge in edges for node in edge}
    for edge in edges:
        assert len({components[node] for node in edge}) == 1
    for node, members in components.items():
        assert node in members
        assert all(components[member] == members for member in members)


def test_components_do_not_merge() -> None:
    assert connected([("a", "b"), ("c", "d"), ("b", "e"), ("f",)]) == {
        **dict.fromkeys("abe", ("a", "b", "e")),
        **dict.fromkeys("cd", ("c", "d")),
        "f": ("f",),
    }
