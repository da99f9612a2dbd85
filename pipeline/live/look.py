"""What Redis has of live streams, for people who watch them: counts, running verdict, latest faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar, cast

import redis
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.contracts import STREAMS_KEY, ScoredFace, Verdict, stream_faces_key, stream_key

Model = TypeVar("Model", bound=BaseModel)

# At two frames a second and four people: four minutes; hours of them are not for looking at.
MAX_LATEST: Final = 2000


class StreamCounts(BaseModel):
    """Counts of a stream's segments; fields of its state, of any version.

    Attributes:
        segments: looked at.
        late: of these, after a later one.
        missing: that did not come.
        duplicated: that came again, or after the end.
        failed: that could not be decoded or scored.
        last_error: of these.
        end_s: of the last one, in the stream's own time.
        started_at: Unix seconds.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    segments: int = 0
    late: int = 0
    missing: int = 0
    duplicated: int = 0
    failed: int = 0
    last_error: str = ""
    end_s: float = 0.0
    started_at: float | None = None


@dataclass(frozen=True, slots=True)
class StreamLook:
    """A stream.

    Attributes:
        verdict: the running one, without faces; None where it cannot be read.
        counts: of its segments.
        shed: segments that were too old when their turn came.
        is_closed: it has ended.
        updated_at: Unix seconds.
        faces: the latest scored ones, in order of arrival.
    """

    id: str
    verdict: Verdict | None
    counts: StreamCounts
    shed: int
    is_closed: bool
    updated_at: float
    faces: tuple[ScoredFace, ...]


def open_streams(client: redis.Redis, limit: int) -> list[str]:
    """Ids of streams that have not ended, the one with the latest segment first; what is no name is left out.

    Raises:
        redis.RedisError: Redis is away.
    """
    found = cast("list[bytes]", client.zrevrange(STREAMS_KEY, 0, limit - 1))
    return [name for stream_id in found if (name := stream_id.decode(errors="replace")).isprintable()]


def look_at(client: redis.Redis, stream_ids: Sequence[str]) -> list[StreamLook | None]:
    """The streams; None for one that is unknown, or whose keys are not those of a stream.

    Raises:
        redis.RedisError: Redis is away.
    """
    with client.pipeline(transaction=False) as pipe:
        for stream_id in stream_ids:
            pipe.hmget(stream_key(stream_id), "verdict", "state", "shed", "closed", "updated_at")
            pipe.lrange(stream_faces_key(stream_id), -MAX_LATEST, -1)
        answers = pipe.execute(raise_on_error=False)
    found = []
    for number, stream_id in enumerate(stream_ids):
        fields, faces = answers[2 * number : 2 * number + 2]
        for answer in (fields, faces):
            if isinstance(answer, redis.ConnectionError | redis.TimeoutError):
                raise answer
        is_one = not isinstance(fields, Exception) and not isinstance(faces, Exception) and fields[4] is not None
        found.append(_look(stream_id, fields, faces) if is_one else None)
    return found


def _look(stream_id: str, fields: list[bytes | None], faces: list[bytes]) -> StreamLook | None:
    verdict, state, shed, closed, updated_at = fields
    try:
        return StreamLook(
            stream_id,
            _parsed(Verdict, verdict),
            _parsed(StreamCounts, state) or StreamCounts(),
            int(shed or 0),
            closed == b"1",
            float(updated_at or 0),
            tuple(ScoredFace.model_validate_json(face) for face in faces),
        )
    except ValueError:
        return None


def _parsed(kind: type[Model], text: bytes | None) -> Model | None:
    try:
        return None if text is None else kind.model_validate_json(text)
    except ValidationError:
        return None
