"""The order of the classes, from real faces to the output of forgery software."""

from __future__ import annotations

from trainers.augment.pseudo_fakes import KINDS

# Values of `kind` in a batch. Each class is further from a real face than the one before: a blend of real pixels, an
# image that passed through a decoder, and the output of real forgery software.
REAL_FACE, BLENDED, RERENDERED, REAL_FAKE = range(4)
UNKNOWN_KIND = -1

_RERENDERING = frozenset({"rerender"})


def kind_of_fake(pair_kind: str) -> int:
    """The class of the fakes in pairs of a kind: pseudo-fakes by name; the others come from a dataset."""
    if pair_kind not in KINDS:
        return REAL_FAKE
    return RERENDERED if pair_kind in _RERENDERING else BLENDED
