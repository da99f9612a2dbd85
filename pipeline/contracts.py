"""The record, one JSON form of a verdict everywhere the same; names in Kafka and Redis (docs/contracts.md)."""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

SCHEMA_VERSION: Final = 1

Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
LikelihoodRatio = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class Outcome(StrEnum):
    """How judging a clip ended. Only `scored` carries a probability and a label."""

    SCORED = "scored"
    NO_FACE = "no_face"
    LOW_QUALITY = "low_quality"
    UNDECODABLE = "undecodable"
    OVER_LIMIT = "over_limit"
    UNAVAILABLE = "unavailable"
    SHED = "shed"
    MODEL_ERROR = "model_error"


class Label(StrEnum):
    """What a verdict says. `inconclusive`: between the two thresholds, or the weights have none."""

    FAKE = "fake"
    REAL = "real"
    INCONCLUSIVE = "inconclusive"


class Contract(BaseModel):
    """A model of what leaves the process."""

    # Fields are added over time within a schema version; readers skip what they do not know.
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class Person(Contract):
    """One tracked person of a clip."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    track: int = Field(ge=0)
    probability: Probability = Field(description="calibrated P(fake) over the whole track")
    likelihood_ratio: LikelihoodRatio | None = Field(
        default=None,
        description="how many times more likely the scores are if this face is forged than if it is real; "
        "null if the weights carry no bounds for it",
    )
    frames: int = Field(ge=1, description="scored frames of this track")
    first_s: float
    last_s: float
    stream: int = Field(default=0, ge=0, description="video stream, see `streams`")


class ScoredFace(Contract):
    """One scored face in one sampled frame; its track is in `people`."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    t_s: float
    index: int = Field(ge=0)
    track: int = Field(ge=0)
    box: tuple[float, float, float, float] = Field(
        description="x0 y0 x1 y1 in pixels of the upright frame, with square pixels"
    )
    probability: Probability
    quality: float = Field(ge=0.0, le=1.0)
    roll: int = Field(
        default=0,
        ge=0,
        lt=360,
        multiple_of=90,
        description="degrees clockwise from upright that the face has in the frame, to a quarter turn",
    )
    stream: int = Field(default=0, ge=0, description="video stream, see `streams`")


class Segment(Contract):
    """A short stretch of a person's track that looks forged, though the whole track does not."""

    track: int = Field(ge=0)
    stream: int = Field(default=0, ge=0, description="video stream, see `streams`")
    from_s: float = Field(description="its first frame that looks forged")
    to_s: float = Field(description="its last one")
    probability: Probability = Field(description="calibrated P(fake) over the stretch")
    frames: int = Field(ge=2, description="scored frames in it")


class StreamVerdict(Contract):
    """One of several video streams of a clip."""

    width: int | None = Field(ge=1, description="px, upright, with square pixels; null where it cannot be read")
    height: int | None = Field(ge=1)
    codec: str | None
    outcome: Outcome
    probability: Probability | None
    error: str | None
    frames_sampled: int = Field(ge=0)


class Coverage(Contract):
    """How much of a clip's video could be read."""

    seen_s: Annotated[float, Field(ge=0, description="seconds with undamaged frames")]
    share: Annotated[float, Field(ge=0, le=1, description="of the duration, or of the part judged")]
    frames_lost: Annotated[int, Field(ge=0, description="frames and packets: damaged, or leaning on damaged ones")]
    damaged: list[tuple[float, float]] = Field(description="stretches without an undamaged frame, in seconds")
    truncated: bool = Field(description="the file ends before its own structure does")

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing."""
        return self.share == 1 and not self.frames_lost and not self.truncated


class JudgedPart(Contract):
    """The part of a clip that a verdict is about."""

    start_s: float = Field(ge=0, description="seconds from the start of the video")
    end_s: float | None = Field(gt=0, description="as asked; null: to the end of the video")


class Strength(StrEnum):
    """Of evidence, in the words of the ENFSI's verbal scale."""

    NONE = "none"
    WEAK = "weak"
    MODERATE = "moderate"
    MODERATELY_STRONG = "moderately_strong"
    STRONG = "strong"
    VERY_STRONG = "very_strong"
    EXTREMELY_STRONG = "extremely_strong"


class Evidence(Contract):
    """How strongly the scores of the person who decides support either side."""

    supports: Literal["forged", "real", "neither"]
    strength: Strength
    at_bound: bool = Field(description="the ratio is the largest that the validation clips support")
    validation_clips: int | None = Field(ge=1, description="clips behind that bound")


class Extent(Contract):
    """Who looks forged, and when."""

    tracks: list[int] = Field(min_length=1, description="people")
    stretches: list[tuple[float, float]] = Field(description="seconds, by time; they do not overlap")
    share: float | None = Field(
        ge=0, le=1, description="of the duration, or of the part judged; null where that is unknown, and of pictures"
    )


class LimitCode(StrEnum):
    """What makes a verdict less certain than its number. Codes may be added."""

    PARTLY_READ = "partly_read"
    PART_JUDGED = "part_judged"
    FEW_LOOKED_AT = "few_looked_at"
    MANY_PEOPLE = "many_people"
    FEW_FRAMES = "few_frames"
    SMALL_FACE = "small_face"
    POOR_PICTURE = "poor_picture"
    TINY = "tiny"
    CUT_OFF = "cut_off"
    TURNED = "turned"
    UNCLEAR = "unclear"
    DARK = "dark"
    COVERED = "covered"


class Limit(Contract):
    """A limit of a verdict."""

    code: str = Field(description="a `LimitCode`, or one of a later version")
    track: int | None = Field(ge=0, description="of this person; null: of the clip")


class Adapted(Contract):
    """How adaptive sampling went."""

    early: bool = Field(description="the verdict is that of few frames; false: they did not settle it")
    looked_at: int = Field(ge=1, description="frames that were looked at to find out")
    planned: int = Field(ge=1, description="frames of a whole scan, about")


class Provenance(Contract):
    """Enough to compute the scores again."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    model: str
    weights_sha256: list[str]
    input_spec: str
    detector: str
    sampling: str
    decoder: str
    software: str
    source_sha256: str | None
    untrained: bool
    network: str = Field(default="", description="architecture and backbone; empty in records of older versions")


class Verdict(Contract):
    """What every output carries about one clip."""

    model_config = ConfigDict(title="Unmask verdict", json_schema_serialization_defaults_required=True)

    schema_: Literal[1] = Field(default=SCHEMA_VERSION, alias="schema")
    id: Id
    source: str = Field(description="path or URI as given; bytes of a name that are not UTF-8 as \\xNN")
    outcome: Outcome
    probability: Probability | None
    likelihood_ratio: LikelihoodRatio | None = Field(
        default=None, description="that of the person whose probability is the clip's; null unless scored"
    )
    label: Label | None
    error: str | None
    duration_s: float | None
    frames_sampled: int = Field(ge=0)
    frames_scored: int = Field(ge=0, description="sampled frames with at least one scored face")
    people: list[Person]
    frames: list[ScoredFace]
    segments: list[Segment] = Field(
        default_factory=list,
        description="by time: when people look forged who do not over their whole track; "
        "a clip with one is called fake",
    )
    coverage: Coverage | None = Field(
        default=None, description="null for pictures, for streams, and where the video was not read to its end"
    )
    part: JudgedPart | None = Field(
        default=None, description="the verdict is about this part of the video; null: about all of it"
    )
    adapted: Adapted | None = Field(default=None, description="null unless the sampling is adaptive and had a choice")
    evidence: Evidence | None = Field(
        default=None, description="null unless scored, and where the weights carry no bounds for likelihood ratios"
    )
    extent: Extent | None = Field(default=None, description="null where nobody looks forged")
    limits: list[Limit] = Field(default_factory=list, description="what to know before the number, of the clip first")
    streams: list[StreamVerdict] = Field(
        default_factory=list, description="the video streams, the largest first; empty where there is one"
    )
    pixel_aspect: float = Field(
        default=1.0,
        gt=0,
        description="width of a stored pixel over its height, which is evened out first",
    )
    not_judged: dict[str, Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict,
        description="faces that were found but not scored, by reason: tiny, cut_off, turned, unclear, dark, covered; "
        "reasons may be added",
    )
    provenance: Provenance
    elapsed_s: float = Field(ge=0.0)

    @model_validator(mode="after")
    def _only_scored_has_a_probability(self) -> Verdict:
        scored = self.outcome is Outcome.SCORED
        if scored != (self.probability is not None) or scored != (self.label is not None):
            raise ValueError(f"outcome {self.outcome}: probability and label go with 'scored', and only with it")
        if self.likelihood_ratio is not None and not scored:
            raise ValueError(f"outcome {self.outcome}: a likelihood ratio goes with 'scored' alone")
        if scored == (self.error is not None):
            raise ValueError(f"outcome {self.outcome}: an error goes with every outcome but 'scored'")
        return self

    @property
    def suspicion(self) -> float | None:
        """P(fake) of the clip or of its most suspicious segment, to sort by; None unless scored."""
        if self.probability is None:
            return None
        return max([self.probability, *(segment.probability for segment in self.segments)])

    @property
    def judged_s(self) -> float | None:
        """Length of what was judged: the clip or a part of it, in seconds; None if unknown."""
        if self.part is None:
            return self.duration_s
        ends_s = [end_s for end_s in (self.part.end_s, self.duration_s) if end_s is not None]
        return max(0.0, min(ends_s) - self.part.start_s) if ends_s else None

    def to_json(self) -> str:
        """The record as one line of JSON."""
        return self.model_dump_json(by_alias=True)


def is_of_newer_version(record: bytes) -> bool:
    """Whether a record that this version cannot read is one of a later version: of a later schema, or outcome."""
    try:
        fields = json.loads(record)
    except (ValueError, RecursionError):
        return False
    if not isinstance(fields, dict):
        return False
    schema, outcome = fields.get("schema"), fields.get("outcome")
    if type(schema) is not int or not isinstance(outcome, str):
        return False
    return schema > SCHEMA_VERSION or (schema == SCHEMA_VERSION and outcome not in set(Outcome))


def as_text(source: str) -> str:
    """A name as the operating system gave it, as text that JSON and a terminal can hold."""
    return source.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def clip_id_of(source: str) -> str:
    """Id of a scanned file: the first 32 hex digits of sha256 over its source as given."""
    return hashlib.sha256(source.encode("utf-8", "surrogateescape")).hexdigest()[:32]


class Topic(StrEnum):
    """Names in Kafka. Tasks of an earlier one are taken before those of a later one."""

    SEGMENTS = "unmask.segments"
    VIDEOS = "unmask.videos"
    ARCHIVE = "unmask.archive"
    VERDICTS = "unmask.verdicts"
    DEAD = "unmask.videos.dead"


# Of the videos' topics, by rank.
VIDEO_TOPICS: Final = (Topic.VIDEOS, Topic.ARCHIVE)


class SourceClass(StrEnum):
    """Where a video comes from; each class has its own topic."""

    UPLOAD = "upload"
    ARCHIVE = "archive"

    @property
    def topic(self) -> Topic:
        """Where tasks of this class are sent."""
        return Topic.VIDEOS if self is SourceClass.UPLOAD else Topic.ARCHIVE


class State(StrEnum):
    """State of a clip: field `state` of its hash in Redis."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"


def clip_key(clip_id: str) -> str:
    """The hash of a clip: its state, and in the end its verdict."""
    return f"unmask:clip:{clip_id}"


def rescore_key(run: str, clip_id: str) -> str:
    """The hash of a clip's verdict by other weights, in a run of `unmask rescore`; a run's name has no colon."""
    return f"unmask:rescore:{run}:{clip_id}"


def rescores_key(clip_id: str) -> str:
    """The runs that have such a hash of a clip: a set of their names."""
    return f"unmask:rescores:{clip_id}"


def parts_key(clip_id: str) -> str:
    """The hash of a long clip's parts, one a field, until it has its verdict."""
    return f"unmask:parts:{clip_id}"


def frames_key(clip_id: str) -> str:
    """The hash of a clip's scored faces, one a field."""
    return f"unmask:clip:{clip_id}:frames"


# Scored faces of live streams as they come: a capped stream.
LIVE_KEY: Final = "unmask:live"
# Open live streams by the time of their last segment: a sorted set.
STREAMS_KEY: Final = "unmask:streams"


def stream_key(stream_id: str) -> str:
    """The hash of a live stream: its state and its running verdict."""
    return f"unmask:stream:{stream_id}"


def stream_faces_key(stream_id: str) -> str:
    """The list of a live stream's scored faces."""
    return f"unmask:stream:{stream_id}:frames"


# Dead letters that were sent again: a set of partition:offset.
REQUEUED_KEY: Final = "unmask:dead:requeued"


# The announced weights; on the channel, the same as it is set; announcements that were replaced, the latest first.
ACTIVE_KEY: Final = "unmask:model:active"
CHANGED_CHANNEL: Final = "unmask:model:changed"
HISTORY_KEY: Final = "unmask:model:history"
# Weights that judge a share of the videos, next to the active ones.
CANARY_KEY: Final = "unmask:model:canary"
# The canary that was ended last; and weights that were rolled back, which no program announces again by itself.
CANARY_ENDED_KEY: Final = "unmask:model:canary-ended"
WITHDRAWN_KEY: Final = "unmask:model:withdrawn"


class GraphFile(Contract):
    """The graph of announced weights: what OpenVINO runs on a CPU without torch."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the file, which the registry has by it")
    size_bytes: int = Field(gt=0, description="of the file: workers fetch no more")


class Announcement(Contract):
    """The weights that workers must use: the value of `unmask:model:active`."""

    schema_: Literal[1] = Field(default=SCHEMA_VERSION, alias="schema")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the checkpoint")
    name: str = Field(description="what verdicts call the model")
    uri: str = Field(description="of the checkpoint in the registry")
    promoted_at: float = Field(description="Unix seconds")
    previous: str | None = Field(description="sha256 of the weights that these replaced; null for the first ones")
    forced: bool = Field(description="whether the gate was passed over")
    size_bytes: int | None = Field(default=None, gt=0, description="of the checkpoint; null from earlier versions")
    graph: GraphFile | None = Field(default=None, description="its graph in the registry; null: it has no graph")

    def to_json(self) -> str:
        """The value as one line of JSON."""
        return self.model_dump_json(by_alias=True)


class Canary(Announcement):
    """Weights that judge a share of the videos while `previous` is active: the value of `unmask:model:canary`."""

    share: float = Field(gt=0, le=0.5, description="of the videos, by a hash of the id")
    tolerance: float = Field(ge=0, lt=1, description="by how much the share of videos called fake may differ")


def arms_key(sha256: str) -> str:
    """What the two arms of a canary gave so far: counters."""
    return f"unmask:model:canary:{sha256}"


def content_key(fingerprint: str) -> str:
    """The id of a clip whose verdict is good for everything of this fingerprint: bytes, weights, sampling."""
    return f"unmask:content:{fingerprint}"


def frame_field(face: ScoredFace) -> str:
    """The field of a scored face in its clip's hash: milliseconds, colon, track."""
    return f"{round(face.t_s * 1000)}:{face.track}"
