"""What the API takes and gives about reviewing, as JSON."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any, Final, Literal, Self

from pydantic import Field

from pipeline.contracts import Label, SourceClass
from web.actions import Action, ActionKind
from web.agreement import Agreement, Share
from web.quality import Quality
from web.resources import Resource, VideoResource, utc
from web.reviews import Lease
from web.rounds import Choice
from web.views import View

MAX_BULK: Final = 1000


class NextResource(Resource):
    """The clip that comes next."""

    video: VideoResource | None = Field(description="null: nothing is open for you")
    until: datetime | None = Field(description="it is yours until then, or until you decide, skip or leave it")


class LeaseResource(Resource):
    """A clip is yours to review."""

    until: datetime

    @classmethod
    def of(cls, lease: Lease) -> Self:
        """As JSON."""
        return cls(until=utc(lease.expires_s))


class SkipRequest(Resource):
    """Why you do not want to decide."""

    reason: str = Field(min_length=1, max_length=200)


class GoldenRequest(Resource):
    """The known answer of a clip."""

    answer: Choice


class BulkRequest(Resource):
    """The same for many videos."""

    action: Literal["decide", "delete"]
    videos: list[str] = Field(min_length=1, max_length=MAX_BULK)
    decision: Choice | None = Field(default=None, description="if they are decided on")
    reason: str = Field(default="", max_length=200)


class BulkResource(Resource):
    """What came of it."""

    done: int
    refused: dict[str, str] = Field(description="videos, and why nothing was done")


class ViewRequest(Resource):
    """A view to be saved."""

    name: str = Field(min_length=1, max_length=80, pattern=r"^[^\x00-\x1f\x7f]+$")
    query: str = Field(max_length=500, description="of the page `/videos`, as `show=label:fake&sort=-probability`")
    shared: bool = Field(default=False, description="all reviewers see it; takes role senior")


class ViewResource(ViewRequest):
    """A saved view."""

    id: str
    by: str = Field(description="id of the key")
    created_at: datetime

    @classmethod
    def of(cls, view: View) -> Self:
        """As JSON."""
        return cls(
            id=view.id,
            by=view.by,
            name=view.name,
            query=view.query,
            shared=view.shared,
            created_at=utc(view.created_s),
        )


class ActionResource(Resource):
    """An entry of the log."""

    n: int
    by: str = Field(description="id of the key")
    kind: ActionKind
    data: dict[str, Any]
    made_at: datetime

    @classmethod
    def of(cls, action: Action) -> Self:
        """As JSON."""
        return cls(n=action.n, by=action.by, kind=action.kind, data=action.data, made_at=utc(action.made_s))


class AgreementResource(Resource):
    """Agreement of people who did not see each other's decisions."""

    clips: int
    observed: float | None = Field(description="share of equal decisions; null without clips")
    kappa: float | None = Field(description="Cohen's; null where it is undefined")
    low: float | None = Field(description="of its interval of 95 %")
    high: float | None

    @classmethod
    def of(cls, found: Agreement) -> Self:
        """As JSON."""
        return cls(**asdict(found))


class ShareResource(Resource):
    """Some of all, with the interval of 95 % of the share."""

    hits: int
    of: int
    low: float | None
    high: float | None

    @classmethod
    def made(cls, found: Share) -> Self:
        """As JSON."""
        return cls(**asdict(found))


class ReviewerResource(Resource):
    """How one person reviews."""

    key: str = Field(description="its id")
    decisions: int
    skips: int
    agreement: AgreementResource
    by_class: dict[SourceClass, AgreementResource]
    golden: ShareResource = Field(description="right decisions on clips whose answer is known")


class QualityResource(Resource):
    """How well clips are reviewed."""

    agreement: AgreementResource
    reviewers: list[ReviewerResource]
    audits: dict[Label, ShareResource] = Field(description="audited clips whose label people found wrong")

    @classmethod
    def made(cls, quality: Quality) -> Self:
        """As JSON."""
        return cls(
            agreement=AgreementResource.of(quality.agreement),
            reviewers=[
                ReviewerResource(
                    key=each.key_id,
                    decisions=each.decisions,
                    skips=each.skips,
                    agreement=AgreementResource.of(each.agreement),
                    by_class={class_: AgreementResource.of(found) for class_, found in each.by_class.items()},
                    golden=ShareResource.made(each.golden),
                )
                for each in quality.reviewers
            ],
            audits={label: ShareResource.made(found) for label, found in quality.audits.items()},
        )


class PreferencesRequest(Resource):
    """What changes of how the page shows videos to this person; null: it stays."""

    blur: bool | None = None
    grey: bool | None = None
    boxes: bool | None = None


class PreferencesResource(Resource):
    """How the page shows videos to this person."""

    blur: bool = False
    grey: bool = False
    boxes: bool = True
