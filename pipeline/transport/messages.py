"""Messages that come in through Kafka: videos to judge, and the segments of live streams (docs/contracts.md)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from models.errors import UnmaskError
from pipeline.contracts import SCHEMA_VERSION, Contract, Id, SourceClass
from pipeline.video.sampling import parse_sampling
from pipeline.video.window import Window, asked_part

# A broker accepts 1 MB by default; the rest is for headers and the batch's framing.
MAX_SEGMENT_BYTES: Final = 900_000
# Ten years, and a number that JSON keeps exactly: no sum of such numbers overflows.
MAX_STREAM_S: Final = 10 * 365.25 * 86400
MAX_SEQUENCE: Final = 2**53


@dataclass(frozen=True, slots=True)
class Message:
    """A message as stored in its topic.

    Attributes:
        timestamp_s: when it was sent, Unix seconds.
    """

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp_s: float

    @property
    def place(self) -> str:
        """Its position: partition, colon, offset."""
        return f"{self.partition}:{self.offset}"

    def header(self, name: str) -> str:
        """A header as text; empty without it."""
        return next(((text or b"").decode("utf-8", "replace") for key, text in self.headers if key == name), "")


def message_fields(record: Any) -> dict[str, Any]:
    """The fields of a `Message` from a record of kafka-python's."""
    return {
        "partition": record.partition,
        "offset": record.offset,
        "key": record.key,
        "value": record.value,
        "headers": tuple(record.headers),
        "timestamp_s": record.timestamp / 1000,
    }


class ContractError(UnmaskError, ValueError):
    """A message violates the contract; the error says what was wrong and what was expected."""


def _not_a_frames_key(task_id: str) -> str:
    if task_id.endswith(":frames"):
        raise ValueError("an id must not end in ':frames': its hash in Redis would be that of another clip's frames")
    return task_id


TaskId = Annotated[Id, AfterValidator(_not_a_frames_key)]


def check_id(text: str) -> str:
    """The id of a video or stream, as it is.

    Raises:
        ContractError: it is not one.
    """
    try:
        return TypeAdapter(TaskId).validate_python(text)
    except ValidationError as error:
        why = "1 to 128 letters, digits and . _ : -, not ending in :frames"
        raise ContractError(f"{text!r} is not an id: expected {why}") from error


def _needs_its_version(json_schema: dict[str, Any]) -> None:
    # Optional here, since we fill it in; required in messages from others.
    json_schema["required"] = ["schema", *json_schema["required"]]


class Part(Contract):
    """A share of a long video; workers create tasks for these."""

    index: int = Field(ge=0)
    count: int = Field(ge=1, le=4096)
    start_s: float = Field(ge=0, le=MAX_STREAM_S, allow_inf_nan=False)
    end_s: float | None = Field(
        default=None, gt=0, le=MAX_STREAM_S, allow_inf_nan=False, description="null: to the end of the video"
    )

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Self:
        if self.index >= self.count or (self.end_s is not None and self.end_s <= self.start_s):
            raise ValueError("expected index < count and start_s < end_s")
        return self


class VideoTask(Contract):
    """A video to judge: the value on `unmask.videos` and `unmask.archive`, under its `video_id` as the key."""

    model_config = ConfigDict(title="Unmask video task", json_schema_extra=_needs_its_version)

    schema_: Literal[1] = Field(default=SCHEMA_VERSION, alias="schema")
    video_id: TaskId
    uri: str = Field(min_length=1, max_length=4096, description="a URI, or an absolute path on the worker's machine")
    source_class: SourceClass
    submitted_at: float = Field(ge=0, le=1e11, allow_inf_nan=False, description="Unix seconds")
    sampling: str | None = Field(
        default=None,
        description="fps=F, frames=N, every=N or keyframes, the first three also with ,adaptive; null: the worker's",
    )
    start_s: float | None = Field(
        default=None,
        ge=0,
        le=MAX_STREAM_S,
        allow_inf_nan=False,
        description="only what follows is judged, seconds from the start of the video; null: from its start",
    )
    end_s: float | None = Field(
        default=None, gt=0, le=MAX_STREAM_S, allow_inf_nan=False, description="likewise; null: to its end"
    )
    callback: str | None = Field(default=None, description="kept for the submitter; workers do not call it")
    part: Part | None = Field(
        default=None, description="part of a long video that a worker has split; submitters omit it"
    )

    @field_validator("uri")
    @classmethod
    def _names_one_place(cls, uri: str) -> str:
        if not uri.startswith("/") and not re.match(r"[a-z][a-z0-9+.-]*(://|::)", uri):
            raise ValueError("expected a URI (a scheme in lower case and ://) or an absolute path")
        if "\0" in uri:
            raise ValueError("no file and no URI has a null character in its name")
        return uri

    @field_validator("sampling")
    @classmethod
    def _is_a_sampling(cls, text: str | None) -> str | None:
        if text is not None:
            parse_sampling(text)
        return text

    @model_validator(mode="after")
    def _has_one_window(self) -> Self:
        if self.window is not None and self.part is not None:
            raise ValueError("expected start_s and end_s, or a share of the whole video in part, not both")
        return self

    @property
    def window(self) -> Window | None:
        """The part of the video that is judged; None: all of it."""
        return asked_part(self.start_s, self.end_s)

    @classmethod
    def parse(cls, value: bytes | None, key: bytes | None) -> Self:
        """A task from its message.

        Raises:
            ContractError: it is not a task, its schema version is unknown, or key and `video_id` differ.
        """
        fields = _json_object(value)
        _check_schema(fields.get("schema"))
        try:
            task = cls.model_validate(fields)
        except ValidationError as error:
            raise ContractError(_describe_error(error)) from error
        if key != task.video_id.encode():
            raise ContractError(f"key {_shown(key)}: expected the video_id {task.video_id!r}")
        return task

    def to_json(self) -> bytes:
        """The value of the message."""
        return self.model_dump_json(by_alias=True, exclude_none=True).encode()

    def whole(self) -> Self:
        """The task of the whole video."""
        return self.model_copy(update={"part": None})


class ContentType(StrEnum):
    """The container format of a segment."""

    MP4 = "video/mp4"
    MPEG_TS = "video/mp2t"


class Segment(Contract):
    """A piece of a live stream: the headers of a message on `unmask.segments`; its value is the media, or empty.

    With an empty value the media is at `uri`.
    """

    model_config = ConfigDict(title="Unmask segment headers", json_schema_extra=_needs_its_version)

    schema_: Literal[1] = Field(default=SCHEMA_VERSION, alias="schema")
    stream_id: TaskId
    sequence: int = Field(ge=0, le=MAX_SEQUENCE, description="from 0, one more for each segment")
    start_s: float = Field(ge=0, le=MAX_STREAM_S, allow_inf_nan=False, description="of the segment within its stream")
    final: bool = Field(description="1: the stream ends with this segment; 0: it continues")
    content_type: ContentType
    uri: str | None = None

    @classmethod
    def parse(cls, headers: Iterable[tuple[str, bytes | None]], key: bytes | None, value: bytes | None) -> Self:
        """A segment from the headers of its message; headers that are not in the contract are ignored.

        Raises:
            ContractError: a header is missing or wrong, the schema version is unknown, the key is not the
                stream's id, or there is no media: neither bytes nor a `uri`, or both, or too many bytes.
        """
        texts: dict[str, Any] = {}
        for name, raw in headers:
            if name not in _SEGMENT_HEADERS:
                continue
            if name in texts:
                raise ContractError(f"header {name}: given twice")
            try:
                texts[name] = (raw or b"").decode()
            except UnicodeDecodeError as error:
                raise ContractError(f"header {name}: not UTF-8") from error
        schema = texts.get("schema", "")
        _check_schema(int(schema) if re.fullmatch(r"[0-9]{1,9}", schema) else texts.get("schema"))
        texts["schema"] = SCHEMA_VERSION
        final = texts.get("final")
        if final is not None and final not in ("0", "1"):
            raise ContractError(f"header final: expected 0 or 1, got {final!r}")
        try:
            segment = cls.model_validate(texts)
        except ValidationError as error:
            raise ContractError(_describe_error(error)) from error
        if key != segment.stream_id.encode():
            raise ContractError(f"key {_shown(key)}: expected the stream_id {segment.stream_id!r}")
        if bool(value) == (segment.uri is not None):
            raise ContractError("expected media bytes, or an empty value and a uri header")
        if value and len(value) > MAX_SEGMENT_BYTES:
            raise ContractError(f"{len(value)} bytes of media; at most {MAX_SEGMENT_BYTES} go into a message")
        return segment

    def to_headers(self) -> list[tuple[str, bytes]]:
        """The headers of the message."""
        texts = {
            "schema": str(self.schema_),
            "stream_id": self.stream_id,
            "sequence": str(self.sequence),
            "start_s": repr(self.start_s),
            "final": str(int(self.final)),
            "content_type": str(self.content_type),
        }
        if self.uri is not None:
            texts["uri"] = self.uri
        return [(name, text.encode()) for name, text in texts.items()]


_SEGMENT_HEADERS: Final = frozenset({"schema", "stream_id", "sequence", "start_s", "final", "content_type", "uri"})


def _json_object(value: bytes | None) -> dict[str, Any]:
    try:
        found = json.loads(value or b"")
    except (ValueError, RecursionError) as error:
        raise ContractError(f"value is not JSON: {_shown(value)}") from error
    if not isinstance(found, dict):
        raise ContractError(f"value is not a JSON object: {_shown(value)}")
    return found


def _check_schema(found: object) -> None:
    # bool is an int in Python, and True == 1.
    if type(found) is not int or found != SCHEMA_VERSION:
        version = "no schema version" if found is None else f"schema version {found!r}"
        raise ContractError(f"{version}: expected {SCHEMA_VERSION}")


def _describe_error(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"])) or "message"
    return f"{place}: {first['msg']}"


def _shown(raw: bytes | None) -> str:
    return "(none)" if raw is None else repr(raw[:80])
