"""A map of what a score depends on, by hiding parts of the crop: needs scores alone, so it works for every network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from pipeline.explain.areas import marked, softened, windows
from pipeline.types import Floats

# Log-odds of fake of a crop with parts hidden: masks float32 [N, S, S] in 0..1, 1 is hidden -> float32 [N].
Hide = Callable[[Floats], Floats]

# Share of the crop that is marked: about that of both eyes, or of a mouth with its surroundings.
SHARE: Final = 0.15
# Side of a window in parts of the crop's, about that of an eye or a mouth, and windows along each side: they overlap by
# a third.
_WINDOW, _PLACES = 0.22, 7
# Each round hides the most important third of the share, and looks again at what is left.
_ROUNDS: Final = 3


def occlusion_map(hide: Hide, size_px: int, log_odds: float, *, fake: bool) -> Floats:
    """How much each part of a crop carries its score, by rank: the higher, the earlier it is to be hidden.

    Windows slide over the crop, as in Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks" (ECCV
    2014, section 4.2): the score's change by a hidden window counts for the pixels in it. What matters jointly shows in
    no single window: where either of two eyes is enough, hiding one changes nothing. So the most important part is
    hidden, and the windows slide over what is left, as in a deletion curve (Petsiuk et al., "RISE", BMVC 2018, section
    4.3), but one that looks again after each step.

    Args:
        hide: scores the crop with parts hidden.
        size_px: side of the crop, S.
        log_odds: of the whole crop.
        fake: whether the score says fake: then parts count whose hiding lowers the log-odds, else those that raise it.

    Returns:
        float32 [S, S] in 0..1: the pixels of a round are above those of all later ones.
    """
    shapes = windows(_WINDOW, _PLACES, size_px)
    weight = shapes.sum(axis=0) + 1e-6
    hidden = np.zeros((size_px, size_px), np.float32)
    free = np.ones((size_px, size_px), np.bool_)
    rank = np.zeros((size_px, size_px), np.float32)
    sign = 1.0 if fake else -1.0
    for number in range(_ROUNDS):
        changes = sign * (log_odds - hide(np.maximum(shapes, hidden)))
        mean = np.tensordot(changes.astype(np.float32), shapes, axes=1) / weight
        step = np.where(free, _stretched(mean), -1.0).astype(np.float32)
        rank[free] = step[free]
        taken = marked(step, SHARE / _ROUNDS)
        rank[taken] += _ROUNDS - number
        free &= ~taken
        hidden = softened(~free[None])[0]
    return rank / np.float32(_ROUNDS + 1)


def _stretched(values: Floats) -> Floats:
    """To 0..1."""
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else np.zeros_like(values)
