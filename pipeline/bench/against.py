"""A measurement against an earlier one of the same machine: ratios, and whether something became slower."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import UnmaskError
from pipeline.bench.run import Result, sha256_of

# A median of five that is worse by more than this is slower; two runs on one machine differ by a few per cent.
ALLOWED = 0.10
# With the default rounds, a comparison has the median of five.
ROUNDS = 5

# Results are comparable where these are equal.
_SAME = ("clip_sha256", "network", "input_spec", "detector", "backend", "sampling", "workers")
_SHOWN = ("clip", "architecture", "detector", "backend")


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


@dataclass(frozen=True, slots=True)
class Baseline:
    """What `unmask bench --json` wrote.

    Attributes:
        machine: that it was measured on.
        whole_fps: frames a second of each combination.
    """

    machine: str
    whole_fps: dict[tuple[str, ...], float]


def read_baseline(path: Path) -> Baseline:
    """Frames a second of each combination in what `unmask bench --json` wrote.

    Raises:
        BaselineError: it is not such a file.
    """
    try:
        content = json.loads(path.read_bytes())
        results: list[dict[str, Any]] = content["results"]
        found = {tuple(str(each[name]) for name in _SAME): float(each["whole_fps"]) for each in results}
        machine = str(content["machine"])
    except OSError as error:
        raise BaselineError(f"{path}: cannot be read: {error.strerror}") from error
    except KeyError as error:
        raise BaselineError(
            f"{path}: not what this version's `unmask bench --json` writes: no field {error}"
        ) from error
    except (ValueError, TypeError, RecursionError) as error:
        raise BaselineError(f"{path}: not what `unmask bench --json` writes") from error
    if not all(0 < fps < math.inf for fps in found.values()):
        raise BaselineError(f"{path}: not what `unmask bench --json` writes: frames a second must be positive")
    return Baseline(machine, found)


def check_clips(clips: Sequence[Path], baseline: Baseline) -> None:
    """Before anything is measured.

    Raises:
        BaselineError: the baseline has none of these clips.
    """
    known = {key[_SAME.index("clip_sha256")] for key in baseline.whole_fps}
    if not any(sha256_of(clip) in known for clip in clips):
        raise BaselineError("nothing to compare: the baseline measured other clips")


def compare(results: Sequence[Result], baseline: Baseline) -> list[Ratio]:
    """The combinations that both have.

    Raises:
        BaselineError: there are none.
    """
    ratios = []
    for result in results:
        key = tuple(str(getattr(result, name)) for name in _SAME)
        if key in baseline.whole_fps:
            shown = ", ".join(str(getattr(result, name)) for name in _SHOWN)
            ratios.append(Ratio(shown, result.whole_fps, baseline.whole_fps[key]))
    if not ratios:
        raise BaselineError(f"nothing to compare: the baseline measured {_described(baseline) or 'nothing'}")
    return ratios


def _described(baseline: Baseline) -> str:
    return "; ".join(
        ", ".join(f"{name} {value}" for name, value in zip(_SAME, key, strict=True) if name != "clip_sha256")
        for key in baseline.whole_fps
    )
