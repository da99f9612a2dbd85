"""Types that parent and decode child share: limits, clip properties and decode errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from models.errors import UnmaskError

Failure = Literal["undecodable", "over_limit", "unavailable"]


class DecodeError(UnmaskError):
    """A clip cannot be read, or only partly.

    Attributes:
        outcome: "undecodable" (no video in it, or the decoder died), "over_limit" (a limit was passed) or
            "unavailable" (the source cannot be opened).
        died: the decoder was killed, by a crash or by us.
        streams: video streams of the file that could be read in its place, and this one.
    """

    def __init__(self, outcome: Failure, message: str, *, died: bool = False, streams: int = 1) -> None:
        super().__init__(message)
        self.outcome: Failure = outcome
        self.died = died
        self.streams = streams


@dataclass(frozen=True, slots=True)
class Limits:
    """What one decode child may use. A clip that exceeds one of these ends as `over_limit`."""

    # 8192 x 8192: an 8K film frame twice over. One RGB frame of it takes 200 MB.
    max_pixels: int = 8192 * 8192
    # Seconds of video, declared and actual; None leaves the length to the limits below.
    max_duration_s: float | None = None
    # Decoded frames: nine hours at 30 frames a second.
    max_frames: int = 1_000_000
    # RLIMIT_CPU over all threads: two hours of 4K HEVC decode at about 60 frames per core-second.
    cpu_s: int = 3600
    # Total time spent waiting for the child; its waiting for us is not counted.
    wall_s: float = 3600.0
    # Time without a heartbeat while we wait. A working child sends one a second.
    stall_s: float = 60.0
    # RLIMIT_DATA: 8K HEVC in 10 bit keeps about 20 pictures of 100 MB.
    data_bytes: int = 3 * 2**30
    # Resident, with shared frames, measured from outside: covers what RLIMIT_DATA does not count.
    rss_bytes: int = 4 * 2**30
    # Source, control socket, standard streams and a ring on its way, with room for libav's own.
    open_files: int = 32


@dataclass(frozen=True, slots=True)
class ClipInfo:
    """Properties of a clip, known once its first frame is decoded.

    Attributes:
        duration_s: of the video stream, in seconds; None if the container does not say and nothing needed it.
        width: px, upright.
        height: px, upright.
        fps: average frame rate, None if unknown.
        codec: libav's name, "h264".
        container: libav's name of the demuxer.
        pixel_format: of the first frame, "yuv420p".
        rotation: degrees clockwise that make the stored picture upright: 0, 90, 180 or 270.
        decoder: library, version and codec, "libavcodec 62.28.102 h264".
        seek_s: set if a window was asked for: a window costs at most about this many seconds of video beyond its own,
            the longest stretch without a key frame; None if everything before it has to be decoded too.
        pixel_aspect: width of a stored pixel over its height; sizes are those after this is evened out.
        streams: video streams of the file that may be read, the largest first.
        frames_decoded: so far, with those passed over since nothing needs them; final once the clip is at its end, as
            all that follow.
        frames_corrupt: packets and frames that were given up: damaged, or leaning on damaged ones.
        damaged: stretches without a clean frame, in seconds.
        truncated: the file ends before its own structure does.
    """

    duration_s: float | None
    width: int
    height: int
    fps: float | None
    codec: str
    container: str
    pixel_format: str
    rotation: int
    decoder: str
    seek_s: float | None = None
    pixel_aspect: float = 1.0
    streams: int = 1
    frames_decoded: int = 0
    frames_corrupt: int = 0
    damaged: tuple[tuple[float, float], ...] = ()
    truncated: bool = False
