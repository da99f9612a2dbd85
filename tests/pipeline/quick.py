"""A network that takes no time, for tests of the code around it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from models.spec import InputSpec
from pipeline.scoring.backends import Done
from pipeline.types import Floats, Image

SPEC = InputSpec(size=64)


class QuickNetwork:
    """Gives every crop the same log-odds."""

    name = "quick"
    input_size = SPEC.size
    max_batch = 4
    shapes = (4,)
    concurrency = 1

    def __init__(self) -> None:
        self.log_odds: Callable[[Image], Floats] = lambda pixels: np.full(len(pixels), 2.0, np.float32)

    def fit(self, waiting: int) -> int:
        return waiting

    def start(self, pixels: Image, done: Done) -> None:
        done(self.log_odds(pixels))

    def close(self) -> None:
        """Nothing to free."""
