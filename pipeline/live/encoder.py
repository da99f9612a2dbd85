"""Re-encodes pictures as a segment: H.264 in MPEG-TS, upright, with the colours that the source has."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

import av
import av.error
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from pipeline.video.clip import Limits
from pipeline.video.colour import Orientation, ToRgb
from pipeline.video.pixels import square_size, used_aspect

# AVColorSpace of BT.709 (libavutil/pixfmt.h).
_BT709 = 1
_MAX_PIXELS = Limits().max_pixels


def is_shown_as_stored(stream: Any, packet: Any) -> bool:
    """Whether the packets of a stream alone say how its pictures are shown.

    MPEG-TS has no place for what other containers say: a turn, or the shape of pixels.

    Args:
        stream: its decoder decodes the packet, and is as before afterwards.
        packet: a key frame.
    """
    decoder = stream.codec_context
    try:
        frames = [*decoder.decode(packet), *decoder.decode(None)]
    except av.error.FFmpegError:
        frames = []
    finally:
        decoder.flush_buffers()
    return (
        bool(frames)
        and Orientation.of(frames[0]) == Orientation()
        and used_aspect(decoder.sample_aspect_ratio) == used_aspect(stream.sample_aspect_ratio)
    )


class SegmentEncoder:
    """One segment.

    Attributes:
        start_s: of its first picture.
    """

    def __init__(self, stream: Any, first: Any, start_s: float, segment_s: float, max_bytes: int) -> None:
        """Set up for pictures like the first one.

        Args:
            stream: of the source.
            first: picture; `add` takes it too.
            start_s: its time in the source, in seconds.
            segment_s: the length for which `max_bytes` are enough.
            max_bytes: of the segment, about.
        """
        self.start_s = start_s
        self._time_base = stream.time_base
        self._to_rgb = ToRgb(stream.codec_context.name)
        self._orientation = Orientation.of(first)
        aspect = stream.sample_aspect_ratio
        shown = self._orientation.size(*square_size(first.width, first.height, aspect, _MAX_PIXELS))
        # Limited-range and full-range YUV is kept as it is, in any depth; everything else becomes RGB first.
        self._is_direct = (
            first.format.name.startswith("yuv")
            and not first.format.name.startswith("yuva")
            and self._orientation == Orientation()
            and shown == (first.width, first.height)
        )
        self._shown = shown
        is_full = self._is_direct and (first.color_range == ColorRange.JPEG or first.format.name.startswith("yuvj"))
        self._range = ColorRange.JPEG if is_full else ColorRange.MPEG
        self._buffer = io.BytesIO()
        self._out: Any = av.open(self._buffer, "w", format="mpegts")
        self._target: Any = self._out.add_stream("libx264", rate=stream.average_rate or Fraction(25))
        self._target.width, self._target.height = (max(2, side - side % 2) for side in shown)
        self._target.pix_fmt = "yuv420p"
        context = self._target.codec_context
        # The source's own clock: rounded to frames, two of a varying rate can fall on one instant.
        context.time_base = stream.time_base
        context.color_range = self._range
        context.colorspace = first.colorspace if self._is_direct else _BT709
        if self._is_direct:
            context.color_primaries, context.color_trc = first.color_primaries, first.color_trc
        limit = str(int(max_bytes * 8 / segment_s))
        self._target.options = {
            "preset": "veryfast", "crf": "18", "maxrate": limit, "bufsize": limit, "tune": "zerolatency",
        }  # fmt: skip

    def add(self, frame: Any, at_s: float) -> None:
        """The picture at this time of the source, in seconds; later than the one before."""
        picture = self._direct(frame) if self._is_direct else self._from_rgb(frame)
        picture.pts, picture.time_base = round((at_s - self.start_s) / self._time_base), self._time_base
        self._out.mux(self._target.encode(picture))

    def finish(self) -> bytes:
        """The segment."""
        self._out.mux(self._target.encode(None))
        self._out.close()
        return self._buffer.getvalue()

    def _direct(self, frame: Any) -> Any:
        return frame.reformat(
            self._target.width,
            self._target.height,
            "yuv420p",
            src_colorspace=Colorspace.ITU709,  # both alike: samples keep their matrix
            dst_colorspace=Colorspace.ITU709,
            src_color_range=self._range,
            dst_color_range=self._range,
        )

    def _from_rgb(self, frame: Any) -> Any:
        width, height = self._shown
        upright = np.empty((height, width, 3), np.uint8)
        self._to_rgb.write(frame, self._orientation, upright)
        return av.VideoFrame.from_ndarray(upright, "rgb24").reformat(
            self._target.width,
            self._target.height,
            "yuv420p",
            interpolation=Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT,
            src_colorspace=Colorspace.ITU709,
            dst_colorspace=Colorspace.ITU709,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
        )
