"""Why a face is not judged: the reasons, their counts over a clip, and their text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from enum import IntEnum

import numpy as np

from pipeline.types import Ints

# A face that is smaller (square root of its box's area) is not judged. At a detector's input of 160 px or more it would
# be mostly interpolated, and compression in blocks of 8 px leaves no trace of a forgery.
SMALLEST_FACE_PX = 32.0


class Flaw(IntEnum):
    """What keeps a face from being judged: the first of these that applies. Numbers are stored; never reuse one."""

    NONE = 0
    TINY = 1
    CUT_OFF = 2
    TURNED = 3
    UNCLEAR = 4
    DARK = 5
    COVERED = 6


_WORDS: Mapping[str, str] = {
    "tiny": f"too small (below {SMALLEST_FACE_PX:g} px)",
    "cut_off": "cut off by the edge of the picture",
    "turned": "turned away",
    "unclear": "too blurred, compressed or noisy",
    "dark": "too dark",
    "covered": "covered by something",
}


_NUMBERS = frozenset(Flaw)


def flaw_counts(flaws: Ints) -> Counter[str]:
    """How many faces have each flaw, by its name in the record; those without one are not counted.

    Args:
        flaws: int64 [N], values of `Flaw`.
    """
    numbers, counts = np.unique(flaws[flaws != Flaw.NONE], return_counts=True)
    pairs = zip(numbers.tolist(), counts.tolist(), strict=True)
    return Counter({_name(number): count for number, count in pairs})


def _name(number: int) -> str:
    # A worker of a later version may report a flaw that this one has no name for.
    return Flaw(number).name.lower() if number in _NUMBERS else "other"


def flaws_text(not_judged: Mapping[str, int]) -> str:
    """The counts as text, the most frequent first: "7 too small (below 32 px), 3 turned away".

    A name that this version does not know is printed as it is.
    """
    ordered = sorted(not_judged.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {_WORDS.get(name, name.replace('_', ' '))}" for name, count in ordered if count)
