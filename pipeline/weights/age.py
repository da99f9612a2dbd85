"""When weights were made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from models.zoo import list_entries
from pipeline.contracts import Announcement
from pipeline.detectors import Detector


class DateSource(StrEnum):
    """How it is known when weights were made, the surest first."""

    CHECKPOINT = "checkpoint"  # its header says so
    CATALOGUE = "catalogue"  # they are named weights
    ANNOUNCED = "announced"  # first promoted then, so made before
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class MadeWeights:
    """Weights, and when they were made.

    Attributes:
        sha256: of the checkpoint.
        name: what verdicts call them.
        made_s: Unix seconds; None: unknown.
        source: how that is known.
    """

    sha256: str
    name: str
    made_s: float | None
    source: DateSource


def catalogue() -> list[MadeWeights]:
    """The named weights whose date is known."""
    return [
        MadeWeights(
            entry.sha256,
            entry.name,
            datetime.fromisoformat(entry.made_on).replace(tzinfo=UTC).timestamp(),
            DateSource.CATALOGUE,
        )
        for entry in list_entries()
        if entry.made_on is not None
    ]


def made_weights(detector: Detector) -> MadeWeights:
    """What the checkpoint's header says, else the catalogue of named weights."""
    info = detector.info
    if info is not None and info.created_at is not None:
        return MadeWeights(detector.sha256, detector.name, info.created_at, DateSource.CHECKPOINT)
    named = [each for each in catalogue() if each.sha256 == detector.sha256]
    return named[0] if named else MadeWeights(detector.sha256, detector.name, None, DateSource.UNKNOWN)


def announced_weights(announcement: Announcement) -> MadeWeights:
    """What an announcement says: they were promoted then, so they are at least as old."""
    return MadeWeights(announcement.sha256, announcement.name, announcement.promoted_at, DateSource.ANNOUNCED)


def oldest_s(weights: Sequence[MadeWeights]) -> float | None:
    """When the oldest member of an ensemble was made, Unix seconds; None: not known of all."""
    known = [each.made_s for each in weights if each.made_s is not None]
    return min(known) if known and len(known) == len(weights) else None
