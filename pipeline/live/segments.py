"""Scores one segment of a stream: decode it in the sandbox, follow the faces of earlier segments, score them."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from pipeline.faces.tracker import FaceTracker
from pipeline.faces.turns import TurnFinder
from pipeline.frame_scorer import FrameScorer
from pipeline.scan import Scanner
from pipeline.sources import Guard, ScanInterruptedError, Source, SourceError, SourceLimits, open_source
from pipeline.transport.messages import Segment
from pipeline.types import Frame, Scores
from pipeline.video.sampling import fixed
from pipeline.video.sandbox import DecodeError

# The tracker's time between the last frame of a segment and the first of one that overlaps it.
_TICK_S = 1e-3


@dataclass(frozen=True, slots=True)
class SegmentResult:
    """What a segment contains, in its stream's time and numbering.

    Attributes:
        scores: of its faces.
        frames_decoded: all of them.
        frames_sampled: those that were looked at.
        faces_seen: good enough to be scored or not.
        end_s: of the segment, in the stream's own time.
        clock_s: of the tracker, behind its last frame.
        error: why it was not scored to its end; None where it was.
        not_judged: of the faces seen, how many have which flaw.
        turn: by which its frames were turned; None: people may be upright, or there were none.
        tracker: with which the stream continues.
    """

    scores: Scores
    frames_decoded: int
    frames_sampled: int
    faces_seen: int
    end_s: float
    clock_s: float
    decoder: str
    error: str | None
    turn: int | None
    tracker: FaceTracker
    not_judged: Counter[str] = field(default_factory=Counter)


def score_segment(
    scanner: Scanner,
    tracker: FaceTracker,
    segment: Segment,
    media: bytes,
    *,
    first_index: int,
    clock_s: float,
    stop: Callable[[], bool],
    guard: Guard | None = None,
    turn: int | None = 0,
) -> SegmentResult:
    """Score a segment. A problem is reported in `error`; what was scored before it counts.

    Args:
        scanner: decoding, scoring and sampling; sampling restarts at each segment.
        tracker: of the stream; it continues.
        segment: what the message says.
        media: its bytes; empty where it has a `uri`.
        first_index: number of the segment's first frame in the stream.
        clock_s: behind the last frame that the tracker saw.
        stop: asked at each frame, whether to leave.
        guard: of a `uri`; None: it may be read.
        turn: degrees clockwise that make people upright; None: find out. Where people turn out not to be upright, the
            segment is scored once more, by a new tracker.

    Raises:
        ScanInterruptedError: `stop` said so; the tracker is half-way through the segment.
    """
    clock_s = started_s = max(clock_s, segment.start_s)
    scorer = FrameScorer(
        segment.stream_id,
        tracker,
        cut=scanner.cut,
        submit=scanner.submit,
        calibration=scanner.calibration,
        turn=turn or 0,
    )
    finder = TurnFinder(scanner.detector) if turn is None else None
    end_s, decoded, decoder = segment.start_s, 0, "none"
    error: str | None = None
    times = scorer.times
    try:
        with ExitStack() as stack:
            with times.timed("open"):
                fd = stack.enter_context(_opened(segment, media, scanner.source_limits, guard, stop))
            with times.timed("decode"):
                opened = scanner.server.open(fd, segment.stream_id, fixed(scanner.sampling), scanner.limits)
                reader = stack.enter_context(opened)
            decoder = reader.info.decoder
            tracker_start_s = clock_s
            while True:
                with times.timed("decode"):
                    frame = next(reader, None)
                if frame is None:
                    break
                if stop():
                    raise ScanInterruptedError
                stream_s = segment.start_s + frame.t_s
                faces, _ = scorer.add(
                    Frame(frame.image, tracker_start_s + frame.t_s, frame.index, frame.clip_id),
                    labelled=Frame(frame.image, stream_s, first_index + frame.index, segment.stream_id),
                )
                if finder is not None and finder.look(frame.image, faces):
                    break
                clock_s = tracker_start_s + frame.t_s + _TICK_S
                end_s = max(end_s, stream_s)
            decoded = reader.info.frames_decoded
            if reader.info.duration_s is not None:
                end_s = max(end_s, segment.start_s + reader.info.duration_s)
    except (DecodeError, SourceError) as failure:
        error = str(failure)
    scores = scorer.finish()
    times.trace(size_bytes=len(media) if segment.uri is None else None)
    if finder is not None and (found := finder.turn()):
        return score_segment(
            scanner,
            FaceTracker(scanner.detector),
            segment,
            media,
            first_index=first_index,
            clock_s=started_s,
            stop=stop,
            guard=guard,
            turn=found,
        )
    if finder is not None and finder.is_certain:
        turn = 0
    return SegmentResult(
        scores=scores,
        frames_decoded=max(decoded, scorer.frames),
        frames_sampled=scorer.frames,
        faces_seen=scorer.faces,
        end_s=end_s,
        clock_s=clock_s,
        decoder=decoder,
        error=error if scorer.error is None else str(scorer.error),
        turn=turn,
        tracker=tracker,
        not_judged=scorer.not_judged,
    )


@contextmanager
def _opened(
    segment: Segment, media: bytes, limits: SourceLimits, guard: Guard | None, stop: Callable[[], bool]
) -> Iterator[int]:
    if segment.uri is not None:
        with open_source(Source(segment.uri, segment.stream_id, guard=guard), limits, stop=stop) as opened:
            yield opened.fd
        return
    # The decode child wants a regular file; on Linux it never touches a disk.
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("segment", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile(prefix="unmask-") as file:
            fd = os.dup(file.fileno())
    try:
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(media)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)
