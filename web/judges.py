"""What the service asks of its judge, and what all judges do alike."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Protocol

from pipeline.clip_report import ClipReport
from pipeline.contracts import Outcome, Provenance, as_text
from pipeline.types import Scores
from pipeline.verdict.aggregate import ClipFacts, Failure, judge
from pipeline.worker.access import UriAllow
from web.hub import Event
from web.videos import Video

# Of the threads that judge; those that answer requests have 0.
_NICENESS: Final = 10


class AnyJudge(Protocol):
    """Judges waiting videos: in this process (`web.judging`), or by workers (`web.remote_judging`).

    Attributes:
        failed: called once if nothing can be judged.
        finished: called after each verdict.
    """

    failed: Callable[[], None]
    finished: Callable[[], None]

    @property
    def allow(self) -> UriAllow:
        """What may be handed in by its URI."""

    @property
    def error(self) -> str | None:
        """Why nothing can be judged; None: nothing is wrong."""

    @property
    def trouble(self) -> str | None:
        """Why nothing can be judged at the moment; None: nothing is wrong."""

    @property
    def is_ready(self) -> bool:
        """Whether videos can be judged."""

    def check(self, uri: str) -> None:
        """Return if a video may be handed in by this URI.

        Raises:
            SourceError: it may not be read.
            ValueError: it is not a URI that can be judged.
        """

    def start(self) -> None:
        """Begin, in threads."""

    def wake(self) -> None:
        """A video waits."""

    def is_complete(self, video: Video) -> bool:
        """Whether all that belongs to a video's verdict is there: its pictures, print and Content Credentials."""

    def drop(self, id_: str) -> None:
        """A video was deleted."""

    def stop(self) -> None:
        """End; what is under way waits for the next start."""


def named(report: ClipReport, video: Video, place: str = "") -> ClipReport:
    """The report under the name that the client gave, not that of our file.

    Args:
        report: of the video.
        video: it.
        place: path or URI at which it was judged; empty: it was not.
    """
    name = as_text(video.upload.uri or video.upload.name)
    error = report.verdict.error
    if error and place:
        error = error.replace(place, name)
    return replace(report, verdict=report.verdict.model_copy(update={"source": name, "error": error}))


def unjudged(video: Video, outcome: Outcome, error: str, provenance: Provenance) -> ClipReport:
    """The report on a video that nothing could be found out about.

    Args:
        video: it.
        outcome: other than scored.
        error: why.
        provenance: of what would have judged it.
    """
    facts = ClipFacts(
        id=video.id,
        source=video.upload.name,
        duration_s=None,
        frames_sampled=0,
        faces_seen=0,
        failure=Failure(outcome, error),
        provenance=provenance,
        elapsed_s=0.0,
    )
    return ClipReport(judge(facts, Scores.join(video.id, []), None, None))


def ended(video: Video) -> Event:
    """What those get who wait for a video that is judged."""
    data = {"state": video.state.value, "outcome": video.outcome, "label": video.label}
    return Event("state", data, is_last=True)


def step_back() -> None:
    """Let the threads that answer requests have the CPU first; what this thread starts is behind them, too."""
    if sys.platform == "linux":  # where a thread has a priority of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
