"""Which clips share frames, by exact comparison of all their hashes.

A frame is in another clip if it is near a frame there, as it is or mirrored; or if one of them is near the other
without its edges, as in a copy that was cropped; or if their centres are near, as where a logo was put in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.known.pdq import BITS, mirrored
from pipeline.known.prints import ClipPrint, Hashes

# Bits in which the hashes of two frames may differ and still be of the same picture. The default of Meta's vPDQ.
MAX_DISTANCE: Final = 31
# A clip is listed as similar if at least this share of it, or of the other one, is in both: one frame of a title is in
# many clips.
MIN_SHARE: Final = 0.3
# From here on, both ways, a clip is called a copy. A cut or an insert in a fifth of it leaves it one.
COPY_SHARE: Final = 0.8
# Distances are computed for this many pairs of hashes at a time; 40 bytes each.
_PAIRS_AT_ONCE: Final = 1 << 20

Distances = npt.NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Match:
    """What two clips have in common.

    Attributes:
        share: of the frames of the clip that was asked for, those that are in the other clip, 0 to 1.
        other_share: of the frames of the other clip, those that are in this one.
        distance: mean number of bits in which those of `share` differ from the closest frame of the other clip.
    """

    share: float
    other_share: float
    distance: float

    @property
    def is_listed(self) -> bool:
        """Whether they have enough in common to be called similar."""
        return max(self.share, self.other_share) >= MIN_SHARE

    @property
    def is_copy(self) -> bool:
        """Whether each is most of the other: the same frames, encoded again."""
        return min(self.share, self.other_share) >= COPY_SHARE


def compare(one: ClipPrint, other: ClipPrint) -> Match | None:
    """What two clips have in common; None: nothing."""
    if not len(one) or not len(other):
        return None
    both = [closest(ones, others) for ones, others in _pairs(one.words(), other.words())]
    forth, back = (np.minimum.reduce(distances) for distances in zip(*both, strict=True))
    found = forth <= MAX_DISTANCE
    if not found.any():
        return None
    return Match(float(found.mean()), float((back <= MAX_DISTANCE).mean()), float(forth[found].mean()))


def search(wanted: ClipPrint, stored: Iterable[tuple[int, ClipPrint]]) -> dict[int, Match]:
    """The clips that have frames of a clip.

    All pairs of hashes are compared. Memory does not grow with the number of clips.

    Args:
        wanted: the clip.
        stored: number and print of each clip to look in; taken one after the other.

    Returns:
        By number.
    """
    found: dict[int, Match] = {}
    if not len(wanted):
        return found
    most = max(1, _PAIRS_AT_ONCE // len(wanted))
    batch: list[tuple[int, ClipPrint]] = []
    held = 0
    for number, each in stored:
        batch.append((number, each))
        held += len(each)
        if held >= most:
            found |= _search_batch(wanted, batch)
            batch, held = [], 0
    return found | _search_batch(wanted, batch)


def _search_batch(wanted: ClipPrint, batch: list[tuple[int, ClipPrint]]) -> dict[int, Match]:
    batch = [(number, each) for number, each in batch if len(each)]
    if not batch:
        return {}
    words = np.concatenate([each.words() for _, each in batch], axis=1)
    owner = np.repeat(np.arange(len(batch)), [len(each) for _, each in batch])
    near = np.logical_or.reduce([_near(ones, others) for ones, others in _pairs(wanted.words(), words)])
    hit = [batch[i] for i in np.unique(owner[near])]
    matches = {number: compare(wanted, each) for number, each in hit}
    return {number: match for number, match in matches.items() if match is not None}


def _pairs(ones: Hashes, others: Hashes) -> Iterator[tuple[Hashes, Hashes]]:
    """What is compared: uint64 [N, 4] with uint64 [M, 4], of what `ClipPrint.words` gives for two prints."""
    whole, *crops, centre = ones
    other_whole, *other_crops, other_centre = others
    yield whole, other_whole
    yield mirrored(whole), other_whole
    for crop in crops:
        yield crop, other_whole
    for crop in other_crops:
        yield whole, crop
    yield centre, other_centre


def _near(ones: Hashes, others: Hashes) -> npt.NDArray[np.bool_]:
    """bool [M]: which of the others may be near one of the N; all that are, and few that are not.

    Half of the bits are compared. Of these, hashes of different pictures differ in 64, with a standard deviation of
    about 6, so almost all that pass are near in all bits.
    """
    half = ones.shape[1] // 2
    found = np.zeros(len(others), np.bool_)
    columns = [np.ascontiguousarray(others[:, i]) for i in range(half)]
    for one in ones:
        distance = np.bitwise_count(columns[0] ^ one[0])
        for i in range(1, half):
            distance += np.bitwise_count(columns[i] ^ one[i])
        found |= distance <= MAX_DISTANCE
    return found


def closest(ones: Hashes, others: Hashes) -> tuple[Distances, Distances]:
    """Distance of each hash to the closest one of the other side.

    Args:
        ones: uint64 [N, 4], N at least 1.
        others: uint64 [M, 4], M at least 1.

    Returns:
        uint16 [N] and uint16 [M].
    """
    forth = np.full(len(ones), BITS + 1, np.uint16)
    back = np.full(len(others), BITS + 1, np.uint16)
    step = max(1, _PAIRS_AT_ONCE // len(others))
    for start in range(0, len(ones), step):
        differing = np.bitwise_count(ones[start : start + step, None, :] ^ others[None, :, :])
        distances = differing.sum(axis=2, dtype=np.uint16)
        forth[start : start + step] = distances.min(axis=1)
        back = np.minimum(back, distances.min(axis=0))
    return forth, back
