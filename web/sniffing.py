"""What kind of file an upload is, by its first bytes: pages and programs are refused; the decoder has the last word."""

from __future__ import annotations

from typing import Final

# Bytes that are enough.
HEAD_BYTES: Final = 4096
_TS_PACKET_BYTES: Final = 188

# (offset, bytes, media type)
_MAGIC: Final = (
    (0, b"\x1a\x45\xdf\xa3", "video/x-matroska"),
    (0, b"FLV\x01", "video/x-flv"),
    (0, b"OggS", "video/ogg"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video/x-ms-asf"),
    (0, b"\x00\x00\x01\xba", "video/mpeg"),
    (0, b"\x00\x00\x01\xb3", "video/mpeg"),
    (0, b"\x00\x00\x00\x01", "video/h264"),
    (0, b"\x00\x00\x01\x09", "video/h264"),
    (0, b"\x00\x00\x01\x67", "video/h264"),
    (0, b"\x00\x00\x01\x27", "video/h264"),
    (0, b"DKIF", "video/x-ivf"),
    (0, b"YUV4MPEG2 ", "video/x-yuv4mpeg"),
    (0, b"nut/multimedia container", "video/x-nut"),
    (0, b"\x06\x0e\x2b\x34\x02\x05\x01\x01", "application/mxf"),
    (0, b"GIF8", "image/gif"),
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"BM", "image/bmp"),
    (0, b"II*\x00", "image/tiff"),
    (0, b"MM\x00*", "image/tiff"),
    (0, b"\xff\x0a", "image/jxl"),
    (0, b"\x00\x00\x00\x0cJXL ", "image/jxl"),
)
# Of ISO base media files and QuickTime: the first boxes that files in use begin with.
_BOXES: Final = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"moof", b"sidx"})
_PICTURE_BRANDS: Final = {b"heic": "image/heic", b"heix": "image/heic", b"mif1": "image/heic", b"avif": "image/avif"}


def media_type_of(head: bytes) -> str | None:
    """The media type of a file; None if nothing that can be decoded begins like this.

    Args:
        head: its first `HEAD_BYTES` bytes, fewer if it is shorter.
    """
    if head[4:8] in _BOXES:
        if head[4:8] == b"ftyp":
            return _PICTURE_BRANDS.get(head[8:12], "video/quicktime" if head[8:12] == b"qt  " else "video/mp4")
        return "video/quicktime"
    if head[:4] == b"RIFF":
        return {b"AVI ": "video/x-msvideo", b"WEBP": "image/webp"}.get(head[8:12])
    for offset, magic, media_type in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            if media_type == "video/x-matroska" and b"webm" in head[:64]:
                return "video/webm"
            return media_type
    # M2TS has four bytes of time before each packet.
    for start, step in ((0, _TS_PACKET_BYTES), (4, _TS_PACKET_BYTES + 4)):
        syncs = head[start::step]
        if len(syncs) >= 2 and set(syncs[: min(len(syncs), 8)]) == {0x47}:
            return "video/mp2t"
    return None
