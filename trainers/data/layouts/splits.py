"""Who goes into which split: by the lists that a set comes with, else by a hash of the identity."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

TRAIN, VAL, TEST = "train", "val", "test"
# An identity that an official list has in several splits belongs to the one that must be kept cleanest.
_CLEANEST = (TEST, VAL, TRAIN)


@dataclass(frozen=True, slots=True)
class Shares:
    """Parts of the identities that go into the validation and test splits of a set without its own; the rest trains."""

    val: float = 0.15
    test: float = 0.15

    def __post_init__(self) -> None:
        if min(self.val, self.test) < 0 or self.val + self.test >= 1:
            raise ValueError(f"shares must not be negative and leave some for training, got {self.val}, {self.test}")

    def split_of(self, identity: str, *, with_test: bool = True) -> str:
        """The split of an identity: the same on every machine, whoever else is in the set."""
        digest = hashlib.sha256(f"split:{identity}".encode()).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        if place < self.val:
            return VAL
        return TEST if with_test and place < self.val + self.test else TRAIN


@dataclass(frozen=True, slots=True)
class Claim:
    """What is known of one video.

    Attributes:
        identities: all that are seen in it: a fake belongs to the one it shows and to the one it was made from.
        official: the split that the set's own lists give it; None if they are silent.
    """

    identities: tuple[str, ...]
    official: str | None = None


def place(claims: Sequence[Claim], shares: Shares, *, with_test: bool = True) -> list[str | None]:
    """Split videos so that no identity stands in two splits.

    Each identity gets one split: that of the official lists if they name a video of it (test before validation before
    training), else by its hash. A video goes where all its identities are; but a test split that is listed stays as it
    is listed.

    Args:
        claims: one a video.
        shares: for the identities that no list names.
        with_test: whether some of those may go into the test split; not where the set has one of its own.

    Returns:
        for each video its split, or None if it must be left out: it ties identities of two splits together, or stands
        on another list than they do, or on none while they are test identities.
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
        edges: nodes that belong together, two or more or one alone.

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
