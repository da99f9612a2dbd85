"""Cuts a video into segments that decode by themselves, as an encoder at the source of a stream would."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av
import av.error

from models.errors import UnmaskError
from pipeline.live.encoder import SegmentEncoder, is_shown_as_stored
from pipeline.live.entry import Entries
from pipeline.transport.messages import MAX_SEGMENT_BYTES
from pipeline.video.clock import Clock

# Codecs that MPEG-TS carries; others are re-encoded.
_CARRIED = frozenset({"h264", "hevc", "mpeg2video", "mpeg1video", "mpeg4"})
# Without key frames for this many segments, a segment would be long and large: it is re-encoded.
_PATIENCE = 2.0
# Room for what the container adds, and for a frame that is larger than the rate says.
_FILL = 0.6


class CutError(UnmaskError):
    """A source cannot be cut; the message says why."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A segment as MPEG-TS.

    Attributes:
        start_s: within the source.
        duration_s: up to the next one.
        encoded: its frames were re-encoded.
    """

    media: bytes
    start_s: float
    duration_s: float
    encoded: bool


def cut(source: str, *, segment_s: float = 2.0) -> Iterator[Cut]:
    """Cut a file, or any URL that libav opens, in order of time.

    Segments begin at key frames, and their packets are the source's own, where key frames that stop all references come
    often enough and the packets fit into a message; else they are re-encoded as H.264, upright. Each segment decodes by
    itself to the source's pictures.

    Args:
        source: trusted: it is opened here, without a sandbox.
        segment_s: length at least; up to the next key frame.

    Raises:
        CutError: it cannot be opened, or has no video.
    """
    try:
        with av.open(source) as container:
            if not container.streams.video:
                raise CutError(f"{source}: no video stream")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            clock = Clock(stream)
            run = _Run(stream, clock, segment_s)
            for group in _Groups(stream, clock, segment_s).read(container.demux(stream)):
                media = _remuxed(stream, group.packets) if group.may_be_copied and not run.is_open else b""
                if 0 < len(media) <= MAX_SEGMENT_BYTES:
                    yield Cut(media, group.start_s, group.end_s - group.start_s, encoded=False)
                else:
                    yield from run.segments(group)
    except av.error.FFmpegError as error:
        raise CutError(f"{source}: {error}") from error


@dataclass(slots=True)
class _Group:
    """Packets, in the order in which they are stored.

    Attributes:
        start_s: time of the first one.
        end_s: time of the next group's first one, or of the end.
        may_be_copied: their pictures need no other packets, and MPEG-TS has all that the source says of them.
        is_last: what follows, if anything, needs nothing of them.
    """

    packets: list[Any]
    start_s: float
    end_s: float
    may_be_copied: bool
    is_last: bool


class _Groups:
    """Each from a key frame to the next; what grows too long or too large comes in parts."""

    def __init__(self, stream: Any, clock: Clock, segment_s: float) -> None:
        self._stream = stream
        self._clock = clock
        self._segment_s = segment_s
        self._entries = Entries(stream.codec_context.name, stream.codec_context.extradata)
        self._packets: list[Any] = []
        self._size = 0
        self._is_carried = self._may_be_copied = False
        self._entered_s = self._start_s = self._end_s = 0.0

    def read(self, packets: Iterator[Any]) -> Iterator[_Group]:
        """Those of the packets, from the first key frame on."""
        for packet, is_entry in self._with_entries(packets):
            time = packet.dts if packet.pts is None else packet.pts
            at_s = self._end_s if time is None else self._clock.seconds(time)
            if not self._packets:
                if not packet.is_keyframe:
                    continue
                first = self._entries.completed(packet)
                self._is_carried = self._stream.codec_context.name in _CARRIED and is_shown_as_stored(
                    self._stream, first
                )
                self._enter(first, at_s, may_be_copied=is_entry)
            elif is_entry and at_s - self._entered_s >= self._segment_s - 1e-3:
                yield self._group(at_s, is_last=True)
                self._enter(self._entries.completed(packet), at_s, may_be_copied=True)
            elif at_s - self._start_s > _PATIENCE * self._segment_s or self._size > _FILL * MAX_SEGMENT_BYTES:
                yield self._group(at_s, is_last=False)
                self._start_s, self._packets, self._size, self._may_be_copied = at_s, [packet], packet.size, False
            else:
                self._packets.append(packet)
                self._size += packet.size
            self._may_be_copied &= packet.pts is not None and not packet.is_discard
            self._end_s = max(self._end_s, at_s + float((packet.duration or 0) * self._stream.time_base))
        if self._packets:
            yield self._group(max(self._start_s, self._end_s), is_last=True)

    def _enter(self, packet: Any, at_s: float, *, may_be_copied: bool) -> None:
        self._packets, self._size = [packet], packet.size
        self._entered_s = self._start_s = at_s
        self._may_be_copied = self._is_carried and may_be_copied

    def _group(self, end_s: float, *, is_last: bool) -> _Group:
        may_be_copied = self._may_be_copied and is_last and self._size <= _FILL * MAX_SEGMENT_BYTES
        return _Group(self._packets, self._start_s, end_s, may_be_copied, is_last)

    def _with_entries(self, packets: Iterator[Any]) -> Iterator[tuple[Any, bool]]:
        """Each packet, and whether it and those behind it need none before it.

        Pictures that are shown before a key frame and stored behind it lean on earlier ones too.
        """
        packet = None
        for following in packets:
            if following.size:
                if packet is not None:
                    yield packet, self._is_entry(packet, following)
                packet = following
        if packet is not None:
            yield packet, self._is_entry(packet, packet)

    def _is_entry(self, packet: Any, following: Any) -> bool:
        if not packet.is_keyframe or packet.pts is None or following.pts is None or following.pts < packet.pts:
            return False
        return self._entries.is_whole(packet)


def _remuxed(stream: Any, packets: list[Any]) -> bytes:
    buffer = io.BytesIO()
    first = min(packet.pts if packet.dts is None else packet.dts for packet in packets)
    with av.open(buffer, "w", format="mpegts") as out:
        target = out.add_stream_from_template(stream)
        for packet in packets:
            pts, dts, source = packet.pts, packet.dts, packet.stream
            packet.stream = target
            packet.pts, packet.dts = pts - first, None if dts is None else dts - first
            out.mux(packet)
            # It belongs to the source again, should it have to be decoded.
            packet.stream, packet.pts, packet.dts = source, pts, dts
    return buffer.getvalue()


class _Run:
    """Groups that are re-encoded one after another; one decoder reads them, since they may lean on each other."""

    def __init__(self, stream: Any, clock: Clock, segment_s: float) -> None:
        self._stream = stream
        self._clock = clock
        self._segment_s = segment_s
        self._encoder: SegmentEncoder | None = None
        self._first_pts: int | None = None
        self.is_open = False

    def segments(self, group: _Group) -> Iterator[Cut]:
        """Those that end in this group; its last one with the next group, unless it is the last of the run."""
        decoder = self._stream.codec_context
        if not self.is_open:
            self.is_open, self._first_pts = True, group.packets[0].pts
        for packet in [*group.packets, None] if group.is_last else group.packets:
            for frame in decoder.decode(packet):
                if frame.pts is not None and self._first_pts is not None and frame.pts < self._first_pts:
                    continue  # it leans on pictures before the first key frame
                at_s = self._clock.next(frame.dts if frame.pts is None else frame.pts)
                if self._encoder is not None and at_s - self._encoder.start_s >= self._segment_s - 1e-3:
                    yield self._finished(self._encoder, at_s)
                    self._encoder = None
                if self._encoder is None:
                    max_bytes = int(_FILL * MAX_SEGMENT_BYTES)
                    self._encoder = SegmentEncoder(self._stream, frame, at_s, self._segment_s, max_bytes)
                self._encoder.add(frame, at_s)
        if group.is_last:
            if self._encoder is not None:
                yield self._finished(self._encoder, group.end_s)
            decoder.flush_buffers()
            self._encoder, self.is_open = None, False

    def _finished(self, encoder: SegmentEncoder, end_s: float) -> Cut:
        return Cut(encoder.finish(), encoder.start_s, max(0.0, end_s - encoder.start_s), encoded=True)
