"""A measurement against an earlier one of the same machine: ratios, and whether something became slower."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import UnmaskError
from pipeline.bench.run import Result

# A median of five that is worse by more than this is slower; two runs on one machine differ by a few per cent.
ALLOWED = 0.10
# With the default rounds, a comparison has the median of five.
ROUNDS = 5

_SAME = ("clip", "architecture", "detector", "backend", "sampling")


class BaselineError(UnmaskError):
    """The baseline cannot be read, or has none of the combinations that were measured."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """One combination now and in the baseline.

    Attributes:
        name: clip, architecture, face detector and backend.
        whole_fps: frames a second of the whole pipeline now.
        baseline_fps: likewise in the baseline.
    """

    name: str
    whole_fps: float
    baseline_fps: float

    @property
    def ratio(self) -> float:
        """Above 1: faster than the baseline."""
        return self.whole_fps / self.baseline_fps

    @property
    def slower(self) -> bool:
        """Whether it is slower by more than what is allowed."""
        return self.ratio < 1 - ALLOWED


def read_baseline(path: Path) -> dict[tuple[str, ...], float]:
    """Frames a second of each combination in what `unmask bench --json` wrote.

    Raises:
        BaselineError: it is not such a file.
    """
    try:
        results: list[dict[str, Any]] = json.loads(path.read_bytes())["results"]
        found = {tuple(str(each[name]) for name in _SAME): float(each["whole_fps"]) for each in results}
    except OSError as error:
        raise BaselineError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BaselineError(f"{path}: not what `unmask bench --json` writes: {error!r}") from error
    if not all(fps > 0 for fps in found.values()):
        raise BaselineError(f"{path}: not what `unmask bench --json` writes: frames a second must be positive")
    return found


def compare(results: Sequence[Result], baseline: dict[tuple[str, ...], float]) -> list[Ratio]:
    """The combinations that both have.

    Raises:
        BaselineError: there are none.
    """
    ratios = []
    for result in results:
        key = tuple(str(getattr(result, name)) for name in _SAME)
        if key in baseline:
            ratios.append(Ratio(", ".join(key[:4]), result.whole_fps, baseline[key]))
    if not ratios:
        measured = "; ".join(", ".join(key[:4]) for key in baseline) or "nothing"
        raise BaselineError(f"nothing to compare: the baseline measured {measured}")
    return ratios
