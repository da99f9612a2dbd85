"""Shadow mode: new weights score the same live crops as those in use, before they give any verdict."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np

from models.checkpoint_info import Calibration
from pipeline.scoring.backends import Backend
from pipeline.scoring.engine import Engine, ScoringError
from pipeline.scoring.group import EngineGroup
from pipeline.types import Floats, Image
from pipeline.verdict.calibration import probability

# Two batches of the CPU's largest shape, one of the next and a single crop: each shape is run once.
WARM_UP_CROPS: Final = 11
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


def score(backend: Backend, pixels: Image) -> Floats:
    """Score crops on a backend that is not in use yet, one batch after the other.

    Args:
        pixels: uint8 [N, S, S, 3].

    Returns:
        Float32 [N], log-odds of fake, all finite.

    Raises:
        ScoringError: the backend fails, or returns invalid scores.
    """
    scores = np.zeros(len(pixels), np.float32)
    start = 0
    while start < len(pixels):
        end = start + max(1, backend.fit(min(backend.max_batch, len(pixels) - start)))
        answer: Future[Floats | Exception] = Future()
        try:
            backend.start(pixels[start:end], answer.set_result)
            found = answer.result(_PATIENCE_S)
        except Exception as error:
            raise ScoringError(f"{backend.name} failed: {error!r}") from error
        if isinstance(found, Exception):
            raise ScoringError(f"{backend.name} failed: {found!r}") from found
        if found.shape != (end - start,) or not bool(np.isfinite(found).all()):
            raise ScoringError(f"{backend.name} gave {found.tolist()} for {end - start} crops")
        scores[start:end] = found
        start = end
    return scores


def warm_up(backend: Backend) -> None:
    """Score a few synthetic crops: this compiles what is compiled at first use, and finds weights that cannot score.

    Raises:
        ScoringError: as `score`.
    """
    size = backend.input_size
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (WARM_UP_CROPS, size, size, 3), np.uint8)
    pixels[0], pixels[1] = 0, 255
    score(backend, pixels)


def compare(
    backend: Backend, calibration: Calibration | None, crops: tuple[Image, Floats], theirs: Calibration | None
) -> Differences | None:
    """Score live crops on new weights, and compare with the weights in use; None without any crops.

    Args:
        backend: of the new weights.
        calibration: of the new weights.
        crops: with their log-odds by the weights in use.
        theirs: calibration of the weights in use.

    Raises:
        ScoringError: as `score`.
    """
    pixels, logits = crops
    if not len(pixels):
        return None
    ours = probability(score(backend, pixels), calibration)
    return Differences.between(ours, probability(logits, theirs))
