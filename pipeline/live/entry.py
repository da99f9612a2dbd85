"""Packets that a decoder can begin at: what they lack of the stream's start is put in front of them.

A stream's header, and the encoder's note that libav's H.264 decoder goes by, may be at its start only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import av

# Types of NAL units (ITU-T H.264, table 7-1); those of pictures are 1 to 5.
_IDR, _SEI, _SPS, _PREFIX = 5, 6, 7, 14
_PICTURES = frozenset({1, 2, 3, 4, _IDR, _PREFIX})
_START_CODE = re.compile(rb"\x00{1,2}\x00\x01|\x00\x00\x01")
# SEI payloads (ITU-T H.264, D.1).
_UNREGISTERED, _RECOVERY_POINT = 5, 6
# x264's identifier and the beginning of its text, with the build: those before 151 code 4:4:4 pictures with the
# 8x8 transform in another way than the standard (libavcodec/h264_mvpred.h).
_NOTE = re.compile(rb"\xdc\x45\xe9\xbd\xe6\xd9\x48\xb7\x96\x2c\xd8\x20\xd9\x23\xee\xefx264 - core \d{1,9}")
# Codes that begin the header of a stream: of MPEG-4 (visual object sequence, visual object, video object and its layer;
# ISO/IEC 14496-2, table 6-3) and of MPEG-1 and 2 (sequence; ITU-T H.262, table 6-1).
_HEADERS: Final = {
    "mpeg4": re.compile(rb"\x00\x00\x01[\xb0\xb5\x00-\x2f]"),
    "mpeg1video": re.compile(rb"\x00\x00\x01\xb3"),
    "mpeg2video": re.compile(rb"\x00\x00\x01\xb3"),
}


class Entries:
    """The key frames of one stream, in order."""

    def __init__(self, codec: str, extradata: bytes | None) -> None:
        """Nothing read yet.

        Args:
            codec: libav's name of it.
            extradata: the stream's header, as its container has it.
        """
        self._codec = codec
        self._header = extradata or b""
        # Lengths in front of NAL units in place of start codes (ISO/IEC 14496-15, 5.3.3.1).
        self._length_bytes = (self._header[4] & 3) + 1 if self._header[:1] == b"\1" and len(self._header) > 4 else 0
        self._note = b""

    def is_whole(self, packet: Any) -> bool:
        """Whether the pictures from this key frame on are right without those before it; it may miss the header.

        H.264's gradual refresh is also marked as a key frame: its first pictures are in part those before it.
        """
        if self._codec != "h264":
            return True
        kinds, is_gradual = set[int](), False
        data = bytes(packet)
        for _, start, end in self._units(data):
            kind = data[start] & 31
            kinds.add(kind)
            if kind == _SEI:
                is_gradual |= _is_gradual(data[start + 1 : end])
            if kind in _PICTURES:
                break
        # In front of other pictures than IDR, libav puts no header.
        return _IDR in kinds or (_SPS in kinds and not is_gradual)

    def completed(self, packet: Any) -> Any:
        """The key frame's packet, or a copy with what it lacks."""
        data = bytes(packet)
        if self._codec == "h264":
            whole = self._with_note(data)
        else:
            header = _HEADERS.get(self._codec)
            is_lacking = header is not None and header.search(self._header) and not header.match(data)
            whole = self._header + data if is_lacking else data
        return packet if whole is data else _copy(packet, whole)

    def _with_note(self, data: bytes) -> bytes:
        for at, start, end in self._units(data):
            kind = data[start] & 31
            if kind == _SEI and (note := _NOTE.search(data, start, end)):
                # Its text ends with a zero; 128 ends the unit. Nothing in it has to be escaped.
                text = note[0] + b"\0"
                self._note = bytes((_SEI, _UNREGISTERED, len(text))) + text + b"\x80"
                return data
            if kind in _PICTURES:
                if not self._note:
                    return data
                size = len(self._note).to_bytes(self._length_bytes, "big") if self._length_bytes else b"\0\0\0\1"
                return data[:at] + size + self._note + data[at:]
        return data

    def _units(self, data: bytes) -> Iterator[tuple[int, int, int]]:
        """NAL units that are not empty: where their length or start code begins, they begin, and end."""
        if self._length_bytes:
            at = 0
            while at + self._length_bytes < len(data):
                start = at + self._length_bytes
                end = start + int.from_bytes(data[at:start], "big")
                if end > len(data):
                    return
                if end > start:
                    yield at, start, end
                at = end
            return
        code = _START_CODE.search(data)
        while code is not None:
            # The header's byte is read too: the next code is behind it.
            following = _START_CODE.search(data, code.end() + 1)
            end = following.start() if following else len(data)
            if code.end() < end:
                yield code.start(), code.end(), end
            code = following


def _is_gradual(sei: bytes) -> bool:
    """Whether a recovery point is later than its picture (ITU-T H.264, D.1.8), by the SEI unit's bytes."""
    content = sei.replace(b"\0\0\3", b"\0\0")
    at = 0
    while at + 2 < len(content):
        kind = size = 0
        for number in range(2):
            value = 0
            while at < len(content) and content[at] == 255:
                value, at = value + 255, at + 1
            value, at = value + (content[at] if at < len(content) else 0), at + 1
            kind, size = (value, size) if number == 0 else (kind, value)
        if kind == _RECOVERY_POINT:
            # Of recovery_frame_cnt, an Exp-Golomb code: 0 is a single 1.
            return at < len(content) and not content[at] & 0x80
        at += size
    return False


def _copy(packet: Any, data: bytes) -> Any:
    copy: Any = av.Packet(data)
    copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
    copy.time_base, copy.is_keyframe, copy.stream = packet.time_base, packet.is_keyframe, packet.stream
    return copy
