"""x264's note on itself, which decoders need and which only the first picture of a stream has.

libav's decoder reads the version of x264 from it, and decodes what versions before 151 got wrong (4:4:4 with transforms
of 8 x 8) as they meant it. A segment without the note would be decoded to green pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import av

# Types of NAL units (ITU-T H.264, table 7-1), and of the message for data without a registered format (D.1.7).
_DELIMITER, _SEI = 9, 6
_UNREGISTERED: Final = 5
# The identifier with which x264 begins its note.
_X264: Final = bytes.fromhex("dc45e9bde6d948b7962cd820d923eeef")
_START: Final = b"\0\0\0\1"


class EncoderNote:
    """Gives x264's note to the first packet of each segment.

    Args:
        extradata: of the stream: with it, in MP4, NAL units have their length in front of them, else a start code.
    """

    def __init__(self, extradata: bytes | None) -> None:
        is_avcc = extradata is not None and len(extradata) > 4 and extradata[0] == 1
        self._length_bytes = (extradata[4] & 3) + 1 if is_avcc and extradata is not None else 0
        self._note: bytes | None = None

    def learn(self, packet: Any) -> None:
        """Keep the note if this packet has it."""
        data = bytes(packet)
        if _X264 in data:
            self._note = next((unit for unit in self._units(data) if _is_note(unit)), self._note)

    def given_to(self, packet: Any) -> Any:
        """The packet with the note, if the stream has one, behind the delimiter of the access unit."""
        data = bytes(packet)
        if self._note is None or _X264 in data:
            return packet
        first = next(self._units(data), b"")
        at = data.index(first) + len(first) if first and first[0] & 31 == _DELIMITER else 0
        changed = av.Packet(data[:at] + self._framed(self._note) + data[at:])
        changed.stream, changed.pts, changed.dts = packet.stream, packet.pts, packet.dts
        changed.time_base, changed.duration = packet.time_base, packet.duration
        changed.is_keyframe = packet.is_keyframe
        return changed

    def _framed(self, unit: bytes) -> bytes:
        return (len(unit).to_bytes(self._length_bytes) if self._length_bytes else _START) + unit

    def _units(self, data: bytes) -> Iterator[bytes]:
        """NAL units, without length or start code."""
        if not self._length_bytes:
            for part in data.split(_START[1:])[1:]:
                yield part.rstrip(b"\0")
            return
        at = 0
        while at + self._length_bytes <= len(data):
            begin = at + self._length_bytes
            at = begin + int.from_bytes(data[at:begin])
            yield data[begin:at]


def _is_note(unit: bytes) -> bool:
    return len(unit) > 2 and unit[0] & 31 == _SEI and unit[1] == _UNREGISTERED and _X264 in unit
