"""Cuts a video into segments that decode by themselves, as an encoder at the source of a stream would."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import av.error

from models.errors import UnmaskError
from pipeline.live.encoder_note import EncoderNote
from pipeline.transport.messages import MAX_SEGMENT_BYTES

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

    Segments begin at key frames, and their packets are the source's own, where it has a key frame often enough and they
    fit into a message; else they are re-encoded as H.264.

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
            for group in _groups(container, stream, segment_s):
                yield from _segments(stream, group, segment_s)
    except av.error.FFmpegError as error:
        raise CutError(f"{source}: {error}") from error


@dataclass(slots=True)
class _Group:
    """Packets from a key frame to the one before the next segment's."""

    packets: list[Any]
    start_s: float
    duration_s: float


def _groups(container: Any, stream: Any, segment_s: float) -> Iterator[_Group]:
    packets: list[Any] = []
    note = EncoderNote(stream.codec_context.extradata) if stream.codec_context.name == "h264" else None
    first_s: float | None = None
    start_s = end_s = 0.0
    for packet in container.demux(stream):
        if packet.size == 0 or packet.pts is None:
            continue
        at_s = float(packet.pts * stream.time_base)
        first_s = at_s if first_s is None else first_s
        at_s -= first_s
        if packets and packet.is_keyframe and at_s - start_s >= segment_s - 1e-3:
            yield _Group(packets, start_s, at_s - start_s)
            packets, start_s = [], at_s
        if note is not None and packet.is_keyframe:
            note.learn(packet)
        if packets:
            packets.append(packet)
        elif packet.is_keyframe:
            packets.append(packet if note is None else note.given_to(packet))
        end_s = max(end_s, at_s + float((packet.duration or 0) * stream.time_base))
    if packets:
        yield _Group(packets, start_s, max(0.0, end_s - start_s))


def _segments(stream: Any, group: _Group, segment_s: float) -> Iterator[Cut]:
    size = sum(packet.size for packet in group.packets)
    if (
        stream.codec_context.name in _CARRIED
        and group.duration_s <= _PATIENCE * segment_s
        and size <= _FILL * MAX_SEGMENT_BYTES
    ):
        media = _remuxed(stream, group.packets)
        if len(media) <= MAX_SEGMENT_BYTES:
            yield Cut(media, group.start_s, group.duration_s, encoded=False)
            return
    yield from _encoded(stream, group, segment_s)


def _remuxed(stream: Any, packets: list[Any]) -> bytes:
    buffer = io.BytesIO()
    first = min(packet.dts if packet.dts is not None else packet.pts for packet in packets)
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


def _encoded(stream: Any, group: _Group, segment_s: float) -> Iterator[Cut]:
    context = av.CodecContext.create(stream.codec_context.name, "r")
    context.extradata = stream.codec_context.extradata
    frames: list[Any] = []
    start_s = group.start_s
    base = float(group.packets[0].pts * stream.time_base)
    for packet in [*group.packets, None]:
        for frame in context.decode(packet):
            if frame.pts is None:
                continue
            at_s = group.start_s + float(frame.pts * stream.time_base) - base
            if frames and at_s - start_s >= segment_s - 1e-3:
                yield Cut(_h264(stream, frames, segment_s), start_s, at_s - start_s, encoded=True)
                frames, start_s = [], at_s
            frames.append(frame)
    if frames:
        end_s = group.start_s + group.duration_s
        yield Cut(_h264(stream, frames, segment_s), start_s, max(0.0, end_s - start_s), encoded=True)


def _h264(stream: Any, frames: list[Any], segment_s: float) -> bytes:
    buffer = io.BytesIO()
    rate = stream.average_rate or Fraction(25)
    with av.open(buffer, "w", format="mpegts") as out:
        target = out.add_stream("libx264", rate=rate)
        target.width, target.height = frames[0].width - frames[0].width % 2, frames[0].height - frames[0].height % 2
        target.pix_fmt = "yuv420p"
        # The source's own clock: rounded to frames, two of a varying rate can fall on one instant.
        target.codec_context.time_base = stream.time_base
        limit = int(_FILL * MAX_SEGMENT_BYTES * 8 / segment_s)
        target.options = {
            "preset": "veryfast", "crf": "18", "maxrate": str(limit), "bufsize": str(limit), "tune": "zerolatency",
        }  # fmt: skip
        first = frames[0].pts
        for frame in frames:
            picture = frame.reformat(target.width, target.height, "yuv420p")
            picture.pts, picture.time_base = frame.pts - first, stream.time_base
            out.mux(target.encode(picture))
        out.mux(target.encode(None))
    return buffer.getvalue()
