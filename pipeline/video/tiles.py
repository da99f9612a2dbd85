"""Pictures in tiles: HEIC and AVIF whose picture is a grid of smaller ones, as phones write them.

libav shows each tile as a stream of its own. libheif and libavif compose them, with their turns and mirrors (`irot`,
`imir` of ISO/IEC 23008-12). Runs in the decode child.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator

import av
import numpy as np
import PIL
import PIL.TiffImagePlugin  # Pillow imports it late, for orientations; a child in its cage can open no file
import pillow_heif
from av.stream import Disposition
from PIL import AvifImagePlugin, ImageOps

from pipeline.types import Image
from pipeline.video.clip import ClipInfo, DecodeError, Limits
from pipeline.video.colour import Orientation
from pipeline.video.damage import is_truncated
from pipeline.video.reader import Picture

_UPRIGHT = Orientation()


class TiledPicture:
    """The one picture of such a file; the same door as `VideoReader`.

    Attributes:
        info: known once it is made, which composes the picture.
        frames_decoded: 1.
        frames_corrupt: 0.
        damaged: empty.
        truncated: False.
    """

    frames_decoded = 1
    frames_corrupt = 0
    truncated = False

    def __init__(self, fd: int, limits: Limits) -> None:
        """Compose the picture.

        Raises:
            DecodeError: it cannot be composed, or a limit is passed.
            MemoryError: the process may not allocate enough memory.
        """
        if is_truncated(fd):
            raise DecodeError("undecodable", "a tiled picture whose file ends early")
        _check_tiles(fd)
        content = io.BytesIO(os.pread(fd, os.lseek(fd, 0, os.SEEK_END), 0))
        is_avif = b"avif" in content.getvalue()[:64]
        try:
            self._pixels = _avif(content, limits) if is_avif else _heic(content, limits)
        except (OSError, ValueError, RuntimeError, SyntaxError, EOFError) as error:
            what = f"{type(error).__name__}: {error}"
            raise DecodeError("undecodable", f"a tiled picture that cannot be composed: {what}") from error
        height, width = self._pixels.shape[:2]
        self.damaged: list[tuple[float, float]] = []
        self.info = ClipInfo(
            duration_s=None,
            width=width,
            height=height,
            fps=None,
            codec="av1" if is_avif else "hevc",
            container="avif" if is_avif else "heic",
            pixel_format="rgb24",
            rotation=0,
            decoder=f"pillow {PIL.__version__} libavif" if is_avif else f"libheif {pillow_heif.libheif_version()}",
        )

    def __iter__(self) -> Iterator[Picture]:
        """The picture."""
        height, width = self._pixels.shape[:2]
        yield Picture(av.VideoFrame(), 0, 0.0, _UPRIGHT, (width, height))

    def write(self, picture: Picture, out: Image) -> None:
        """Copy it into `out`, uint8 [H, W, 3], RGB."""
        out[:] = self._pixels


def _check_tiles(fd: int) -> None:
    """libheif shows tiles that it cannot decode as plain areas; libav says which those are.

    Raises:
        DecodeError: tiles are damaged.
    """
    os.lseek(fd, 0, os.SEEK_SET)
    options = {"fd": str(fd), "protocol_whitelist": "fd", "format_whitelist": "mov"}
    with av.open("fd:", options=options) as container:
        tiles = [stream for stream in container.streams.video if stream.disposition & Disposition.dependent]
        good = sum(_is_whole(container, stream) for stream in tiles)
    if good < len(tiles):
        raise DecodeError("undecodable", f"a tiled picture with damage: tiles {good} of {len(tiles)} can be decoded")


def _is_whole(container: av.container.InputContainer, stream: av.VideoStream) -> bool:
    try:
        container.seek(0)
        frames = [frame for packet in container.demux(stream) for frame in stream.codec_context.decode(packet)]
    except av.error.FFmpegError:
        return False
    return bool(frames) and not frames[0].is_corrupt


def _check_pixels(width: int, height: int, limits: Limits) -> None:
    if width * height > limits.max_pixels:
        raise DecodeError("over_limit", f"{width} x {height} px; at most {limits.max_pixels} px a frame are allowed")


def _avif(content: io.BytesIO, limits: Limits) -> Image:
    with AvifImagePlugin.AvifImageFile(content) as picture:
        _check_pixels(*picture.size, limits)
        # Pillow gives irot and imir as an orientation.
        return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))


def _heic(content: io.BytesIO, limits: Limits) -> Image:
    file = pillow_heif.open_heif(content, convert_hdr_to_8bit=True)
    width, height = file.size
    _check_pixels(width, height, limits)
    # With an alpha channel, or one of grey.
    return np.asarray(file.to_pillow().convert("RGB"))
