"""Where a decoder may begin in the middle of a file, and the frame numbers from there.

Runs in the decode child. The index only suggests where to look; it never decides which frames are delivered. The reader
checks what it finds, and reads from the start if that is wrong.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import av
import av.error

VideoPacket: TypeAlias = "av.Packet[av.VideoStream]"

# Packets that libav's seek may bring in place of one before the wanted time: of a later picture that is stored
# earlier. Each try goes back behind the last one; the second does in all files met so far.
_TRIES = 4
# Pictures shown before the key frame that they are stored behind. H.264 and H.265 keep at most 16 pictures back.
_MAX_LEADING = 32
# Higher rates are invalid: Matroska without a duration for its frames gives 30,000.
_MAX_FPS = 1000
_MAX_TIMESTAMP = 2**62


@dataclass(frozen=True, slots=True)
class Beginning:
    """Packets to decode from, and what came before them.

    Attributes:
        packets: from a key frame on.
        pts: of that key frame; frames shown before it depend on packets that are missing. None at the start.
        frames_before: frames that are shown before it.
        packets_before: packets that are stored before it.
    """

    packets: Iterable[VideoPacket]
    pts: int | None = None
    frames_before: int = 0
    packets_before: int = 0


class SeekIndex:
    """A copy of the index of a file: libav moves its own in memory while the file is read.

    MP4 and related formats list all packets. Matroska lists key frames, and not all of them; frames between two are
    estimated from time and average rate.

    Attributes:
        exact: the numbers of frames are counted, not estimated.
        seek_s: the longest stretch without a key frame, in seconds; None where the index does not say.
    """

    def __init__(self, exact: bool, seek_s: float | None, numbers: dict[tuple[int, int], tuple[int, int]]) -> None:
        """Made by `load_index`, in order of time.

        Args:
            numbers: of key frames, by decoding time and position in the file: packets and shown frames before it.
        """
        self.exact = exact
        self.seek_s = seek_s
        self._numbers = numbers
        self._keys = [timestamp for timestamp, _ in numbers]

    def has_key(self, after_pts: int, last_pts: int) -> bool:
        """Whether it lists a key frame decoded after the time `after_pts`, at or before `last_pts`."""
        found = bisect.bisect_right(self._keys, after_pts)
        return found < len(self._keys) and self._keys[found] <= last_pts

    def begin(
        self,
        container: av.container.InputContainer,
        stream: av.VideoStream,
        packets: Callable[[], Iterator[VideoPacket]],
        last_pts: int,
    ) -> Beginning | None:
        """Go to the last key frame that is found at or before `last_pts`.

        Args:
            container: its position changes.
            stream: of it.
            packets: reads its packets from wherever it is.

        Returns:
            None if there is no such key frame, or it differs from the index.
        """
        target = max(-_MAX_TIMESTAMP, min(last_pts, _MAX_TIMESTAMP))
        for _ in range(_TRIES):
            try:
                container.seek(target, stream=stream, backward=True)
            except (av.error.FFmpegError, OverflowError):
                return None
            coming = packets()
            key = next(coming, None)
            if key is None or key.pts is None:
                return None
            if key.is_keyframe and key.pts <= last_pts:
                return self._counted(stream, key, coming)
            target = min(target, key.pts, key.pts if key.dts is None else key.dts) - 1
        return None

    def _counted(self, stream: av.VideoStream, key: VideoPacket, coming: Iterator[VideoPacket]) -> Beginning | None:
        assert key.pts is not None
        packets, leading = [key], 0
        for packet in coming:
            packets.append(packet)
            if packet.pts is None or leading > _MAX_LEADING:
                return None
            if packet.pts > key.pts:
                break
            leading += 1

        def rest() -> Iterator[VideoPacket]:
            yield from packets
            packets.clear()
            yield from coming

        if not self.exact:
            number = _estimate(stream, key.pts)
            return None if number is None else Beginning(rest(), key.pts, number, max(0, number - leading))
        numbers = self._numbers.get((key.pts if key.dts is None else key.dts, key.pos or 0))
        if numbers is None:
            return None
        packets_before, frames_before = numbers
        return Beginning(rest(), key.pts, frames_before + leading, packets_before)


def load_index(
    container: av.container.InputContainer, stream: av.VideoStream, duration_s: float | None, max_frames: int
) -> SeekIndex | None:
    """The container's index, or None if it is not reliable. The container's position is undefined afterwards.

    MPEG-TS, elementary streams and all others have no index: libav seeks in them by guessing a position.

    Args:
        container: open, nothing read from it yet.
        stream: the one that will be read.
        duration_s: of the stream, if known.
        max_frames: a longer index is ignored.
    """
    if stream.start_time is None or stream.time_base is None:
        return None
    exact = "mov" in container.format.name.split(",")
    if not exact and "matroska" not in container.format.name.split(","):
        return None
    if not exact:
        # Its index is at the end of the file and is read at the first seek.
        try:
            container.seek(stream.start_time, stream=stream, backward=True)
        except (av.error.FFmpegError, OverflowError):
            return None
        if _estimate(stream, stream.start_time) is None:
            return None
    entries = stream.index_entries
    if not 0 < len(entries) <= max_frames:
        return None
    numbers: dict[tuple[int, int], tuple[int, int]] = {}
    key_times: list[int] = []
    shown, last = 0, None
    for rank, entry in enumerate(entries):
        timestamp = entry.timestamp
        if last is not None and timestamp <= last:
            return None  # repeated times: the reader makes up its own, which requires reading everything before
        last = timestamp
        if entry.is_keyframe:
            numbers[timestamp, entry.pos] = rank, shown
            key_times.append(timestamp)
        shown += not entry.is_discard
    seek_s = None
    if key_times and duration_s is not None:
        end = stream.start_time + duration_s / float(stream.time_base)
        gaps = [b - a for a, b in zip(key_times, [*key_times[1:], end], strict=True)]
        seek_s = max(0.0, float(max(gaps) * stream.time_base))
    return SeekIndex(exact, seek_s, numbers)


def _estimate(stream: av.VideoStream, pts: int) -> int | None:
    rate = stream.average_rate
    if not rate or not 0 < rate <= _MAX_FPS or stream.start_time is None or stream.time_base is None:
        return None
    return max(0, round((pts - stream.start_time) * stream.time_base * rate))
