"""How much of a clip could be read, from the damage that the reader met."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pipeline.contracts import Coverage
from pipeline.video.damage import MAX_RANGES
from pipeline.video.window import Window

# Below this share of its duration, a clip has no verdict.
MIN_COVERAGE: Final = 0.5
# Stretches that an error message names.
_NAMED = 3

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Damage:
    """What a reader lost of a clip, or of a part of it.

    Attributes:
        ranges: stretches without a clean frame, in seconds.
        frames: and packets, that were given up.
        truncated: the file ends before its own structure does.
        end_s: of the last frame that was read, for clips whose duration is unknown.
    """

    ranges: tuple[Range, ...] = ()
    frames: int = 0
    truncated: bool = False
    end_s: float = 0.0


def merged(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """The union of ranges, in order, at most `MAX_RANGES` of them."""
    found: list[Range] = []
    for start, end in sorted(ranges):
        if found and (start <= found[-1][1] or len(found) == MAX_RANGES):
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return tuple(found)


def joined(parts: Iterable[Damage]) -> Damage:
    """Of a whole clip, from its parts; a frame in the overlap of two parts counts twice."""
    parts = list(parts)
    return Damage(
        merged(found for part in parts for found in part.ranges),
        sum(part.frames for part in parts),
        any(part.truncated for part in parts),
        max((part.end_s for part in parts), default=0.0),
    )


def coverage_of(damage: Damage, duration_s: float | None, window: Window | None = None) -> Coverage:
    """What was seen of a clip of this duration, or of a part of it."""
    ranges = merged(damage.ranges)
    whole_s = max(duration_s or damage.end_s, ranges[-1][1] if ranges else 0.0)
    if window is not None:
        whole_s = max(0.0, min(whole_s, window.end_s) - window.start_s)
    lost_s = sum(end - start for start, end in ranges)
    seen_s = max(0.0, whole_s - lost_s)
    return Coverage(
        seen_s=round(seen_s, 3),
        share=round(min(1.0, seen_s / whole_s), 4) if whole_s > 0 else 1.0,
        frames_lost=damage.frames,
        damaged=[(round(start, 3), round(end, 3)) for start, end in ranges],
        truncated=damage.truncated,
    )


def describe(coverage: Coverage) -> str:
    """What is missing, in words; "" if nothing is."""
    if coverage.is_whole:
        return ""
    whole_s = coverage.seen_s + sum(end - start for start, end in coverage.damaged)
    text = f"{coverage.seen_s:.1f} of {whole_s:.1f} s could be read"
    if coverage.damaged:
        named = ", ".join(f"{start:.1f} to {end:.1f} s" for start, end in coverage.damaged[:_NAMED])
        more = len(coverage.damaged) - _NAMED
        text += f"; missing: {named}" + (f" and {more} more" if more > 0 else "")
    return text + ("; the file ends early" if coverage.truncated else "")
