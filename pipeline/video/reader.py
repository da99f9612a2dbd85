"""Video files through libav: which stream, which frames, when they are shown, which way is up.

Runs in the decode child: it imports only av, numpy, cv2 and plain types of this package.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import av
import av.error
import av.logging

from pipeline.types import Image
from pipeline.video.clip import ClipInfo, DecodeError, Limits
from pipeline.video.clock import Clock
from pipeline.video.colour import Orientation, ToRgb
from pipeline.video.damage import DamageLog, is_truncated
from pipeline.video.demuxer import Demuxer, raise_shortage
from pipeline.video.passing import CODECS, CONTAINERS, Passed, with_the_frame_before
from pipeline.video.pixels import square_size, used_aspect
from pipeline.video.sampling import TOLERANCE_S, DecodedSampling, Even, EvenWithin, Every, Fps, Keyframes, Look
from pipeline.video.seeking import Beginning, SeekIndex, VideoPacket, load_index
from pipeline.video.streams import why_no_frame
from pipeline.video.window import Window

# The index has times of decoding; frames are shown this much later at most, at usual rates.
_REORDER_S = 0.5


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
        self._sampling = sampling
        self._limits = limits
        self._threads = threads
        self._window = window
        self.frames_decoded = self.frames_passed = 0
        self._lost_before = 0
        self._passes = False
        self.truncated = is_truncated(fd)
        self._file = Demuxer(fd, limits, stream, heartbeat)
        try:
            self._duration_s = self._file.duration_s(measure=isinstance(sampling, Even))
            if self._duration_s is not None and limits.max_duration_s is not None:
                self._check_duration(self._duration_s)

            seeks = window is not None or isinstance(sampling, Look)
            self._index = self._load_index() if seeks else None
            self._targets = self._spread()
            self._prepare()
            self._to_rgb = ToRgb(self._file.stream.codec_context.name)
            self._orientations: dict[int, Orientation] = {}
            # Of key frames that skip_frame lets through: presentation time to number.
            self._key_indices: dict[int | None, int] = {}
            self._pictures = self._decode(Beginning(self._file.packets()))
            first = next(self._pictures, None)
            if first is None:
                lost = f": all of {self.frames_decoded} are damaged" if self.frames_decoded else why_no_frame(fd)
                raise DecodeError("undecodable", f"not one frame of the video stream could be decoded{lost}")
            self._first = first
            self._passes = self._may_pass()
            self.info = self._describe(first)
        except DecodeError as error:
            error.streams = self._file.streams
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
        end_s, is_unread = self._file.end_s(self._duration_s, self._damage)
        self.truncated = self.truncated or is_unread
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
        return (
            isinstance(self._sampling, Fps | Even | EvenWithin | Look)
            and self._file.stream.codec_context.name in CODECS
            and not CONTAINERS.isdisjoint(self._file.formats)
            and self._file.stream.start_time is not None
            and not self._is_shifted(Clock(self._file.stream))
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
        if not isinstance(sampling, Even) or sampling.count == 1 or self._file.is_still or duration_s is None:
            return None
        clock, times = Clock(self._file.stream), set[float]()
        for packet in self._file.packets():
            if packet.pts is None or len(times) > self._limits.max_frames:
                times.clear()
                break
            if not packet.is_discard:
                times.add(clock.seconds(packet.pts))
        self._file.reopen()
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
            raise_shortage(error)
            raise

    def _near(self, window: Window) -> Iterator[Picture]:
        """The pictures from the start of the clip on, or from shortly before the window on."""
        if window.start_s > self._first.t_s and self._index is not None:
            found = self._sought(window, self._index)
            if found is not None:
                return found
            self._file.reopen()
            self.frames_decoded = 0
            self._prepare()
            return self._decode(Beginning(self._file.packets()))
        return itertools.chain([self._first], self._pictures)

    def _sought(self, window: Window, index: SeekIndex) -> Iterator[Picture] | None:
        """The last picture before the window and all later ones; None if what was found is not reliable.

        The one before the window shows which samples are already due.
        """
        clock = Clock(self._file.stream)
        if self._is_shifted(clock):
            return None
        self.frames_decoded = 0
        begin = self._begin(index, clock.last_before(window.start_s))
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

    def _begin(self, index: SeekIndex, last_pts: int) -> Beginning | None:
        return index.begin(self._file.container, self._file.stream, self._file.packets, last_pts)

    def _is_shifted(self, clock: Clock) -> bool:
        """Whether the clock may have shifted permanently at the first frame."""
        first_pts = self._first.frame.pts
        return first_pts is None or clock.seconds(first_pts) != self._first.t_s or first_pts < (clock.start or 0)

    def _look(self) -> Iterator[Picture]:
        """The pictures of an early look; fewer where the file is not what its index says.

        Where there is an index, decoding begins at the key frame before each instant. Else, everything up to the last
        picture is decoded.
        """
        clock = Clock(self._file.stream)
        index = None if self._is_shifted(clock) else self._index
        delay = int(_REORDER_S / (self._file.stream.time_base or 1))
        running: Iterator[Picture] = itertools.chain([self._first], self._pictures)
        at_pts, taken_s = self._first.frame.pts or 0, -1.0
        for target_s in self._targets or []:
            last_pts = clock.last_before(target_s)
            if index is not None and index.has_key(at_pts, last_pts - delay):
                self._lost_before += self._damage.lost
                begin = self._begin(index, last_pts)
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
        if self._file.is_still or not self._file.has_clock:
            return None
        index = load_index(self._file.container, self._file.stream, self._duration_s, self._limits.max_frames)
        if index is not None and not index.exact:
            self._file.reopen()  # loading it moved the container
            if isinstance(self._sampling, Every):
                return None  # it needs exact frame numbers
        return index

    def _prepare(self) -> None:
        """Set up the decoder, before its first packet."""
        context = self._file.stream.codec_context
        context.options = {"max_pixels": str(self._limits.max_pixels)}
        context.thread_type = "AUTO"
        context.thread_count = self._threads
        if isinstance(self._sampling, Keyframes):
            context.skip_frame = "NONKEY"

    def _decoded_frames(
        self, packets: Iterable[VideoPacket], number: int, damage: DamageLog, passed: Passed
    ) -> Iterator[av.VideoFrame]:
        context = self._file.stream.codec_context
        failed_reads = self._file.failed_reads
        coming = with_the_frame_before(packets, lambda: self._file.failed_reads)
        for packet, before_pts, failed in itertools.chain(coming, [(None, None, None)]):
            failed = self._file.failed_reads if failed is None else failed
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
                raise_shortage(error)
                damage.error()

    def _decode(self, begin: Beginning) -> Iterator[Picture]:
        clock = Clock(self._file.stream)
        damage = self._damage = DamageLog(clock.period_s, self._threads)
        passed = Passed(self._is_sampled(Clock(self._file.stream)), begin.pts)
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
            self._file.check_pixels(frame.width, frame.height)
            self._check_duration(t_s)
            if not damage.is_clean(frame.pts, t_s, key=bool(frame.key_frame), corrupt=frame.is_corrupt):
                continue
            yield Picture(frame, index, t_s, self._orientation(frame), self._square(frame))
            if self._file.is_still:
                return

    def _square(self, frame: av.VideoFrame) -> tuple[int, int]:
        return square_size(frame.width, frame.height, self._file.stream.sample_aspect_ratio, self._limits.max_pixels)

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

    def _check_duration(self, duration_s: float) -> None:
        limit_s = self._limits.max_duration_s
        if limit_s is not None and duration_s > limit_s:
            raise DecodeError("over_limit", f"longer than {limit_s} s")

    def _describe(self, first: Picture) -> ClipInfo:
        stream = self._file.stream
        fps = None if self._file.is_still else stream.average_rate or stream.guessed_rate
        version = ".".join(map(str, av.library_versions["libavcodec"]))
        width, height = first.size
        return ClipInfo(
            duration_s=None if self._file.is_still else self._duration_s,
            width=width,
            height=height,
            fps=float(fps) if fps else None,
            codec=stream.codec_context.name,
            container=self._file.container.format.name,
            pixel_format=first.frame.format.name,
            rotation=first.orientation.clockwise_deg,
            decoder=f"libavcodec {version} {stream.codec_context.name}",
            seek_s=self._index.seek_s if self._index is not None else None,
            pixel_aspect=used_aspect(stream.sample_aspect_ratio),
            streams=self._file.streams,
        )
