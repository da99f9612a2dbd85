"""Which video streams of a file are looked at, and what cannot be read."""

from __future__ import annotations

import os

import av
from av.stream import Disposition

from pipeline.video.clip import DecodeError
from pipeline.video.hdr import TRANSFERS

# Tags of Dolby Vision in MP4.
_DOLBY_VISION = frozenset({"dvh1", "dvhe", "dva1", "dvav", "dav1"})
_UNKNOWN = "the video stream's codec is unknown to this libav"


class TilesError(DecodeError):
    """The file holds one picture in tiles, see `pipeline.video.tiles`."""


def ranked_streams(container: av.container.InputContainer) -> list[av.VideoStream]:
    """The streams that may be read, the largest first; those of unknown codecs, which have no size, are the last.

    Raises:
        TilesError: they are tiles of one picture.
        DecodeError: the file has no readable video stream.
    """
    aside = Disposition.attached_pic | Disposition.timed_thumbnails
    videos = [s for s in container.streams.video if not s.disposition & aside]
    if not videos:
        raise DecodeError("undecodable", "no video stream")
    # Without a context PyAV 18 crashes instead of raising (PyAV#2344).
    decodable = [s for s in videos if s.codec_context is not None]
    if not decodable:
        raise DecodeError("undecodable", _UNKNOWN)
    tiles = [s for s in videos if s.disposition & Disposition.dependent]
    if len(tiles) > 1:
        # One tile would be taken for the picture.
        raise TilesError("undecodable", f"a picture of {len(tiles)} tiles")

    def rank(stream: av.VideoStream) -> tuple[int, bool, int]:
        # The default one of equals: a recorder may mark slides, and leave the camera unmarked.
        return stream.width * stream.height, bool(stream.disposition & Disposition.default), stream.frames

    ranked = sorted(decodable, key=rank, reverse=True)
    # A second picture of a still is its transparency or its thumbnail.
    moving = [s for s in ranked[1:] if s.frames != 1]
    return [ranked[0], *moving, *(s for s in videos if s.codec_context is None)]


def declared_end_s(stream: av.VideoStream) -> float | None:
    """The duration that writers of Matroska tag a stream with, in seconds; None if they did not."""
    parts = stream.metadata.get("DURATION", "").split(":")
    try:
        hours, minutes, seconds = (float(part) for part in parts)
    except ValueError:
        return None
    return 3600 * hours + 60 * minutes + seconds


def check_readable(stream: av.VideoStream) -> None:
    """Refuse a stream that libav cannot decode, or whose colours would be wrong.

    Raises:
        DecodeError: its codec is unknown, or it is Dolby Vision without a picture for other screens.
    """
    if stream.codec_context is None:
        raise DecodeError("undecodable", _UNKNOWN)
    if stream.codec_context.codec_tag in _DOLBY_VISION and stream.codec_context.color_trc not in TRANSFERS:
        # Profile 5 has no picture that other screens could show; later profiles tag theirs as PQ or HLG.
        raise DecodeError("undecodable", "Dolby Vision profile 5, whose colours this libav does not read")


def why_no_frame(fd: int) -> str:
    """The rest of a sentence on a file of which no frame could be decoded: its reason, where one is known, or ""."""
    start = os.pread(fd, 21, 0)
    # RFC 9649, 2.7: the extended header's flag of an animation.
    if start[8:16] == b"WEBPVP8X" and start[20:21] and start[20] & 2:
        return ": this libav does not read animated WebP"
    return ""
