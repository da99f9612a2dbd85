"""How fast a run goes, and whether the device waits for its images."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from torch import Tensor

from trainers.config import TrainConfig

_LOG_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the log, as text and as numbers."""

    text: str
    values: dict[str, Any]


class Meter:
    """Training speed, and the share of time that the device waits for images."""

    def __init__(self, step: int, config: TrainConfig, trained_s: float) -> None:
        self.config = config
        self._trained_before_s = trained_s
        self._busy_since = self._stepped_at = time.perf_counter()
        self._busy_s = 0.0
        self._restart(step)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time in this block as waiting for images."""
        start = time.perf_counter()
        yield
        self._wait_s += time.perf_counter() - start

    @property
    def trained_s(self) -> float:
        """Total seconds of training, without validation and checkpoints."""
        return self._trained_before_s + self._busy_s + self._stepped_at - self._busy_since

    def pause(self) -> None:
        """Exclude the time spent elsewhere since the last step."""
        self._busy_s += self._stepped_at - self._busy_since
        self._busy_since = self._stepped_at = time.perf_counter()
        self._restart(self._step)

    def line(self, step: int, losses: dict[str, Tensor]) -> Line | None:
        """A line of the log at intervals, else None."""
        self._step = step
        now = self._stepped_at = time.perf_counter()
        elapsed = now - self._since
        if elapsed < _LOG_EVERY_S and step < self.config.total_steps:
            return None
        per_step = self.config.samples_per_step
        rate = (step - self._from_step) * per_step / elapsed
        left_s = (self.config.total_steps - step) * per_step / rate
        values: dict[str, Any] = {
            "step": step,
            "samples": step * per_step,
            **{name: round(float(value), 5) for name, value in losses.items()},
            "images_per_s": round(rate, 1),
            "wait_share": round(self._wait_s / elapsed, 3),
            "trained_s": round(self.trained_s, 1),
        }
        text = (
            f"step {step}/{self.config.total_steps}  loss {values['loss']:.3f}  {rate:.1f} img/s  "
            f"waits {values['wait_share']:.0%}  ETA {timedelta(seconds=int(left_s))}"
        )
        self._restart(step)
        return Line(text, values)

    def _restart(self, step: int) -> None:
        self._step = self._from_step = step
        self._since = time.perf_counter()
        self._wait_s = 0.0
