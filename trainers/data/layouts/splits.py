"""Splits: by the lists of a set, else by a hash of the identity."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

TRAIN, VAL, TEST = "train", "val", "test"
# An identity in several official splits belongs to the one that must stay cleanest.
_CLEANEST = (TEST, VAL, TRAIN)


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of the identities for validation and test in a set without official splits; the rest is for training."""

    val: float = 0.15
    test: float = 0.15

    def __post_init__(self) -> None:
        if not (self.val >= 0 and self.test >= 0 and self.val + self.test < 1):  # nan is not, either
            raise ValueError(f"shares must not be negative and leave some for training, got {self.val}, {self.test}")

    def split_of(self, identity: str, *, with_test: bool = True) -> str:
        """The split of an identity: the same on every machine, independent of the other identities."""
        digest = hashlib.sha256(f"split:{identity}".encode()).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        if place < self.val:
            return VAL
        return TEST if with_test and place < self.val + self.test else TRAIN


@dataclass(frozen=True, slots=True)
class Claim:
    """Known facts about one video.

    Attributes:
        identities: all identities in it: a fake belongs to the one it shows and the one it was made from.
        official: its split in the set's own lists; None if it is in none.
    """

    identities: tuple[str, ...]
    official: str | None = None


def place(claims: Sequence[Claim], shares: Shares, *, with_test: bool = True) -> list[str | None]:
    """Split videos so that no identity is in two splits.

    Each identity gets one split: the official one if the lists name a video of it (test before validation before
    training), else by its hash. A video goes to the split of all its identities; but a listed test split stays as it
    is listed.

    Args:
        claims: one per video.
        shares: for the identities that no list names.
        with_test: whether some of those may go into the test split; False if the set has its own.

    Returns:
        for each video its split, or None if it must be left out: it connects identities of two splits, or is
        in another list than they are, or in none while they are test identities.
    """
    official: dict[str, set[str]] = {}
    for claim in claims:
        if claim.official is not None:
            for identity in claim.identities:
                official.setdefault(identity, set()).add(claim.official)
    home = {
        identity: min(splits, key=lambda split: _CLEANEST.index(split) if split in _CLEANEST else len(_CLEANEST))
        for identity, splits in official.items()
    }

    def split_of(claim: Claim) -> str | None:
        if claim.official is None and any(home.get(identity) == TEST for identity in claim.identities):
            return None
        homes = {home.get(i) or shares.split_of(i, with_test=with_test) for i in claim.identities}
        if claim.official is not None:
            homes.add(claim.official)
        return homes.pop() if len(homes) == 1 else None

    return [split_of(claim) for claim in claims]


def connected(edges: Iterable[Sequence[str]]) -> Mapping[str, tuple[str, ...]]:
    """Connected components of a graph.

    Args:
        edges: nodes that belong together, one or more.

    Returns:
        for each node all members of its component, sorted.
    """
    parent: dict[str, str] = {}

    def top(node: str) -> str:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for edge in edges:
        for node in edge:
            parent[top(node)] = top(edge[0])
    members: dict[str, list[str]] = {}
    for node in sorted(parent):
        members.setdefault(top(node), []).append(node)
    return {node: tuple(component) for component in members.values() for node in component}
