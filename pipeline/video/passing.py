"""Frames that need not be decoded: they are not sampled, and no other frame leans on them.

Runs in the decode child. Only the decoder knows which pictures others lean on; it is asked to leave out those that
nothing leans on, for packets whose picture is not sampled.
"""

from __future__ import annotations

import bisect
import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from pipeline.video.seeking import VideoPacket

# H.264 says of each picture whether others lean on it (nal_ref_idc, ITU-T H.264 7.4.1). HEVC does so within a temporal
# layer only.
CODECS: Final = frozenset({"h264"})
# Containers whose packets are whole frames with times.
CONTAINERS: Final = frozenset({"mov", "matroska"})
# More packets than a decoder may hold back: the frame shown before a packet's is among the packets around it.
_AHEAD: Final = 24


def with_the_frame_before(
    packets: Iterable[VideoPacket], failed_reads: Callable[[], int]
) -> Iterator[tuple[VideoPacket, int | None, int]]:
    """Each packet with the timestamp of the frame that is shown before its own, and the failed reads up to it.

    The timestamp is None where it is unknown, and for the last packets of a stream.

    Args:
        packets: in their order; some are read ahead.
        failed_reads: how many reads have failed so far.
    """
    waiting: deque[tuple[VideoPacket, int]] = deque()
    shown: list[int] = []
    for packet in packets:
        waiting.append((packet, failed_reads()))
        if packet.pts is not None and not packet.is_discard:
            bisect.insort(shown, packet.pts)
        if len(waiting) > _AHEAD:
            first, failed = waiting.popleft()
            at = 0 if first.pts is None else bisect.bisect_left(shown, first.pts)
            yield first, shown[at - 1] if at else None, failed
            del shown[: max(0, len(shown) - 4 * _AHEAD)]
    for packet, failed in waiting:
        yield packet, None, failed


class Passed:
    """Counts the frames that the decoder left out, in the order in which they are shown.

    Attributes:
        last_pts: of the last one, or None.
    """

    def __init__(self, is_sampled: Callable[[int, int], bool], first_pts: int | None) -> None:
        """Nothing is left out yet.

        Args:
            is_sampled: whether a frame is sampled, by its timestamp and that of the frame shown before it.
            first_pts: earlier frames are not counted.
        """
        self._is_sampled = is_sampled
        self._first_pts = first_pts
        self._asked: list[int] = []  # a heap: may be left out
        self.last_pts: int | None = None

    def may_pass(self, packet: VideoPacket, before_pts: int | None) -> bool:
        """Whether the decoder may leave out the packet's picture."""
        pts = packet.pts
        if pts is None or before_pts is None or packet.is_discard:
            return False
        if (self._first_pts is not None and before_pts < self._first_pts) or self._is_sampled(pts, before_pts):
            return False
        heapq.heappush(self._asked, pts)
        return True

    def before(self, pts: int | None) -> int:
        """How many were left out since the last frame, now that the decoder gives the one with this timestamp."""
        count = 0
        while pts is not None and self._asked and self._asked[0] <= pts:
            passed = heapq.heappop(self._asked)
            if passed < pts:
                count += 1
                self.last_pts = passed
        return count
