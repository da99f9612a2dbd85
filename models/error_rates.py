"""Measured error rates of weights: how often reals and fakes of a test set got each label, in all and by slice."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from models.errors import UnmaskError

SCHEMA: Final = 1
# The normal distribution's quantile at 97.5 %.
NORMAL_95: Final = 1.959964
_LABELS: Final = ("fake", "inconclusive", "real")
_MAX_BYTES: Final = 4 << 20
# What reading values of another type than expected raises.
_MALFORMED: Final = (AttributeError, KeyError, TypeError, ValueError, RecursionError)


class RatesError(UnmaskError):
    """A file of error rates, or an evaluation to make one from, is not one."""


def wilson(count: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, J. Am. Stat. Assoc. 22, 1927).

    A bootstrap would give no interval to a share of 0, which is the goal for reals.

    Args:
        count: of the items with the property.
        total: at least 1.
    """
    value, square = count / total, NORMAL_95**2
    centre = (value + square / (2 * total)) / (1 + square / total)
    half = NORMAL_95 * math.sqrt(value * (1 - value) / total + square / (4 * total**2)) / (1 + square / total)
    # Rounding must not put the end of the interval of 0, or of 1, on its wrong side.
    low = 0.0 if count == 0 else max(0.0, centre - half)
    high = 1.0 if count == total else min(1.0, centre + half)
    return low, high


@dataclass(frozen=True, slots=True)
class Called:
    """How many items of one class got each label."""

    fake: int
    inconclusive: int
    real: int

    def __post_init__(self) -> None:
        for name in _LABELS:
            count = getattr(self, name)
            if isinstance(count, bool) or not isinstance(count, int) or count < 0:
                raise ValueError(f"{name}: expected a count, got {count!r}")

    @property
    def total(self) -> int:
        """All of them."""
        return self.fake + self.inconclusive + self.real

    def __add__(self, other: Called) -> Called:
        return Called(self.fake + other.fake, self.inconclusive + other.inconclusive, self.real + other.real)

    def to_dict(self) -> dict[str, Any]:
        """Counts, and for each label the share with its interval; null without items."""
        shares = None
        if total := self.total:
            shares = {
                name: {
                    "share": round(getattr(self, name) / total, 6),
                    "interval_95": [round(end, 6) for end in wilson(getattr(self, name), total)],
                }
                for name in _LABELS
            }
        return {"total": total, **{name: getattr(self, name) for name in _LABELS}, "shares": shares}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Called:
        """From the counts; shares are computed again."""
        return cls(*(values[name] for name in _LABELS))


@dataclass(frozen=True, slots=True)
class Rates:
    """The labels of reals and of fakes.

    Attributes:
        name: of what was done to the items, such as "h264 crf 35"; empty for slices.
        low: smallest value of a slice; None: it has no range.
        high: its end, excluded unless it is the largest possible value; None: without an end.
    """

    reals: Called
    fakes: Called
    name: str = ""
    low: float | None = None
    high: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        place = {"name": self.name} if self.name else {"low": self.low, "high": self.high}
        return {**place, "reals": self.reals.to_dict(), "fakes": self.fakes.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Rates:
        """From `to_dict`, or from a part of an evaluation."""
        low, high = (None if values.get(end) is None else float(values[end]) for end in ("low", "high"))
        reals, fakes = (Called.from_dict(values[name]) for name in ("reals", "fakes"))
        return cls(reals, fakes, str(values.get("name", "")), low, high)

    def __add__(self, other: Rates) -> Rates:
        return Rates(self.reals + other.reals, self.fakes + other.fakes, self.name, self.low, self.high)


@dataclass(frozen=True, slots=True)
class RateTable:
    """Measured rates of weights, over single face crops that are each judged by themselves.

    Attributes:
        weights_sha256: of the checkpoint; of an ensemble joined by +.
        model: name of the weights.
        looks: further looks at each face; empty: the plain one.
        measured_on: day, "2026-11-29".
        datasets: reals and fakes of each data set, by its name.
        split: of the data; None: all rows.
        half: of the split; None: both.
        rows_sha256: of the rows, one for each set.
        whole: over all crops.
        videos: over the videos that the crops are from; None where frames of one video have different labels.
        quality: slices by the quality of the crop, in 0..1.
        face_px: slices by the width of the face's box in px of its frame.
        degraded: a sample of the crops, degraded in one way each.
    """

    weights_sha256: str
    model: str
    looks: str
    measured_on: str
    datasets: Mapping[str, tuple[int, int]]
    split: str | None
    half: str | None
    rows_sha256: tuple[str, ...]
    whole: Rates
    videos: Rates | None
    quality: tuple[Rates, ...]
    face_px: tuple[Rates, ...]
    degraded: tuple[Rates, ...]

    @classmethod
    def of_evaluation(cls, report: Mapping[str, Any]) -> RateTable:
        """From what `unmask evaluate --json` wrote; sets of clips are left out.

        Raises:
            RatesError: it is not such a report, has no crops, or the weights have no thresholds.
        """
        try:
            return _of_evaluation(report)
        except _MALFORMED as error:
            raise RatesError(f"not an evaluation by `unmask evaluate --json`: {error!r}") from error

    def to_json(self) -> bytes:
        """The file."""
        values = {
            "unmask_rates": SCHEMA,
            "weights_sha256": self.weights_sha256,
            "model": self.model,
            "looks": self.looks,
            "measured_on": self.measured_on,
            "of": "single face crops, each judged by itself at the thresholds for one person",
            "datasets": {name: {"reals": n[0], "fakes": n[1]} for name, n in self.datasets.items()},
            "split": self.split,
            "half": self.half,
            "rows_sha256": list(self.rows_sha256),
            "whole": self.whole.to_dict(),
            "videos": None if self.videos is None else self.videos.to_dict(),
            "by": {
                name: [each.to_dict() for each in getattr(self, name)] for name in ("quality", "face_px", "degraded")
            },
        }
        return (json.dumps(values, indent=1, allow_nan=False) + "\n").encode()

    @classmethod
    def from_json(cls, content: bytes | str) -> RateTable:
        """What `to_json` wrote.

        Raises:
            RatesError: it is something else.
        """
        try:
            values = json.loads(content)
            if values["unmask_rates"] != SCHEMA:
                raise ValueError(f"version {values['unmask_rates']!r} is not known")
            by = values["by"]
            return cls(
                str(values["weights_sha256"]),
                str(values["model"]),
                str(values["looks"]),
                str(values["measured_on"]),
                {str(name): (int(n["reals"]), int(n["fakes"])) for name, n in values["datasets"].items()},
                values["split"],
                values["half"],
                tuple(map(str, values["rows_sha256"])),
                Rates.from_dict(values["whole"]),
                None if values["videos"] is None else Rates.from_dict(values["videos"]),
                *(tuple(map(Rates.from_dict, by[name])) for name in ("quality", "face_px", "degraded")),
            )
        except _MALFORMED as error:
            raise RatesError(f"not error rates by `unmask models rates`: {error!r}") from error


def read_rates(file: Path) -> RateTable:
    """The rates in a file.

    Raises:
        RatesError: it is something else.
        OSError: it cannot be read.
    """
    if file.stat().st_size > _MAX_BYTES:
        raise RatesError(f"{file}: too large for a file of error rates")
    try:
        return RateTable.from_json(file.read_bytes())
    except RatesError as error:
        raise RatesError(f"{file}: {error}") from error


def packaged_rates(weights_sha256: str) -> RateTable | None:
    """The rates of these weights that come with the package; None: it has none of them.

    Args:
        weights_sha256: of the checkpoint; of an ensemble joined by +.
    """
    for file in sorted((Path(__file__).parent / "weights").glob("*.rates.json")):
        if (found := read_rates(file)).weights_sha256 == weights_sha256:
            return found
    return None


def slice_at(slices: Iterable[Rates], value: float) -> Rates | None:
    """The slice that this value is in; None: in no slice, or in one without items."""
    for each in slices:
        low, high = each.low or 0.0, math.inf if each.high is None else each.high
        # A quality of 1 belongs to the last slice.
        if (low <= value < high or value == high == 1.0) and each.reals.total + each.fakes.total:
            return each
    return None


def _of_evaluation(report: Mapping[str, Any]) -> RateTable:
    model = report["model"]
    sets = [each for each in report["sets"] if each["kind"] == "crops"]
    if not sets:
        raise RatesError("the evaluation has no crops: rates are those of a manifest of crops")
    if any(each["frame"]["called"] is None for each in sets):
        raise RatesError(f"{model['name']} has no thresholds, so nothing was called fake or real: calibrate it first")
    datasets: dict[str, tuple[int, int]] = {}
    for group in (group for each in sets for group in each["datasets"]):
        # Those of unseen actors are counted in their data set already.
        if "," not in group["dataset"]:
            before, counts = datasets.get(group["dataset"], (0, 0)), group["frame"]["counts"]
            datasets[group["dataset"]] = before[0] + counts["real"], before[1] + counts["fake"]
    videos = [each["video"] for each in sets]
    rungs = [rung for each in sets for rung in (each["ladder"] or {"rungs": []})["rungs"]]
    degraded = [{"name": rung["name"], **rung["frame"]["called"]} for rung in rungs if rung["frame"] is not None]
    return RateTable(
        model["weights_sha256"],
        model["name"],
        str(model["looks"] or ""),
        datetime.fromtimestamp(report["created_at"], UTC).date().isoformat(),
        datasets,
        report["settings"]["split"],
        report["settings"]["half"],
        tuple(each["rows_sha256"] for each in sets),
        _joined(each["frame"]["called"] for each in sets)[0],
        None if None in videos else _joined(each["called"] for each in videos)[0],
        _joined({**band, **band["called"]} for each in sets for band in each["bands"]),
        _joined({**band, **band["called"]} for each in sets for band in each["face_bands"]),
        _joined(degraded),
    )


def _joined(parts: Iterable[Mapping[str, Any]]) -> tuple[Rates, ...]:
    """Parts of several sets with the same name or range are added."""
    found: dict[tuple[str, float | None], Rates] = {}
    for each in map(Rates.from_dict, parts):
        key = (each.name, each.low)
        found[key] = found[key] + each if key in found else each
    return tuple(found.values())
