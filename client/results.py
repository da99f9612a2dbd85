"""What the service answers. Fields that a later version adds are ignored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person decided.

    Attributes:
        decision: fake, real, unsure or not_applicable.
        track: the person in the clip; None: the clip.
        by: id of the key.
        undone_at: None: it counts.
    """

    decision: str
    track: int | None
    reason: str
    comment: str
    by: str
    made_at: datetime
    undone_at: datetime | None

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Self:
        """From JSON."""
        return cls(**_known(cls, found, "made_at", "undone_at"))


@dataclass(frozen=True, slots=True)
class Face:
    """A scored face in a sampled frame; see `frames` in docs/contracts.md.

    Attributes:
        t_s: presentation time in seconds from the start of the video.
        box: x0 y0 x1 y1 in px of the upright frame with square pixels.
    """

    t_s: float
    index: int
    track: int
    box: tuple[float, float, float, float]
    probability: float
    quality: float
    roll: int = 0
    stream: int = 0

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Self:
        """From JSON."""
        x0, y0, x1, y1 = found["box"]
        return cls(**{**_known(cls, found), "box": (x0, y0, x1, y1)})


@dataclass(frozen=True, slots=True)
class Video:
    """A video that was handed in.

    Attributes:
        state: queued, running or done.
        start_s: of the part that is judged, in seconds; None: from the start.
        end_s: likewise; None: to the end.
        outcome: None until it is judged; only "scored" has a label and a probability.
        label: fake, real or inconclusive.
        verdict: the record without its frames; None until it is judged, and in lists.
        decisions: by time; empty in lists.
    """

    id: str
    name: str
    source_class: str
    state: str
    created_at: datetime
    finished_at: datetime | None
    uri: str | None
    media_type: str | None
    size_bytes: int | None
    sha256: str | None
    outcome: str | None
    label: str | None
    probability: float | None
    people: int | None
    start_s: float | None = None
    end_s: float | None = None
    links: Mapping[str, str] = field(default_factory=dict)
    verdict: Mapping[str, Any] | None = None
    decisions: tuple[Decision, ...] = ()

    @property
    def is_done(self) -> bool:
        """Whether it is judged."""
        return self.state == "done"

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Self:
        """From JSON."""
        decisions = tuple(Decision.of(each) for each in found.get("decisions", ()))
        return cls(**{**_known(cls, found, "created_at", "finished_at"), "decisions": decisions})


def _known(kind: Any, found: Mapping[str, Any], *moments: str) -> dict[str, Any]:
    """The fields that this version knows, with these as moments."""
    known = {each.name: found[each.name] for each in fields(kind) if each.name in found}
    for name in moments:
        if known.get(name) is not None:
            known[name] = datetime.fromisoformat(known[name])
    return known
