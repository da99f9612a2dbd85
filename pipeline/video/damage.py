"""What of a stream was lost. After damage no frame is clean until the next clean key frame: they lean on lost ones."""

from __future__ import annotations

import os
import struct
from collections import deque
from dataclasses import dataclass
from typing import Final

# More are joined: a record stays small whatever happened to its file.
MAX_RANGES: Final = 100
# A video that ends this much before its duration, in seconds, is not cut off by rounding.
_TAIL_S = 0.5
# Share of a file that may be padding behind its boxes.
_PADDING = 0.1
_MAX_PENDING = 4096
_MAX_BOXES = 200_000
# Types of boxes at the top level of MP4 and QuickTime files (ISO/IEC 14496-12, QuickTime File Format).
_BOXES = frozenset(b"ftyp moov mdat moof free skip wide pnot uuid meta sidx ssix styp mfra udta emsg prft pdin".split())
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


@dataclass(slots=True)
class _Loss:
    """Damage: which packet in decoding order, from which time on, and the time of its own frame, if it is known."""

    number: int
    from_ts: int | None
    pts: int | None


class DamageLog:
    """Follows packets and frames of one stream.

    Attributes:
        lost: frames and packets that were given up.
        ranges: stretches without a clean frame, in seconds, growing.
        last_s: time of the last frame, clean or not.
    """

    def __init__(self, period_s: float, delay: int) -> None:
        """Nothing is lost yet.

        Args:
            period_s: of a frame.
            delay: packets that the decoder may have taken since the one whose error it reports.
        """
        self.lost = 0
        self.ranges: list[tuple[float, float]] = []
        self._period_s = period_s
        # Number and decoding time of the last packets; numbers, since timestamps may jump back.
        self._recent: deque[tuple[int, int | None]] = deque(maxlen=delay + 1)
        self._number = 0
        self._pending: list[_Loss] = []
        self._key_numbers: dict[int, int] = {}
        self._waiting = self._open = False
        self._clean_end_s = self.last_s = 0.0

    def packet(self, pts: int | None, dts: int | None, *, key: bool, corrupt: bool) -> None:
        """A packet goes to the decoder; `corrupt`: its container says that a part of it is missing."""
        self._number += 1
        self._recent.append((self._number, dts if dts is not None else pts))
        if key and pts is not None:
            self._key_numbers[pts] = self._number
        if corrupt:
            self._lose(*self._recent[-1], pts)

    @property
    def is_found(self) -> bool:
        """Whether anything was lost so far."""
        return self.lost > 0 or bool(self._pending)

    def passed(self, t_s: float) -> None:
        """The decoder was asked to leave out the frames up to this time."""
        self.last_s = t_s
        if not self._open:
            self._clean_end_s = t_s + self._period_s

    def error(self) -> None:
        """The decoder or the container failed at a packet."""
        self.lost += 1
        self._open = True
        self._lose(*(self._recent[0] if self._recent else (0, None)), None)

    def _lose(self, number: int, from_ts: int | None, pts: int | None) -> None:
        self._pending.append(_Loss(number, from_ts, pts))
        del self._pending[:-_MAX_PENDING]

    def is_clean(self, pts: int | None, t_s: float, *, key: bool, corrupt: bool) -> bool:
        """Whether a decoded frame leans on nothing that was lost."""
        if not self._pending and not self._waiting and not corrupt:
            if key and pts is not None:
                self._key_numbers.pop(pts, None)
            clean = True
        else:
            clean = self._is_clean_now(pts, key=key, corrupt=corrupt)
        self.last_s = t_s
        if not clean:
            self.lost += 1
            self._open = True
            return False
        if self._open:
            self._add(self._clean_end_s, t_s)
            self._open = False
        self._clean_end_s = t_s + self._period_s
        return True

    def _is_clean_now(self, pts: int | None, *, key: bool, corrupt: bool) -> bool:
        if key and not corrupt and pts is not None and all(loss.pts != pts for loss in self._pending):
            # What was lost before it, in decoding order, matters no more.
            begun = self._key_numbers.pop(pts, self._number)
            self._pending = [loss for loss in self._pending if loss.number > begun]
            self._waiting = False
            return True
        if corrupt or any(pts is None or loss.from_ts is None or loss.from_ts <= pts for loss in self._pending):
            self._waiting = True
        return not self._waiting

    def ends_before(self, end_s: float) -> bool:
        """Whether the last clean frame is clearly before this time."""
        return end_s - self._clean_end_s > max(_TAIL_S, 2 * self._period_s)

    def finish(self, duration_s: float | None, *, truncated: bool) -> None:
        """The stream is at its end, or its file is."""
        end_s = self._clean_end_s
        if self._open:
            self._add(end_s, max(duration_s or 0.0, self.last_s + self._period_s))
        elif truncated and duration_s is not None and self.ends_before(duration_s):
            self._add(end_s, duration_s)
        self._open = False

    def _add(self, start_s: float, end_s: float) -> None:
        if end_s <= start_s:
            return
        if len(self.ranges) == MAX_RANGES:
            start_s = self.ranges.pop()[0]
        self.ranges.append((start_s, end_s))


def is_truncated(fd: int) -> bool:
    """Whether a file ends before its own structure does: MP4, QuickTime, Matroska, WebM, AVI. False for others."""
    size = os.lseek(fd, 0, os.SEEK_END)
    start = os.pread(fd, 64, 0)
    if start[:4] == b"RIFF":
        return size < 8 + int.from_bytes(start[4:8], "little")
    if start[:4] == _EBML:
        end = _segment_end(start)
        return end is not None and size < end
    return start[4:8] in _BOXES and _boxes_end_early(fd, size)


def _boxes_end_early(fd: int, size: int) -> bool:
    at = 0
    for _ in range(_MAX_BOXES):
        header = os.pread(fd, 16, at)
        if len(header) < 8:
            return len(header) > 0
        if header[4:8] not in _BOXES:
            # Padding may follow; a rest that is not made of boxes is data that was lost.
            return not header[4:8].isalnum() and size - at > _PADDING * size
        length = int.from_bytes(header[:4], "big")
        if length == 0:  # to the end of the file
            return False
        if length == 1:
            if len(header) < 16:
                return True
            length = struct.unpack(">Q", header[8:16])[0]
        if length < 8:
            return False
        at += length
        if at > size:
            return True
    return False


def _segment_end(start: bytes) -> int | None:
    """Where Matroska's segment ends; None if its length is unknown, as in a live recording (RFC 8794, RFC 9559)."""
    at = 4
    length = _vint(start, at)
    if length is None:
        return None
    at += length[1] + length[0]
    if start[at : at + 4] != _SEGMENT:
        return None
    found = _vint(start, at + 4)
    return None if found is None else at + 4 + found[1] + found[0]


def _vint(data: bytes, at: int) -> tuple[int, int] | None:
    """A variable-length number of EBML and its bytes; None if it is unknown or incomplete."""
    if at >= len(data) or data[at] == 0:
        return None
    width = 9 - data[at].bit_length()
    raw = data[at : at + width]
    value = int.from_bytes(raw, "big") & ((1 << 7 * width) - 1)
    return None if len(raw) < width or value == (1 << 7 * width) - 1 else (value, width)
