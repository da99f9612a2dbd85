"""The decode child: reads one clip and writes its sampled frames into shared memory; everything else is restricted."""

from __future__ import annotations

import os
import queue
import resource
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import cv2

from pipeline.types import Image
from pipeline.video import cage
from pipeline.video.clip import DecodeError, Limits
from pipeline.video.reader import VideoReader
from pipeline.video.ring import Ring
from pipeline.video.sampling import parse_decoded
from pipeline.video.streams import TilesError
from pipeline.video.tiles import TiledPicture
from pipeline.video.window import parse_window
from pipeline.video.wire import Channel, Message

# Interval of the heartbeat, far below any sensible `Limits.stall_s`.
_PROGRESS_EVERY_S = 0.5


def run(sock: socket.socket) -> None:
    """Serve the one request that comes through `sock`, then return."""
    channel = Channel(sock)
    received = channel.receive(max_fds=1)
    if received is None:
        return
    request, (source,) = received
    limits = Limits(**request["limits"])
    _restrict(limits)
    # While there is one thread; what comes from the file is read after it.
    cage.lock()
    parent = _Parent(channel)
    try:
        _decode(parent, source, request, limits)
    except DecodeError as error:
        parent.send({"type": "error", "outcome": error.outcome, "message": str(error), "streams": error.streams})
    except (MemoryError, cv2.error) as error:
        if isinstance(error, cv2.error) and error.code != cv2.Error.StsNoMem:
            raise
        message = f"decoding takes more memory than the {limits.data_bytes} bytes allowed"
        parent.send({"type": "error", "outcome": "over_limit", "message": message})
    except Exception as error:
        # The only way to report what happened: standard error is discarded.
        parent.send({"type": "error", "outcome": "undecodable", "message": f"{type(error).__name__}: {error}"})
        raise


def _restrict(limits: Limits) -> None:
    if sys.platform == "linux":
        # If the machine runs out of memory, the kernel kills this process first, not the worker.
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")
    for what, value in (
        (resource.RLIMIT_CPU, limits.cpu_s),
        (resource.RLIMIT_DATA, limits.data_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        # The hard limit of CPU time kills; the soft one sends SIGXCPU first, whose name makes a clearer message.
        resource.setrlimit(what, (value, value + 5 if what == resource.RLIMIT_CPU else value))


class _Parent:
    """The other end of the socket: sends frames, receives free slots; when it closes, this process ends."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._rings: queue.SimpleQueue[Ring] = queue.SimpleQueue()
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._ring: Ring | None = None
        self._spoke_s = time.monotonic()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        try:
            while (received := self._channel.receive(max_fds=1)) is not None:
                message, fds = received
                if message["type"] == "ring":
                    ring = Ring(fds[0], message["slots"], message["slot_bytes"])
                    os.close(fds[0])
                    self._rings.put(ring)
                else:
                    self._free.put(message["slot"])
        finally:
            os._exit(1)

    def send(self, message: Message) -> None:
        self._channel.send(message)
        self._spoke_s = time.monotonic()

    def heartbeat(self) -> None:
        if time.monotonic() - self._spoke_s > _PROGRESS_EVERY_S:
            self.send({"type": "progress"})

    def slot(self, height: int, width: int) -> tuple[int, Image]:
        """Wait for a free slot that holds a picture of this size; ask for another ring if none can."""
        size_bytes = height * width * 3
        if self._ring is None or self._ring.slot_bytes < size_bytes:
            self.send({"type": "ring", "slot_bytes": size_bytes})
            self._ring = self._rings.get()
            # All slots of the old ring are back by now: the parent answers in the order of our messages.
            self._free = queue.SimpleQueue()
            for slot in range(self._ring.slots):
                self._free.put(slot)
        slot = self._free.get()
        return slot, self._ring.view(slot, height, width)


def _decode(parent: _Parent, source: int, request: Message, limits: Limits) -> None:
    sampling = parse_decoded(request["sampling"])
    window = None if request["window"] is None else parse_window(request["window"])
    reader: VideoReader | TiledPicture
    try:
        reader = VideoReader(source, sampling, limits, request["threads"], parent.heartbeat, window, request["stream"])
    except TilesError:
        reader = TiledPicture(source, limits)
    parent.send({"type": "info", **asdict(reader.info)})
    for picture in reader:
        if window is not None and picture.t_s not in window:
            continue  # a picture in tiles is at 0
        width, height = picture.size
        slot, view = parent.slot(height, width)
        reader.write(picture, view)
        frame = {"slot": slot, "height": height, "width": width, "index": picture.index, "t_s": picture.t_s}
        parent.send({"type": "frame", **frame})
    end = {"decoded": reader.frames_decoded, "corrupt": reader.frames_corrupt, "truncated": reader.truncated}
    parent.send({"type": "end", "damaged": reader.damaged, **end})
