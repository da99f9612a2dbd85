"""The clips of a run as its report needs them, collected while it goes on."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from pipeline.clip_report import ClipReport
from pipeline.contracts import Verdict

# More would make the page larger than about 15 MB; see the limits of `pipeline.results.report`.
MAX_DETAILED_CLIPS = 30


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What one run did.

    Attributes:
        started_at: Unix time in seconds.
        elapsed_s: wall time.
        clips: judged, whatever the outcome.
        frames_sampled: of all clips.
        frames_scored: sampled frames with at least one scored face, of all clips.
        command: the command line, as given.
        skipped_files: what was left out of folders.
        software: name and version.
    """

    started_at: float
    elapsed_s: float
    clips: int
    frames_sampled: int
    frames_scored: int
    command: str
    skipped_files: int
    software: str


class ReportClips(Sequence[ClipReport]):
    """The clips of a run, collected as they end; those that the page will not show in detail are reduced.

    Only `MAX_DETAILED_CLIPS` keep frames and pictures, so memory grows by about a kilobyte a clip.
    """

    def __init__(self) -> None:
        self._clips: list[ClipReport] = []
        self._detailed: list[tuple[tuple[int, float], int]] = []

    def add(self, clip: ClipReport) -> None:
        """Add one clip."""
        position = len(self._clips)
        self._clips.append(clip)
        # A heap whose smallest element is the least interesting clip; among equals, the last one.
        least = (interest(clip.verdict), -position)
        heapq.heappush(self._detailed, least)
        if len(self._detailed) > MAX_DETAILED_CLIPS:
            _, negated = heapq.heappop(self._detailed)
            thin = self._clips[-negated].verdict.model_copy(update={"frames": []})
            self._clips[-negated] = ClipReport(thin)

    @overload
    def __getitem__(self, index: int) -> ClipReport: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ClipReport]: ...
    def __getitem__(self, index: int | slice) -> ClipReport | Sequence[ClipReport]:
        return self._clips[index]

    def __len__(self) -> int:
        return len(self._clips)


def interest(verdict: Verdict) -> tuple[int, float]:
    """Sort key of a clip's interest, greater is more: by probability, then clips that were not judged."""
    return (0, 0.0) if verdict.suspicion is None else (1, verdict.suspicion)


def begins_as_report(beginning: bytes) -> bool:
    """Whether the beginning of a file is that of a report of `unmask scan`, of any version."""
    return beginning.lstrip().startswith(b"<!doctype html>") and b"Unmask report</title>" in beginning
