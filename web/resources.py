"""What the API takes and gives, as JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from pipeline.contracts import Label, Outcome, SourceClass, State, Verdict
from web.appeals import Appeal
from web.decisions import Decision, is_hidden
from web.keys import Key, Role
from web.known import Kind, KnownDecision, Similar
from web.resumable import Resumable
from web.rounds import Choice, Round
from web.videos import Video
from web.webhooks import Delivery, DeliveryState, Webhook, WebhookEvent


class Resource(BaseModel):
    """Unknown fields of requests are refused."""

    model_config = ConfigDict(extra="forbid")


class DecisionRequest(Resource):
    """A decision on a clip, or on a person in it."""

    decision: Choice
    track: int | None = Field(default=None, ge=0, description="the person; null: the clip")
    reason: str = Field(default="", max_length=200, description="of your policy")
    comment: str = Field(default="", max_length=4000)


class DecisionResource(Resource):
    """A decision that was made."""

    decision: Choice
    track: int | None
    reason: str
    comment: str
    by: str = Field(description="id of the key")
    blind: bool = Field(description="nobody else's decision on the clip could be seen")
    made_at: datetime
    undone_at: datetime | None = Field(description="null: it counts")

    @classmethod
    def of(cls, decision: Decision) -> Self:
        """As JSON."""
        return cls(
            decision=decision.decision,
            track=decision.track,
            reason=decision.reason,
            comment=decision.comment,
            by=decision.by,
            blind=decision.blind,
            made_at=utc(decision.made_s),
            undone_at=None if decision.undone_s is None else utc(decision.undone_s),
        )


class AppealRequest(Resource):
    """Why a closed review is opened again."""

    reason: str = Field(min_length=1, max_length=4000)


class AppealResource(Resource):
    """An appeal that was made."""

    reason: str
    by: str = Field(description="id of the key")
    against: Choice | None = Field(description="the answer; null: there was none")
    made_at: datetime

    @classmethod
    def of(cls, appeal: Appeal) -> Self:
        """As JSON."""
        return cls(reason=appeal.reason, by=appeal.by, against=appeal.against, made_at=utc(appeal.made_s))


class VideoResource(Resource):
    """A video that was handed in."""

    id: str
    name: str
    source_class: SourceClass
    state: State
    created_at: datetime
    finished_at: datetime | None
    uri: str | None
    media_type: str | None
    size_bytes: int | None
    sha256: str | None
    start_s: float | None = Field(description="of the part that is judged, in seconds; null: from the start")
    end_s: float | None = Field(description="likewise; null: to the end")
    outcome: Outcome | None = Field(description="null until it is judged")
    label: Label | None = Field(description="null unless scored")
    probability: float | None = Field(description="of the most suspicious part; null unless scored")
    people: int | None
    round: Round | None = Field(description="of reviewing; null until it is judged, and for reviewers while it is open")
    answer: Choice | None = Field(description="what the reviewing came to; null as long as `round` is open")
    golden: Choice | None = Field(description="the clip checks reviewers; null: no, or not for you to know")
    links: dict[str, str]

    @classmethod
    def of(cls, video: Video, viewer: Role) -> Self:
        """As JSON, as a key of this role may see it."""
        is_blind = viewer is Role.REVIEW and is_hidden(video)
        upload, base = video.upload, f"/v1/videos/{video.id}"
        links = {"self": base, "events": f"{base}/events", "similar": f"{base}/similar", "page": f"/videos/{video.id}"}
        if video.state is State.DONE:
            links |= {"record": f"{base}/record", "frames": f"{base}/frames", "credentials": f"{base}/credentials"}
        if upload.uri is None:
            links["media"] = f"{base}/media"
        return cls(
            id=video.id,
            name=upload.name,
            source_class=upload.source_class,
            state=video.state,
            created_at=utc(video.created_s),
            finished_at=None if video.finished_s is None else utc(video.finished_s),
            uri=upload.uri,
            media_type=upload.media_type,
            size_bytes=upload.size_bytes,
            sha256=upload.sha256,
            start_s=upload.start_s,
            end_s=upload.end_s,
            outcome=video.outcome,
            label=video.label,
            probability=video.probability,
            people=video.people,
            round=None if is_blind else video.round,
            answer=None if is_blind else video.answer,
            golden=video.golden if viewer >= Role.SENIOR else None,
            links=links,
        )


class KnownResource(Resource):
    """What people decided on a copy of this video."""

    video: str = Field(description="id of the copy")
    decision: Choice
    votes: int
    of: int = Field(description="people who decided on it")
    share: float | None = Field(description="of the frames of this video, those in the copy; null: equal bytes")

    @classmethod
    def of_decision(cls, known: KnownDecision) -> Self:
        """As JSON."""
        similar = known.similar
        return cls(
            video=similar.id,
            decision=known.decision,
            votes=known.votes,
            of=known.of,
            share=_rounded(similar.share),
        )


class SimilarResource(Resource):
    """A video that shows the same as another one, or a part of it."""

    id: str
    name: str
    kind: Kind = Field(description="same_file: equal bytes; same_content: equal pictures; same_source: the same URI")
    share: float | None = Field(description="of the frames of the video that was asked for; null: not compared")
    other_share: float | None = Field(description="of the frames of this video, those in the one that was asked for")
    distance: float | None = Field(description="mean number of differing bits of the 256 of a frame's hash")
    is_copy: bool = Field(description="equal bytes, or both shares high: the same clip, perhaps encoded again")
    decisions: dict[Choice, int] = Field(description="on the whole clip, as they count now")
    links: dict[str, str]

    @classmethod
    def of(cls, similar: Similar) -> Self:
        """As JSON."""
        return cls(
            id=similar.id,
            name=similar.name,
            kind=similar.kind,
            share=_rounded(similar.share),
            other_share=_rounded(similar.other_share),
            distance=_rounded(similar.distance),
            is_copy=similar.is_copy,
            decisions=dict(similar.decisions),
            links={"self": f"/v1/videos/{similar.id}", "page": f"/videos/{similar.id}"},
        )


class SimilarPage(Resource):
    """Videos that show the same as another one."""

    known: KnownResource | None = Field(description="what people decided on a copy; null: no copy is decided")
    similar: list[SimilarResource] = Field(description="at most 100, the closest first")


class VideoDetail(VideoResource):
    """A video with its verdict and the decisions on it."""

    verdict: dict[str, Any] | None = Field(
        default=None, description="the record as in docs/contracts.md, without its frames; null until it is judged"
    )
    complete: bool = Field(
        default=True,
        description="false: it is not judged yet, or its pictures, similar videos and Content Credentials are to come",
    )
    decisions: list[DecisionResource] = Field(default_factory=list, description="by time, with those undone")
    appeals: list[AppealResource] = Field(default_factory=list, description="by time")
    known: KnownResource | None = Field(default=None, description="what people decided on a copy of this video")


def detail_of(
    video: Video,
    viewer: Role,
    verdict: Verdict | None,
    decisions: list[DecisionResource],
    appeals: list[AppealResource],
    known: KnownDecision | None,
    *,
    complete: bool,
) -> VideoDetail:
    """A video with all that belongs to it, as a key of this role may see it."""
    record = None if verdict is None else verdict.model_dump(mode="json", by_alias=True, exclude={"frames"})
    copy = None if known is None else KnownResource.of_decision(known)
    fields = VideoResource.of(video, viewer).model_dump()
    return VideoDetail(**fields, verdict=record, complete=complete, decisions=decisions, appeals=appeals, known=copy)


class VideoPage(Resource):
    """Some of the videos."""

    videos: list[VideoResource]
    next: str | None = Field(description="path of the next page; null: this is the last one")


class FramesResource(Resource):
    """Scored faces of a video."""

    frames: list[dict[str, Any]] = Field(description="see ScoredFace in docs/contracts.md")


class UploadResource(Resource):
    """A resumable upload."""

    id: str
    name: str
    source_class: SourceClass
    start_s: float | None
    end_s: float | None
    length: int = Field(description="bytes of the whole file")
    offset: int = Field(description="bytes that are on disk")
    expires_at: datetime = Field(description="it is deleted then, unless it grows")
    video: str | None = Field(description="path of the video that it has become; null: not yet")

    @classmethod
    def of(cls, upload: Resumable, idle_s: float) -> Self:
        """As JSON."""
        return cls(
            id=upload.id,
            name=upload.wanted.name,
            source_class=upload.wanted.source_class,
            start_s=upload.wanted.start_s,
            end_s=upload.wanted.end_s,
            length=upload.length,
            offset=upload.offset,
            expires_at=utc(upload.touched_s + idle_s),
            video=None if upload.video is None else f"/v1/videos/{upload.video}",
        )


class KeyRequest(Resource):
    """A key to be made."""

    name: str = Field(min_length=1, max_length=80)
    role: str = Field(pattern="^(submit|review|senior|admin)$")
    expires_at: AwareDatetime | None = Field(default=None, description="null: never")


class KeyResource(Resource):
    """A key without its secret."""

    id: str
    name: str
    role: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    @classmethod
    def of(cls, key: Key) -> Self:
        """As JSON."""
        return cls(**_key_fields(key))


class NewKey(KeyResource):
    """A key that was just made; its text is shown this once."""

    key: str

    @classmethod
    def made(cls, key: Key, text: str) -> Self:
        """As JSON."""
        return cls(**_key_fields(key), key=text)


class WebhookRequest(Resource):
    """A webhook to be made."""

    url: str = Field(min_length=1, max_length=2000)
    events: list[WebhookEvent] = Field(min_length=1, max_length=20)


class WebhookResource(Resource):
    """Where messages go."""

    id: str
    url: str
    events: list[WebhookEvent]
    created_at: datetime

    @classmethod
    def of(cls, webhook: Webhook) -> Self:
        """As JSON."""
        return cls(id=webhook.id, url=webhook.url, events=list(webhook.events), created_at=utc(webhook.created_s))


class DeliveryResource(Resource):
    """A message to a webhook."""

    n: int
    event: WebhookEvent
    state: DeliveryState
    tries: int
    made_at: datetime
    error: str | None = Field(description="of the last try; null: it had none")

    @classmethod
    def of(cls, delivery: Delivery) -> Self:
        """As JSON."""
        return cls(
            n=delivery.n,
            event=delivery.event,
            state=delivery.state,
            tries=delivery.tries,
            made_at=utc(delivery.made_s),
            error=delivery.error,
        )


class ProblemResource(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str = Field(description="for programs, see docs/api.md")
    detail: str
    instance: str
    request_id: str | None


def _key_fields(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "role": key.role.text,
        "created_at": utc(key.created_s),
        "expires_at": None if key.expires_s is None else utc(key.expires_s),
        "revoked_at": None if key.revoked_s is None else utc(key.revoked_s),
    }


def utc(unix_s: float) -> datetime:
    """Unix seconds as a moment."""
    return datetime.fromtimestamp(unix_s, UTC)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
