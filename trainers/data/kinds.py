"""The order of the classes, from what a real face is to what forgery software makes of it."""

from __future__ import annotations

from trainers.augment.pseudo_fakes import KINDS

# Values of `kind` in a batch. Each class is further from a real face than the one before: a blend of real pixels, an
# image that went through a decoder, and the work of real forgery software.
REAL_FACE, BLENDED, RERENDERED, REAL_FAKE = range(4)
UNKNOWN_KIND = -1

_RERENDERING = frozenset({"rerender"})


def kind_of_fake(couple_kind: str) -> int:
    """The class of the fakes in couples of a kind: pseudo-fakes by their name, the others come from a dataset."""
    if couple_kind not in KINDS:
        return REAL_FAKE
    return RERENDERED if couple_kind in _RERENDERING else BLENDED
