"""Video files through libav: which stream, which frames, when they are shown, which way is up.

Runs in the decode child: it imports only av, numpy, cv2 and plain types of this package.
"""

from __future__ import annotations

import bisect
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import cast

import av
import av.error
import av.logging

from pipeline.types import Image
from pipeline.video.clip import ClipInfo, DecodeError, Limits
from pipeline.video.clock import Clock
from pipeline.video.colour import Orientation, ToRgb
from pipeline.video.damage import DamageLog, is_truncated
from pipeline.video.passing import CODECS, CONTAINERS, Passed, with_the_frame_before
from pipeline.video.pixels import square_size, used_aspect
from pipeline.video.sampling import TOLERANCE_S, DecodedSampling, Even, Every, Fps, Keyframes, Look
from pipeline.video.seeking import Beginning, SeekIndex, VideoPacket, load_index
from pipeline.video.streams import check_readable, declared_end_s, ranked_streams, why_no_frame
from pipeline.video.window import Window

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
# The index has times of decoding; frames are shown this much later at most, at usual rates.
_REORDER_S = 0.5
# Share of a file behind its last packet from which something is missing; in containers whose index, if any, is in front
# or small.
_UNREAD = 0.1
_INDEX_FREE = frozenset({"matroska", "mpegts", "mpeg", "flv", "nut", "ogg"})
# Those without a duration: libav takes the last time that it finds.
_UNDECLARED = frozenset({"mpegts", "mpeg"})


@dataclass(frozen=True, slots=True)
class Picture:
    """One sampled picture, not converted yet.

    Attributes:
        frame: as decoded.
        index: number in decoding order, from 0.
        t_s: presentation time in seconds from the start of the stream; grows from picture to picture.
        orientation: how to turn it upright.
        stored: width and height in px with square pixels, not yet upright.
    """

    frame: av.VideoFrame
    index: int
    t_s: float
    orientation: Orientation
    stored: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """Upright width and height in px, of square pixels."""
        return self.orientation.size(*self.stored)


class VideoReader:
    """The best video stream of an open file; iterate to get its sampled pictures.

    Attributes:
        info: known once the reader is made, which decodes the first frame.
        frames_decoded: so far, with those passed over.
        frames_passed: of these, not decoded: neither sampled nor needed for others.
        frames_corrupt: packets that libav could not decode, and frames that are damaged or lean on damaged ones, so
            far. The latter are never sampled.
        damaged: stretches without a clean frame, in seconds; final once all pictures were yielded.
        truncated: the file ends before its own structure does.
    """

    def __init__(
        self,
        fd: int,
        sampling: DecodedSampling,
        limits: Limits,
        threads: int = 1,
        heartbeat: Callable[[], None] = lambda: None,
        window: Window | None = None,
        stream: int = 0,
    ) -> None:
        """Open the stream and decode its first frame.

        Args:
            fd: a regular file; it is read from its start.
            sampling: which pictures to yield.
            limits: pixels, frames and seconds; the caller enforces all others.
            threads: decoding threads.
            heartbeat: called for every packet read.
            window: only the sampled pictures in it, the same that the whole clip yields in it. Decoding begins
                at a key frame before it where the file's index leads to one, else at the start.
            stream: which of its video streams: 0 is the largest, 1 the next.

        Raises:
            DecodeError: it has no video that libav can decode, or a limit is passed.
            MemoryError: the process may not allocate enough memory; also when iterating and converting.
        """
        self._fd = fd
        self._sampling = sampling
        self._limits = limits
        self._heartbeat = heartbeat
        self._threads = threads
        self._window = window
        self._number = stream
        self._streams = 1
        self.frames_decoded = self.frames_passed = 0
        self._lost_before = 0
        self._failed_reads = 0
        self._passes = False
        self._read_to = 0
        self.truncated = is_truncated(fd)
        self._container = self._open()
        try:
            self._stream = self._best_stream()
            self._still = self._container.format.name in _STILL_FORMATS or self._is_single()
            self._duration_s = self._duration()
            if self._duration_s is not None and limits.max_duration_s is not None:
                self._check_duration(self._duration_s)

            seeks = window is not None or isinstance(sampling, Look)
            self._index = self._load_index() if seeks else None
            self._targets = self._spread()
            self._prepare()
            self._to_rgb = ToRgb(self._stream.codec_context.name)
            self._orientations: dict[int, Orientation] = {}
            # Of key frames that skip_frame lets through: presentation time to number.
            self._key_indices: dict[int | None, int] = {}
            self._pictures = self._decode(Beginning(self._packets()))
            first = next(self._pictures, None)
            if first is None:
                lost = f": all of {self.frames_decoded} are damaged" if self.frames_decoded else why_no_frame(fd)
                raise DecodeError("undecodable", f"not one frame of the video stream could be decoded{lost}")
            self._first = first
            self._passes = self._may_pass()
            self.info = self._describe(first)
        except DecodeError as error:
            error.streams = self._streams
            raise

    def __iter__(self) -> Iterator[Picture]:
        """The sampled pictures. To be called once."""
        if isinstance(self._sampling, Look):
            yield from self._look()
            return
        window = self._window or Window(0.0)
        taken = 0
        rest: Picture | None = None
        for picture in self._near(window):
            if picture.t_s >= window.end_s:
                self._damage.finish(window.end_s, truncated=False)
                return
            due = self._due(picture.index, picture.t_s)
            inside = picture.t_s >= window.start_s
            rest = picture if inside and due <= taken else None
            if due > taken:
                taken = due
                if inside:
                    yield picture
        if self._sampling.total is not None and taken < self._sampling.total and rest is not None:
            # The last instants are after the last frame, which is still shown then.
            yield rest
        end_s = self._end_s()
        self._damage.finish(end_s, truncated=self.truncated)

    @property
    def frames_corrupt(self) -> int:
        """See the class."""
        return self._lost_before + self._damage.lost

    @property
    def damaged(self) -> list[tuple[float, float]]:
        """See the class."""
        return self._damage.ranges

    def _due(self, index: int, t_s: float) -> int:
        if self._targets is not None:
            return bisect.bisect_right(self._targets, t_s + TOLERANCE_S)
        return self._sampling.due(index, t_s, self._duration_s)

    def _may_pass(self) -> bool:
        """Whether frames that are not sampled may be left out: what is sampled depends on times that packets have."""
        formats = self._container.format.name.split(",")
        return (
            isinstance(self._sampling, Fps | Even | Look)
            and self._stream.codec_context.name in CODECS
            and not CONTAINERS.isdisjoint(formats)
            and self._stream.start_time is not None
            and not self._is_shifted(Clock(self._stream))
        )

    def _is_sampled(self, clock: Clock) -> Callable[[int, int], bool]:
        """Whether a frame is sampled, by its timestamp and that of the frame before it."""

        def is_sampled(pts: int, before_pts: int) -> bool:
            return self._due(0, clock.seconds(pts)) > self._due(0, clock.seconds(before_pts))

        return is_sampled

    def _spread(self) -> list[float] | None:
        """Times of N evenly numbered frames, where N instants spread over the clip would meet fewer frames.

        A recorder that pauses, or whose clock jumps, leaves gaps: several instants in one would share a frame.
        """
        sampling, duration_s = self._sampling, self._duration_s
        if isinstance(sampling, Look):
            return [share * duration_s for share in sampling.shares] if duration_s else []
        if not isinstance(sampling, Even) or sampling.count == 1 or self._still or duration_s is None:
            return None
        clock, times = Clock(self._stream), set[float]()
        for packet in self._packets():
            if packet.pts is None or len(times) > self._limits.max_frames:
                times.clear()
                break
            if not packet.is_discard:
                times.add(clock.seconds(packet.pts))
        self._reopen()
        if not times:  # the times of its frames are those of a constant rate
            return None
        if len(times) <= sampling.count:
            return sorted(times)
        met = {sampling.due(0, t_s, duration_s) for t_s in times} - {0}
        # The last instants may be after the last frame, which is then shown once more.
        if len(met) + 1 >= sampling.count:
            return None
        ordered = sorted(times)
        return [ordered[int((share + 0.5) * len(ordered) / sampling.count)] for share in range(sampling.count)]

    def write(self, picture: Picture, out: Image) -> None:
        """Convert into `out`, uint8 [H, W, 3] of the picture's upright size, RGB."""
        try:
            self._to_rgb.write(picture.frame, picture.orientation, out)
        except av.error.FFmpegError as error:
            _raise_shortage(error)
            raise

    def _near(self, window: Window) -> Iterator[Picture]:
        """The pictures from the start of the clip on, or from shortly before the window on."""
        if window.start_s > self._first.t_s and self._index is not None:
            found = self._sought(window, self._index)
            if found is not None:
                return found
            self._reopen()
            self._prepare()
            return self._decode(Beginning(self._packets()))
        return itertools.chain([self._first], self._pictures)

    def _sought(self, window: Window, index: SeekIndex) -> Iterator[Picture] | None:
        """The last picture before the window and all later ones; None if what was found is not reliable.

        The one before the window shows which samples are already due.
        """
        clock = Clock(self._stream)
        if self._is_shifted(clock):
            return None
        self.frames_decoded = 0
        begin = index.begin(self._container, self._stream, self._packets, clock.last_before(window.start_s))
        if begin is None:
            return None
        pictures = self._decode(begin)
        before = next(pictures, None)
        # After a false key frame, the decoder yields later pictures, or broken ones.
        if before is None or before.frame.pts != begin.pts or before.t_s >= window.start_s:
            return None
        inside: list[Picture] = []
        for picture in pictures:
            if picture.t_s >= window.start_s:
                inside.append(picture)
                break
            before = picture
        if self.frames_corrupt:
            return None
        return itertools.chain([before], inside, pictures)

    def _is_shifted(self, clock: Clock) -> bool:
        """Whether the clock may have shifted permanently at the first frame."""
        first_pts = self._first.frame.pts
        return first_pts is None or clock.seconds(first_pts) != self._first.t_s or first_pts < (clock.start or 0)

    def _look(self) -> Iterator[Picture]:
        """The pictures of an early look; fewer where the file is not what its index says.

        Where there is an index, decoding begins at the key frame before each instant. Else, everything up to the last
        picture is decoded.
        """
        clock = Clock(self._stream)
        index = None if self._is_shifted(clock) else self._index
        delay = int(_REORDER_S / (self._stream.time_base or 1))
        running: Iterator[Picture] = itertools.chain([self._first], self._pictures)
        at_pts, taken_s = self._first.frame.pts or 0, -1.0
        for target_s in self._targets or []:
            last_pts = clock.last_before(target_s)
            if index is not None and index.has_key(at_pts, last_pts - delay):
                self._lost_before += self._damage.lost
                begin = index.begin(self._container, self._stream, self._packets, last_pts)
                if begin is None:
                    return
                decoded = self._decode(begin)
                key = next(decoded, None)
                if key is None or key.frame.pts != begin.pts:
                    return
                running = itertools.chain([key], decoded)
            picture = next((later for later in running if later.t_s >= target_s - TOLERANCE_S), None)
            if picture is None:
                return
            at_pts = picture.frame.pts if picture.frame.pts is not None else at_pts
            if picture.t_s > taken_s:
                taken_s = picture.t_s
                yield picture

    def _load_index(self) -> SeekIndex | None:
        if self._still or self._container.format.name in _CLOCKLESS_FORMATS:
            return None
        index = load_index(self._container, self._stream, self._duration_s, self._limits.max_frames)
        if index is not None and not index.exact:
            self._reopen()  # loading it moved the container
            if isinstance(self._sampling, Every):
                return None  # it needs exact frame numbers
        return index

    def _end_s(self) -> float | None:
        """Where the stream should end. Sets `truncated` where the demuxer left much of the file unread before that.

        What a transport stream does not declare is estimated from its bytes. Attachments may be behind all packets: a
        declared end that was reached is an end.
        """
        name, size = self._container.format.name.partition(",")[0], os.lseek(self._fd, 0, os.SEEK_END)
        if not self._read_to or size - self._read_to <= _UNREAD * size or name not in _INDEX_FREE:
            return self._duration_s
        if name in _UNDECLARED:
            self.truncated = True
            return max(self._duration_s or 0.0, self._damage.last_s * size / self._read_to)
        # The duration of the container is that of its longest stream.
        end_s = declared_end_s(self._stream) or self._duration_s
        self.truncated = self.truncated or (end_s is not None and self._damage.ends_before(end_s))
        return end_s

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
                _raise_shortage(error)
                self._check_pixels(*_refused_size(log))
                reasons = "; ".join([error.strerror or "", *(text.strip() for _, _, text in log)])
                raise DecodeError("undecodable", f"libav cannot open it: {reasons}") from error
            finally:
                av.logging.set_level(None)
                self._refused = _refused_size(log)

    def _best_stream(self) -> av.VideoStream:
        ranked = ranked_streams(self._container)
        self._streams = len(ranked)
        if self._number >= len(ranked):
            raise DecodeError("undecodable", f"there is no video stream number {self._number + 1}")
        best = ranked[self._number]
        check_readable(best)
        self._check_pixels(best.width, best.height)
        if len(ranked) == 1 or not best.width * best.height:
            self._check_pixels(*self._refused)
        return best

    def _is_single(self) -> bool:
        """Whether a picture that may move has one frame only."""
        if self._container.format.name not in _MAYBE_STILL_FORMATS:
            return False
        frames = sum(1 for _ in itertools.islice(self._packets(), 2))
        self._reopen()
        return frames < 2

    def _duration(self) -> float | None:
        if self._still:
            return 0.0
        stream, container = self._stream, self._container
        if container.format.name not in _CLOCKLESS_FORMATS:
            if stream.duration is not None and stream.duration > 0 and stream.time_base is not None:
                return float(stream.duration * stream.time_base)
            if container.duration is not None and container.duration > 0:
                return container.duration / av.time_base
        return self._measure() if isinstance(self._sampling, Even) else None

    def _measure(self) -> float:
        """Read all packets, decode none: the end of the last one; without timestamps, their number."""
        packets = 0
        end_s = 0.0
        clock = Clock(self._stream)
        for packet in self._packets():
            packets += 1
            if packet.pts is not None:
                end_s = max(end_s, clock.seconds(packet.pts + (packet.duration or 0)))
        self._reopen()
        return end_s or packets * clock.period_s

    def _reopen(self) -> None:
        self._container.close()
        self._container = self._open()
        self._stream = self._best_stream()
        self.frames_decoded = 0

    def _prepare(self) -> None:
        """Set up the decoder, before its first packet."""
        context = self._stream.codec_context
        context.options = {"max_pixels": str(self._limits.max_pixels)}
        context.thread_type = "AUTO"
        context.thread_count = self._threads
        if isinstance(self._sampling, Keyframes):
            context.skip_frame = "NONKEY"

    def _packets(self) -> Iterator[VideoPacket]:
        errors = 0
        while True:
            try:
                # Packets of all streams show how far the file was read.
                for packet in self._container.demux():
                    self._heartbeat()
                    if packet.size:  # the empty packet at the end flushes the decoder
                        # Of what a parser splits, not every packet has a place.
                        self._read_to = max(self._read_to, (packet.pos or 0) + packet.size)
                        if packet.stream_index == self._stream.index:
                            yield cast(VideoPacket, packet)
                return
            except MemoryError:
                raise
            except av.error.FFmpegError:
                # MPEG-TS without a packet in 64 kB is EAGAIN, which elsewhere means that no thread could be started.
                self._failed_reads += 1
                errors += 1
                if errors == _MAX_DEMUX_ERRORS:
                    return

    def _decoded_frames(
        self, packets: Iterable[VideoPacket], number: int, damage: DamageLog, passed: Passed
    ) -> Iterator[av.VideoFrame]:
        context = self._stream.codec_context
        failed_reads = self._failed_reads
        coming = with_the_frame_before(packets, lambda: self._failed_reads)
        for packet, before_pts, failed in itertools.chain(coming, [(None, None, None)]):
            failed = self._failed_reads if failed is None else failed
            for _ in range(failed - failed_reads):
                damage.error()
            failed_reads = failed
            if self._passes and packet is not None:
                # After damage another frame may be sampled than the times of packets say.
                leave_out = not damage.is_found and passed.may_pass(packet, before_pts)
                context.skip_frame = "NONREF" if leave_out else "DEFAULT"
            if packet is not None:
                damage.packet(packet.pts, packet.dts, key=packet.is_keyframe, corrupt=packet.is_corrupt)
            if packet is not None and isinstance(self._sampling, Keyframes) and packet.is_keyframe:
                self._key_indices[packet.pts] = number
            number += 1
            try:
                yield from context.decode(packet)
            except av.error.FFmpegError as error:
                _raise_shortage(error)
                damage.error()

    def _decode(self, begin: Beginning) -> Iterator[Picture]:
        clock = Clock(self._stream)
        damage = self._damage = DamageLog(clock.period_s, self._threads)
        passed = Passed(self._is_sampled(Clock(self._stream)), begin.pts)
        number = begin.frames_before - 1
        for frame in self._from(begin, damage, passed):
            left_out = passed.before(frame.pts)
            if left_out and passed.last_pts is not None:
                damage.passed(clock.seconds(passed.last_pts))
            number += left_out + 1
            index = self._key_indices.pop(frame.pts, number)
            t_s = clock.next(frame.pts if frame.pts is not None else frame.dts)
            self.frames_decoded += left_out + 1
            self.frames_passed += left_out
            # With key frames only, the decoded ones count, as from the start of the file.
            frames = self.frames_decoded if isinstance(self._sampling, Keyframes) else number + 1
            if frames > self._limits.max_frames:
                raise DecodeError("over_limit", f"more than {self._limits.max_frames} frames")
            self._check_pixels(frame.width, frame.height)
            self._check_duration(t_s)
            if not damage.is_clean(frame.pts, t_s, key=bool(frame.key_frame), corrupt=frame.is_corrupt):
                continue
            yield Picture(frame, index, t_s, self._orientation(frame), self._square(frame))
            if self._still:
                return

    def _square(self, frame: av.VideoFrame) -> tuple[int, int]:
        return square_size(frame.width, frame.height, self._stream.sample_aspect_ratio, self._limits.max_pixels)

    def _from(self, begin: Beginning, damage: DamageLog, passed: Passed) -> Iterator[av.VideoFrame]:
        """Frames from the key frame on; those shown before it lack their references and are left out."""
        frames = self._decoded_frames(begin.packets, begin.packets_before, damage, passed)
        if begin.pts is not None:
            for frame in frames:
                if frame.pts is None or frame.pts >= begin.pts:
                    yield frame
                    break
        yield from frames

    def _orientation(self, frame: av.VideoFrame) -> Orientation:
        # Reading a frame's side data makes PyAV keep the frame in a reference cycle until the garbage collector runs.
        # So only the first one of each rotation is read.
        known = self._orientations.get(frame.rotation)
        if known is None:
            known = self._orientations[frame.rotation] = Orientation.of(frame)
        return known

    def _check_pixels(self, width: int, height: int) -> None:
        if width * height > self._limits.max_pixels:
            raise DecodeError(
                "over_limit", f"{width} x {height} px; at most {self._limits.max_pixels} px a frame are allowed"
            )

    def _check_duration(self, duration_s: float) -> None:
        limit_s = self._limits.max_duration_s
        if limit_s is not None and duration_s > limit_s:
            raise DecodeError("over_limit", f"longer than {limit_s} s")

    def _describe(self, first: Picture) -> ClipInfo:
        stream = self._stream
        fps = None if self._still else stream.average_rate or stream.guessed_rate
        version = ".".join(map(str, av.library_versions["libavcodec"]))
        width, height = first.size
        return ClipInfo(
            duration_s=None if self._still else self._duration_s,
            width=width,
            height=height,
            fps=float(fps) if fps else None,
            codec=stream.codec_context.name,
            container=self._container.format.name,
            pixel_format=first.frame.format.name,
            rotation=first.orientation.clockwise_deg,
            decoder=f"libavcodec {version} {stream.codec_context.name}",
            seek_s=self._index.seek_s if self._index is not None else None,
            pixel_aspect=used_aspect(self._stream.sample_aspect_ratio),
            streams=self._streams,
        )


def _refused_size(log: Iterable[tuple[int, str, str]]) -> tuple[int, int]:
    """Width and height of a picture that libav refused to decode, which only its log has; or zeros."""
    for _, _, text in log:
        if size := re.match(r"Picture size (\d+)x(\d+)", text):
            return int(size[1]), int(size[2])
    return 0, 0


def _raise_shortage(error: av.error.FFmpegError) -> None:
    """A lack of memory (EAGAIN: for a thread's stack) is not the packet's fault."""
    if isinstance(error, MemoryError | BlockingIOError):
        raise MemoryError(str(error)) from error
