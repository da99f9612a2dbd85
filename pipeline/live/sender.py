"""Sends a video as a live stream."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline import tracing
from pipeline.live.cutter import Cut, cut
from pipeline.transport.kafka import Publisher
from pipeline.transport.messages import ContentType, Segment


@dataclass(frozen=True, slots=True)
class SentStream:
    """What was sent."""

    segments: int
    encoded: int
    duration_s: float


def send(
    source: str,
    stream_id: str,
    publisher: Publisher,
    *,
    segment_s: float = 2.0,
    repeat: int = 1,
    wait_until: Callable[[float], None] | None = None,
) -> SentStream:
    """Cut a video and send its segments, the last one as the end of the stream.

    Args:
        source: a file, or any URL that libav opens.
        stream_id: whose segments they are.
        publisher: to Kafka.
        segment_s: length of a segment at least.
        repeat: number of times that the source is sent.
        wait_until: given the `time.monotonic` at which a segment is over; None sends at once.

    Raises:
        CutError: the source cannot be cut.
        TransportError: Kafka is away.
        pydantic.ValidationError: the id is invalid.
    """
    count = encoded = 0
    end_s = 0.0
    started_s = time.monotonic()
    pieces = _repeated(source, segment_s, repeat) if repeat > 1 else cut(source, segment_s=segment_s)
    piece = next(pieces, None)
    while piece is not None:
        following = next(pieces, None)
        end_s = piece.start_s + piece.duration_s
        if wait_until is not None:
            wait_until(started_s + end_s)
        segment = Segment(
            stream_id=stream_id,
            sequence=count,
            start_s=piece.start_s,
            final=following is None,
            content_type=ContentType.MPEG_TS,
        )
        with tracing.span("submit", {"unmask.clip.id": stream_id, "unmask.sequence": count}):
            publisher.segment(segment, piece.media).wait()
        count, encoded, piece = count + 1, encoded + piece.encoded, following
    return SentStream(count, encoded, end_s)


def _repeated(source: str, segment_s: float, times: int) -> Iterator[Cut]:
    pieces = list(cut(source, segment_s=segment_s))
    length_s = pieces[-1].start_s + pieces[-1].duration_s if pieces else 0.0
    for time_over in range(times):
        for piece in pieces:
            yield Cut(piece.media, piece.start_s + time_over * length_s, piece.duration_s, piece.encoded)
