"""What the API gives of live streams, as JSON."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Self

from pydantic import Field

from pipeline.contracts import Label, Outcome, ScoredFace
from pipeline.live.look import StreamLook
from web.resources import Resource

# Segments are of two seconds or so: after five of them nothing more may come.
SILENT_S: Final = 10.0
# A stream that has lost more of its segments than this says less than it seems to.
LOSING_SHARE: Final = 0.05


class Health(StrEnum):
    """How well a stream is judged."""

    GOOD = "good"
    LOSING = "losing"
    SILENT = "silent"
    ENDED = "ended"


class StreamResource(Resource):
    """A live stream, as Redis has it."""

    id: str
    health: Health = Field(
        description=f"losing: over {LOSING_SHARE:.0%} of its segments were shed, lost or failed; "
        f"silent: no segment for {SILENT_S:.0f} s"
    )
    started_at: datetime | None
    updated_at: datetime
    end_s: float = Field(description="of the last segment, in the stream's own time")
    outcome: Outcome | None = Field(description="of what has come so far")
    label: Label | None
    probability: float | None = Field(description="of the most suspicious part; null unless scored")
    people: int
    segments: int = Field(description="looked at")
    late: int = Field(description="of these, after a later one")
    missing: int = Field(description="did not come")
    duplicated: int = Field(description="came again, or after the end; ignored")
    shed: int = Field(description="too old when their turn came; not looked at")
    failed: int = Field(description="could not be decoded or scored")
    last_error: str
    scores: list[dict[str, Any]] = Field(description="latest scored faces, see ScoredFace in docs/contracts.md")
    links: dict[str, str]

    @classmethod
    def of(cls, look: StreamLook, minutes: float) -> Self:
        """As JSON, with the scores of the last minutes."""
        counts, verdict = look.counts, look.verdict
        return cls(
            id=look.id,
            health=health_of(look, time.time()),
            started_at=None if counts.started_at is None else datetime.fromtimestamp(counts.started_at, UTC),
            updated_at=datetime.fromtimestamp(look.updated_at, UTC),
            end_s=counts.end_s,
            outcome=None if verdict is None else verdict.outcome,
            label=None if verdict is None else verdict.label,
            probability=None if verdict is None else verdict.suspicion,
            people=0 if verdict is None else len(verdict.people),
            segments=counts.segments,
            late=counts.late,
            missing=counts.missing,
            duplicated=counts.duplicated,
            shed=look.shed,
            failed=counts.failed,
            last_error=counts.last_error,
            scores=[face.model_dump(mode="json") for face in latest_faces(look, 60 * minutes)],
            links={"self": f"/v1/streams/{look.id}", "segments": f"/v1/streams/{look.id}/segments"},
        )


class StreamDetail(StreamResource):
    """A live stream with its verdict so far."""

    verdict: dict[str, Any] | None = Field(
        default=None, description="the record as in docs/contracts.md, without its frames"
    )


class StreamList(Resource):
    """Streams that run."""

    streams: list[StreamResource]


class SegmentResource(Resource):
    """A segment that Kafka has."""

    stream: str
    sequence: int
    size_bytes: int


def health_of(look: StreamLook, now_s: float) -> Health:
    """How well a stream is judged, at this time (Unix seconds)."""
    if look.is_closed:
        return Health.ENDED
    if now_s - look.updated_at > SILENT_S:
        return Health.SILENT
    lost = look.shed + look.counts.missing + look.counts.failed
    return Health.LOSING if lost > LOSING_SHARE * (look.counts.segments + lost) else Health.GOOD


def latest_faces(look: StreamLook, span_s: float) -> list[ScoredFace]:
    """The scored faces of the last so many seconds of a stream, by time."""
    from_s = max((face.t_s for face in look.faces), default=0.0)
    from_s = max(from_s, look.counts.end_s) - span_s
    return sorted((face for face in look.faces if face.t_s >= from_s), key=lambda face: face.t_s)
