"""A decoded picture as upright 8-bit RGB.

swscale converts: with explicit matrix and range, its vector code for 8-bit 4:2:0 is as fast as OpenCV's (which supports
limited-range BT.601 only), with errors below 3 levels; other formats use its exact path. PQ and HLG are mapped to SDR.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import av.filter
import cv2
import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from pipeline.types import Image
from pipeline.video.hdr import TRANSFERS, ToSdr

# AVColorSpace (libavutil/pixfmt.h, the numbers of ITU-T H.273 table 4) to swscale's matrices. swscale does not support
# the absent ones (YCgCo, ICtCp, chromaticity-derived); they are read like an untagged picture.
_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}
# Formats of still pictures are BT.601 by their standards (JFIF; RFC 6386 for WebP), however large they are.
_STILL_CODECS = frozenset({"mjpeg", "webp"})
_FAST_FORMATS = frozenset({"yuv420p", "yuvj420p", "yuv422p", "yuvj422p"})
# libavutil 60 has 32 kinds of side data; the rest is spare.
_MAX_SIDE_DATA = 40
_ANY_TIME_BASE = Fraction(1, 1000)
_FAST = Interpolation.BILINEAR
_EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_SCALED = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


@dataclass(frozen=True, slots=True)
class Orientation:
    """How a stored picture becomes upright: first transposed, then mirrored left-right, then top-bottom."""

    transposed: bool = False
    mirrored_x: bool = False
    mirrored_y: bool = False

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Orientation:
        """From the frame's display matrix (also EXIF, which libav turns into one), to the nearest quarter turn.

        The matrix [[a, b, u], [c, d, v], [x, y, w]] (ISO/IEC 14496-12, 8.3.2) shows the stored point (p, q) at
        (a p + c q, b p + d q).
        """
        matrix = _side_data(frame).get("DISPLAYMATRIX")
        if matrix is None:
            return cls()
        a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix))
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return cls(False, a < 0, d < 0)
        return cls(True, c < 0, b < 0)

    @property
    def clockwise_deg(self) -> int:
        """The turn: 0, 90, 180 or 270. A mirrored picture is mirrored left-right after it."""
        if self.transposed:
            return 270 if self.mirrored_y else 90
        return 180 if self.mirrored_y else 0

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Upright width and height of a picture stored with these."""
        return (height, width) if self.transposed else (width, height)

    def apply(self, stored: Image, out: Image) -> None:
        """Write the upright picture into `out`, uint8 [H, W, 3]; `stored` may be a view with padded rows."""
        match self.transposed, self.mirrored_x, self.mirrored_y:
            case False, False, False:
                np.copyto(out, stored)
            case False, x, y:
                cv2.flip(stored, -1 if x and y else int(x), dst=out)
            case True, True, False:
                cv2.rotate(stored, cv2.ROTATE_90_CLOCKWISE, dst=out)
            case True, False, True:
                cv2.rotate(stored, cv2.ROTATE_90_COUNTERCLOCKWISE, dst=out)
            case True, x, _:
                cv2.transpose(stored, dst=out)
                if x:
                    cv2.flip(out, -1, dst=out)


class ToRgb:
    """Converts the frames of one stream. It reuses swscale's tables for frames of one format."""

    def __init__(self, codec: str) -> None:
        """For frames of libav's `codec`."""
        self._still = codec in _STILL_CODECS
        self._reformatter = VideoReformatter()
        self._to_sdr: dict[int, ToSdr] = {}

    def write(self, frame: av.VideoFrame, orientation: Orientation, out: Image) -> None:
        """Write the upright picture into `out`, uint8 [H, W, 3], RGB, scaled to it. Transparent parts become black."""
        height, width, _ = out.shape
        width, height = orientation.size(width, height)  # as stored, with square pixels
        transfer = int(frame.color_trc)
        if transfer in TRANSFERS:
            self._write_hdr(frame, transfer, orientation, out, (width, height))
            return
        form = frame.format
        transparent = form.has_palette or any(component.is_alpha for component in form.components)
        matrix = self._matrix(frame)
        converted = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="rgba" if transparent else "rgb24",
            interpolation=_interpolation(frame, width, height),
            src_colorspace=matrix,
            dst_colorspace=matrix,
            src_color_range=_range(frame),
            dst_color_range=ColorRange.JPEG,
        )
        plane: Any = converted.planes[0]  # a buffer, which its stubs omit too
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
        channels = 4 if transparent else 3
        stored = rows[:, : plane.width * channels].reshape(plane.height, plane.width, channels)
        if transparent:
            stored = _over_black(stored)
        orientation.apply(stored, out)

    def _write_hdr(
        self, frame: av.VideoFrame, transfer: int, orientation: Orientation, out: Image, size: tuple[int, int]
    ) -> None:
        matrix = _MATRICES.get(frame.colorspace, Colorspace.BT2020)
        width, height = size
        converted = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            # Planar: with these flags, swscale (FFmpeg 8.0) gets packed 16-bit RGB wrong.
            format="gbrp16le",
            interpolation=_SCALED if (frame.width, frame.height) != size else _EXACT,
            src_colorspace=matrix,
            dst_colorspace=matrix,
            src_color_range=_range(frame),
            dst_color_range=ColorRange.JPEG,
        )
        green, blue, red = (_samples(plane) for plane in converted.planes)
        signal = np.stack([red, green, blue], axis=2)
        if transfer not in self._to_sdr:
            self._to_sdr[transfer] = ToSdr(transfer)
        stored = np.empty(signal.shape, np.uint8)
        self._to_sdr[transfer].write(signal, stored)
        orientation.apply(stored, out)

    def _matrix(self, frame: av.VideoFrame) -> Colorspace:
        tagged = _MATRICES.get(frame.colorspace)
        if tagged is not None:
            return tagged
        # Untagged: high definition is BT.709, standard definition BT.601, as players assume.
        high_definition = frame.height > 576 or frame.width >= 1280
        return Colorspace.ITU709 if high_definition and not self._still else Colorspace.ITU601


def _samples(plane: Any) -> npt.NDArray[np.uint16]:
    """Uint16 [H, W] of a plane of 16 bits."""
    rows = np.frombuffer(plane, "<u2").reshape(plane.height, plane.line_size // 2)
    return rows[:, : plane.width]


def _side_data(frame: av.VideoFrame) -> Any:
    """The frame's side data by name. PyAV's accessor fails at unknown kinds, such as EXIF: they are removed first."""
    try:
        return frame.side_data
    except ValueError:
        known: set[Any] = {kind.value for kind in SideDataType}
        graph = av.filter.Graph()
        chain = [
            graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=_ANY_TIME_BASE)
        ]
        chain += [graph.add("sidedata", f"delete:{kind}") for kind in range(_MAX_SIDE_DATA) if kind not in known]
        chain.append(graph.add("buffersink"))
        graph.link_nodes(*chain).configure()
        graph.push(frame)
        return graph.pull().side_data


def _interpolation(frame: av.VideoFrame, width: int, height: int) -> Interpolation:
    if (frame.width, frame.height) != (width, height):
        return _SCALED
    return _FAST if frame.format.name in _FAST_FORMATS else _EXACT


def _range(frame: av.VideoFrame) -> ColorRange:
    if frame.color_range in (ColorRange.MPEG, ColorRange.JPEG):
        return ColorRange(frame.color_range)
    # Untagged: by libav's convention "yuvj" and grey are full range, all other YUV is limited.
    full = frame.format.name.startswith(("yuvj", "gray", "ya8", "ya16"))
    return ColorRange.JPEG if full else ColorRange.MPEG


def _over_black(rgba: Image) -> Image:
    alpha = cv2.extractChannel(rgba, 3)
    rgb: Image = cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB)
    cv2.multiply(rgb, cv2.merge([alpha, alpha, alpha]), dst=rgb, scale=1 / 255)
    return rgb
