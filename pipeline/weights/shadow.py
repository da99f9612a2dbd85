"""Shadow mode: new weights score the same live crops as those in use, before they give any verdict."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np

from models.checkpoint_info import Calibration
from pipeline.scoring.engine import Engine, ScoringError
from pipeline.scoring.group import EngineGroup
from pipeline.types import Floats, Image
from pipeline.verdict.calibration import probability

# A network that takes this long for a few crops is unusable.
_PATIENCE_S: Final = 60.0


class LiveCrops:
    """The next crops that an engine scores, up to a number, with its log-odds. Thread-safe."""

    def __init__(self, count: int) -> None:
        """Collects `count` crops at most."""
        self._count = count
        self._lock = threading.Lock()
        self._pixels: list[Image] = []
        self._logits: list[float] = []
        self.full = threading.Event()

    @contextmanager
    def of(self, engine: Engine | EngineGroup) -> Iterator[None]:
        """Collect crops of this engine within the block."""
        if self._count:
            engine.tap(self._heard)
        try:
            yield
        finally:
            engine.tap(None)

    def taken(self) -> tuple[Image, Floats]:
        """Uint8 [N, S, S, 3] and float32 [N]; N is 0 if nothing was scored."""
        with self._lock:
            pixels = np.stack(self._pixels) if self._pixels else np.zeros((0, 0, 0, 3), np.uint8)
            return pixels, np.array(self._logits, np.float32)

    def _heard(self, pixels: Image, logit: float) -> None:
        with self._lock:
            if len(self._pixels) < self._count:
                # A crop is a view of all crops of its frame: kept without a copy, it would keep them all.
                self._pixels.append(pixels.copy())
                self._logits.append(logit)
            if len(self._pixels) == self._count:
                self.full.set()


@dataclass(frozen=True, slots=True)
class Differences:
    """Differences of P(fake) between two detectors on the same crops."""

    crops: int
    mean: float
    p95: float
    max: float

    @classmethod
    def between(cls, ours: Floats, theirs: Floats) -> Differences:
        """Of probabilities, float32 [N] each, N at least 1."""
        apart = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
        return cls(len(apart), float(apart.mean()), float(np.quantile(apart, 0.95)), float(apart.max()))


def compare(
    engine: Engine, calibration: Calibration | None, crops: tuple[Image, Floats], theirs: Calibration | None
) -> Differences | None:
    """Score live crops on new weights, and compare with the weights in use; None without any crops.

    Args:
        engine: of the new weights.
        calibration: of the new weights.
        crops: with their log-odds by the weights in use.
        theirs: calibration of the weights in use.

    Raises:
        ScoringError: the new weights fail on a crop, or give scores that are not finite.
    """
    pixels, logits = crops
    if not len(pixels):
        return None
    try:
        found = engine.submit(pixels).result(_PATIENCE_S)
    except TimeoutError as error:
        raise ScoringError(f"{engine.name} gave no scores for {len(pixels)} crops in {_PATIENCE_S:g} s") from error
    ours = probability(found, calibration)
    return Differences.between(ours, probability(logits, theirs))
