"""Live streams as the page shows them: the last minutes of each person as a timeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.contracts import Person
from pipeline.live.look import StreamLook
from pipeline.results import wording
from pipeline.results.timeline import Timeline, sampling_step_s, timeline_of
from web.pages.text import TEXT
from web.stream_resources import Health, health_of, latest_faces

# Of a timeline; a stream that has just begun has a shorter one.
MAX_SPAN_S: Final = 300.0
MIN_SPAN_S: Final = 10.0
# People with a timeline, the most suspicious first.
MAX_CHARTS: Final = 3
_TICK_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class StreamPerson:
    """A person who was seen in the last minutes.

    Attributes:
        timeline: its seconds count from the window's start.
        highest: P(fake) of the frame that looks most forged.
    """

    person: Person
    timeline: Timeline
    highest: float


@dataclass(frozen=True, slots=True)
class StreamView:
    """A stream.

    Attributes:
        kind: of the badge.
        badge: what the verdict says so far.
        probability: of the most suspicious part; None: not scored.
        silent_s: since its last segment.
        ticks: position in % and text of the time axis.
        counts: name, number, and whether it is a loss, of its segments.
        charts: people who were seen in the last minutes.
        others: number of people who have no chart.
    """

    id: str
    health: Health
    kind: str
    badge: str
    probability: float | None
    silent_s: float
    ticks: tuple[tuple[float, str], ...]
    counts: tuple[tuple[str, int, bool], ...]
    last_error: str
    charts: tuple[StreamPerson, ...]
    others: int


def stream_view(look: StreamLook, now_s: float) -> StreamView:
    """A stream at this time (Unix seconds)."""
    counts, verdict = look.counts, look.verdict
    kind, badge = "unjudged", TEXT["no_verdict_yet"]
    if verdict is not None:
        finding = wording.finding_of(verdict)
        kind, badge = finding.kind, finding.badge
    people = () if verdict is None else tuple(sorted(verdict.people, key=lambda each: -each.probability))
    end_s = max([counts.end_s, *(face.t_s for face in look.faces)])
    span_s = min(MAX_SPAN_S, max(MIN_SPAN_S, end_s))
    charts = _charts(look, people, max(0.0, end_s - span_s), span_s)
    return StreamView(
        id=look.id,
        health=health_of(look, now_s),
        kind=kind,
        badge=badge,
        probability=None if verdict is None else verdict.suspicion,
        silent_s=max(0.0, now_s - look.updated_at),
        ticks=_ticks(end_s, span_s),
        counts=(
            (TEXT["segments_judged"], counts.segments, False),
            (TEXT["segments_late"], counts.late, False),
            (TEXT["segments_shed"], look.shed, True),
            (TEXT["segments_missing"], counts.missing, True),
            (TEXT["segments_failed"], counts.failed, True),
        ),
        last_error=counts.last_error,
        charts=charts,
        others=len(people) - len(charts),
    )


def _charts(look: StreamLook, people: tuple[Person, ...], from_s: float, span_s: float) -> tuple[StreamPerson, ...]:
    faces = [face.model_copy(update={"t_s": face.t_s - from_s}) for face in latest_faces(look, span_s)]
    step_s = sampling_step_s(np.array([face.t_s for face in faces]), None, 0)
    found: list[StreamPerson] = []
    for person in people:
        own = [face for face in faces if face.track == person.track]
        if own and len(found) < MAX_CHARTS:
            line = timeline_of(own, span_s=span_s, step_s=step_s)
            found.append(StreamPerson(person, line, max(face.probability for face in own)))
    return tuple(found)


def _ticks(end_s: float, span_s: float) -> tuple[tuple[float, str], ...]:
    """Whole minutes before the end; of a stream that is younger than the longest window, seconds of its own time."""
    if end_s < MAX_SPAN_S:
        return tuple((100 * at_s / span_s, f"{at_s:.0f} s") for at_s in (0.0, span_s / 2, span_s))
    minutes = int(span_s // _TICK_S)
    past = [(100 - 100 * minute * _TICK_S / span_s, f"-{minute} min") for minute in range(minutes, 0, -1)]
    return (*past, (100.0, TEXT["now"]))
