"""Refinement against full detection, clip by clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.faces.compare import RefineRow, compare_refine
from pipeline.faces.create import create_detector
from pipeline.video.sampling import Every
from pipeline.video.sandbox import DecodeServer

# Seconds between two full detections: at 30 frames a second 8, 15, 30 and 60 frames.
GAPS_S = (0.25, 0.5, 1.0, 2.0)


@dataclass(frozen=True)
class ClipComparison:
    """Results of one clip and one detector; a row for each of `GAPS_S`."""

    clip: str
    detector: str
    rows: list[RefineRow]


def compare(clips: Sequence[Path], detectors: Sequence[str], yunet_weights: Path | None) -> Iterator[ClipComparison]:
    """Compare on all frames of each clip, one clip after the other.

    Raises:
        DecodeError: a clip cannot be read.
        ValueError: unknown detector.
    """
    with DecodeServer() as server:
        for name in detectors:
            detector = create_detector(name, weights=yunet_weights if name == "yunet" else None)
            for clip in clips:
                with server.open(clip, clip.stem, Every(1)) as frames:
                    yield ClipComparison(clip.name, name, compare_refine(frames, detector, GAPS_S))
