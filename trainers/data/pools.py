"""Rows drawn in random order, and donor faces for targets: pure functions of a seed and a number."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import numpy.typing as npt

from pipeline.types import Floats
from trainers.data.manifest import Manifest

Rows = npt.NDArray[np.int64]


class Pool:
    """Rows drawn in repeated passes, each in another random order.

    With groups, each group has one turn in a pass, whatever its number of rows; its rows take turns over the passes.
    """

    def __init__(self, rows: Rows, groups: Manifest | None, key: tuple[int, ...]) -> None:
        """Prepare.

        Args:
            rows: indices into the manifest.
            groups: the manifest, whose (dataset, group) share turns; None: each row has its own.
            key: the random seed.
        """
        self._key = key
        if groups is None:
            self._turns: list[Rows] | Rows = rows
        else:
            members: dict[tuple[str, str], list[int]] = defaultdict(list)
            for row in rows:
                members[groups.dataset[row], groups.group[row]].append(int(row))
            self._turns = [np.array(of_one, np.int64) for of_one in members.values()]
        self._order: tuple[int, Rows] = (-1, np.zeros(0, np.int64))

    def row(self, nth: int) -> int:
        """The row of the n-th draw."""
        passed, position = divmod(nth, len(self._turns))
        # The last order is cached: draws of one pass follow each other.
        if self._order[0] != passed:
            rng = np.random.default_rng((*self._key, passed))
            self._order = passed, rng.permutation(len(self._turns))
        turn = int(self._order[1][position])
        members = self._turns[turn]
        if isinstance(self._turns, np.ndarray):
            return int(members)
        cycle, within = divmod(passed, len(members))
        # Five numbers, one more than above: never the same stream.
        order = np.random.default_rng((*self._key, turn, cycle)).permutation(len(members))
        return int(members[order[within]])


def shapes(manifest: Manifest) -> Floats:
    """Pose and proportions of each face, float32 [N, 10]: landmarks without position and size; unknown ones are 0."""
    points = manifest.landmarks - manifest.landmarks.mean(axis=1, keepdims=True)
    size = np.sqrt((points**2).mean(axis=(1, 2), keepdims=True))
    return np.asarray(np.nan_to_num(points / np.maximum(size, 1e-6)).reshape(len(manifest), 10), np.float32)


def nearest_donor(
    manifest: Manifest, reals: Rows, row: int, shape: Floats, count: int, rng: np.random.Generator
) -> int:
    """The row of another person whose face has the most similar view.

    Args:
        manifest: of all rows.
        reals: rows to choose from, in ascending order.
        row: whose face is to be replaced.
        shape: as `shapes` gives it.
        count: how many random faces are compared.
        rng: source of randomness.

    Returns:
        The row of another group with the nearest shape, from the same dataset if it has another group.

    Raises:
        ValueError: all reals are of one group.
    """
    drawn = reals[rng.integers(len(reals), size=_TRIES * count)]
    same_dataset = manifest.dataset[drawn] == manifest.dataset[row]
    other = ~same_dataset | (manifest.group[drawn] != manifest.group[row])
    candidates = drawn[same_dataset & other][:count]
    if not len(candidates):
        # A small dataset missed by the random draw, or one with a single group.
        same_dataset = manifest.dataset[reals] == manifest.dataset[row]
        other = ~same_dataset | (manifest.group[reals] != manifest.group[row])
        whole = reals[same_dataset & other] if (same_dataset & other).any() else reals[other]
        if not len(whole):
            raise ValueError("all reals are of one group: there is no other person")
        candidates = whole[rng.integers(len(whole), size=count)]
    distances = np.square(shape[candidates] - shape[row]).sum(axis=1)
    return int(candidates[int(distances.argmin())])


# This many times more rows are drawn than compared: the others are from other datasets.
_TRIES = 8
