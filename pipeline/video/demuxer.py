"""A video file's packets through libav: what may be opened, which stream is read, how long it is.

Runs in the decode child, like the reader.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import cast

import av
import av.error
import av.logging

from pipeline.video.clip import DecodeError, Limits
from pipeline.video.clock import Clock
from pipeline.video.damage import DamageLog
from pipeline.video.seeking import VideoPacket
from pipeline.video.streams import check_readable, declared_end_s, ranked_streams

# Demuxers that read the one file they are given. Absent on purpose: whatever opens other files or addresses (hls,
# dash, concat, image2, sdp, rtsp), draws (svg), or makes a video of any text (tty).
_VIDEO_FORMATS = (
    "mov", "matroska", "avi", "flv", "mpegts", "mpeg", "mpegvideo", "m4v", "h264", "hevc", "ivf", "obu", "ogg",
    "asf", "mxf", "nut", "dv", "mjpeg", "yuv4mpegpipe", "gif", "apng",
)  # fmt: skip
_STILL_FORMATS = (
    "png_pipe", "jpeg_pipe", "webp_pipe", "bmp_pipe", "tiff_pipe", "jpegxl_pipe",
)  # fmt: skip
# Pictures that may move: a clip if they have a second frame.
_MAYBE_STILL_FORMATS = frozenset({"gif", "apng"})
# Only to distinguish a song, with or without a cover, from broken data.
_AUDIO_FORMATS = ("mp3", "wav", "flac", "aac")
# Elementary streams: no timestamps, and a duration that libav guesses from the bit rate.
_CLOCKLESS_FORMATS = frozenset({"h264", "hevc", "m4v", "mpegvideo", "mjpeg", "obu"})
# A demuxer that failed this often will not recover.
_MAX_DEMUX_ERRORS = 32
# Share of a file behind its last packet from which something is missing; in containers whose index, if any, is in front
# or small.
_UNREAD = 0.1
_INDEX_FREE = frozenset({"matroska", "mpegts", "mpeg", "flv", "nut", "ogg"})
# Those without a duration: libav takes the last time that it finds.
_UNDECLARED = frozenset({"mpegts", "mpeg"})


class Demuxer:
    """The best video stream of an open file, from its start.

    Attributes:
        container: open; another one after `reopen`.
        stream: of it.
        streams: video streams of the file.
        is_still: it holds one picture, without a duration.
        failed_reads: packets that could not be read, so far.
    """

    def __init__(self, fd: int, limits: Limits, number: int, heartbeat: Callable[[], None]) -> None:
        """Open the file.

        Args:
            fd: a regular file; it is read from its start.
            limits: pixels of a frame.
            number: which of its video streams: 0 is the largest, 1 the next.
            heartbeat: called for every packet read.

        Raises:
            DecodeError: it has no such video stream that libav can decode, or a frame has too many pixels; its
                `streams` is set.
            MemoryError: the process may not allocate enough memory; also when reading packets.
        """
        self._fd = fd
        self._limits = limits
        self._number = number
        self._heartbeat = heartbeat
        self._read_to = 0
        self.streams = 1
        self.failed_reads = 0
        self.container = self._open()
        try:
            self.stream = self._best_stream()
            self.is_still = self.container.format.name in _STILL_FORMATS or self._is_single()
        except DecodeError as error:
            error.streams = self.streams
            raise

    @property
    def formats(self) -> list[str]:
        """Names of the container's format, as libav has them."""
        return str(self.container.format.name).split(",")

    @property
    def has_clock(self) -> bool:
        """Whether its packets have times: elementary streams have none, and libav guesses their duration."""
        return self.container.format.name not in _CLOCKLESS_FORMATS

    def reopen(self) -> None:
        """Go back to the start, with a new decoder."""
        self.container.close()
        self.container = self._open()
        self.stream = self._best_stream()

    def packets(self) -> Iterator[VideoPacket]:
        """Those of the stream, from wherever the container is."""
        errors = 0
        while True:
            try:
                # Packets of all streams show how far the file was read.
                for packet in self.container.demux():
                    self._heartbeat()
                    if packet.size:  # the empty packet at the end flushes the decoder
                        # Of what a parser splits, not every packet has a place.
                        self._read_to = max(self._read_to, (packet.pos or 0) + packet.size)
                        if packet.stream_index == self.stream.index:
                            yield cast(VideoPacket, packet)
                return
            except MemoryError:
                raise
            except av.error.FFmpegError:
                # MPEG-TS without a packet in 64 kB is EAGAIN, which elsewhere means that no thread could be started.
                self.failed_reads += 1
                errors += 1
                if errors == _MAX_DEMUX_ERRORS:
                    return

    def duration_s(self, *, measure: bool) -> float | None:
        """Of the stream, in seconds; 0 for a picture, None where it is unknown.

        Args:
            measure: read the whole file where it does not say.
        """
        if self.is_still:
            return 0.0
        stream, container = self.stream, self.container
        if self.has_clock:
            if stream.duration is not None and stream.duration > 0 and stream.time_base is not None:
                return float(stream.duration * stream.time_base)
            if container.duration is not None and container.duration > 0:
                return container.duration / av.time_base
        return self._measure() if measure else None

    def _measure(self) -> float:
        """Read all packets, decode none: the end of the last one; without timestamps, their number."""
        packets = 0
        end_s = 0.0
        clock = Clock(self.stream)
        for packet in self.packets():
            packets += 1
            if packet.pts is not None:
                end_s = max(end_s, clock.seconds(packet.pts + (packet.duration or 0)))
        self.reopen()
        return end_s or packets * clock.period_s

    def end_s(self, duration_s: float | None, damage: DamageLog) -> tuple[float | None, bool]:
        """Where the stream should end, and whether much of the file was left unread before that.

        What a transport stream does not declare is estimated from its bytes. Attachments may be behind all packets: a
        declared end that was reached is an end.

        Args:
            duration_s: of the stream, if known.
            damage: of the packets, all of which were read.
        """
        name, size = self.formats[0], os.lseek(self._fd, 0, os.SEEK_END)
        if not self._read_to or size - self._read_to <= _UNREAD * size or name not in _INDEX_FREE:
            return duration_s, False
        if name in _UNDECLARED:
            return max(duration_s or 0.0, damage.last_s * size / self._read_to), True
        # The duration of the container is that of its longest stream.
        end_s = declared_end_s(self.stream) or duration_s
        return end_s, end_s is not None and damage.ends_before(end_s)

    def _is_single(self) -> bool:
        """Whether a picture that may move has one frame only."""
        if self.container.format.name not in _MAYBE_STILL_FORMATS:
            return False
        frames = sum(1 for _ in itertools.islice(self.packets(), 2))
        self.reopen()
        return frames < 2

    def check_pixels(self, width: int, height: int) -> None:
        """Refuse a frame with too many pixels.

        Raises:
            DecodeError: it has.
        """
        if width * height > self._limits.max_pixels:
            raise DecodeError(
                "over_limit", f"{width} x {height} px; at most {self._limits.max_pixels} px a frame are allowed"
            )

    def _open(self) -> av.container.InputContainer:
        os.lseek(self._fd, 0, os.SEEK_SET)
        options = {
            "fd": str(self._fd),
            "protocol_whitelist": "fd",
            "format_whitelist": ",".join(_VIDEO_FORMATS + _STILL_FORMATS + _AUDIO_FORMATS),
            "max_pixels": str(self._limits.max_pixels),
        }
        av.logging.set_level(av.logging.ERROR)
        with av.logging.Capture(local=False) as log:
            try:
                return av.open("fd:", options=options)
            except av.error.FFmpegError as error:
                raise_shortage(error)
                self.check_pixels(*_refused_size(log))
                reasons = "; ".join([error.strerror or "", *(text.strip() for _, _, text in log)])
                raise DecodeError("undecodable", f"libav cannot open it: {reasons}") from error
            finally:
                av.logging.set_level(None)
                self._refused = _refused_size(log)

    def _best_stream(self) -> av.VideoStream:
        ranked = ranked_streams(self.container)
        self.streams = len(ranked)
        if self._number >= len(ranked):
            raise DecodeError("undecodable", f"there is no video stream number {self._number + 1}")
        best = ranked[self._number]
        check_readable(best)
        self.check_pixels(best.width, best.height)
        if len(ranked) == 1 or not best.width * best.height:
            self.check_pixels(*self._refused)
        return best


def _refused_size(log: Iterable[tuple[int, str, str]]) -> tuple[int, int]:
    """Width and height of a picture that libav refused to decode, which only its log has; or zeros."""
    for _, _, text in log:
        if size := re.match(r"Picture size (\d+)x(\d+)", text):
            return int(size[1]), int(size[2])
    return 0, 0


def raise_shortage(error: av.error.FFmpegError) -> None:
    """A lack of memory (EAGAIN: for a thread's stack) is not the packet's fault."""
    if isinstance(error, MemoryError | BlockingIOError):
        raise MemoryError(str(error)) from error
