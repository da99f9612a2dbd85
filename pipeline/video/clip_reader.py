"""The worker's end of one decode child: yields its frames, and validates every message from it."""

from __future__ import annotations

import os
import selectors
import signal
import time
from contextlib import suppress
from dataclasses import asdict, replace
from io import FileIO
from types import TracebackType
from typing import NoReturn, Self

from pipeline.types import Frame
from pipeline.video import wire
from pipeline.video.child_process import ChildProcess
from pipeline.video.clip import ClipInfo, DecodeError, Failure, Limits
from pipeline.video.damage import MAX_RANGES
from pipeline.video.pixels import MAX_ASPECT
from pipeline.video.ring import Ring, allocate, slots_for
from pipeline.video.sampling import DecodedSampling
from pipeline.video.window import Window
from pipeline.video.wire import REPORT, Channel, Message, ProtocolError

# A killed process ends within milliseconds; one that hangs in the kernel (a dead network disk) is abandoned.
_REAP_S = 5.0
_OUTCOMES: dict[str, Failure] = {"undecodable": "undecodable", "over_limit": "over_limit"}
_MAX_COUNT = 2**53
_MAX_STREAMS = 10_000


class ClipReader:
    """One clip: iterate to get its frames; close it, or leave the `with` block, when done.

    A frame's image is a view into shared memory, valid until the next frame is asked for. If the decoder dies, earlier
    frames stay valid and asking for the next one raises DecodeError. Not thread-safe.

    Attributes:
        clip_id: as given.
        info: properties of the clip; its two counts are final at the end of the clip.
        pid: of the decode child.
    """

    info: ClipInfo

    def __init__(self, channel: Channel, report: FileIO, pid: int, clip_id: str, limits: Limits) -> None:
        """Made by `DecodeServer.open`.

        Args:
            channel: to the child.
            report: pipe from the fork server, for the child's exit status.
            pid: of the child.
            clip_id: goes into the frames.
            limits: of the child.
        """
        self.clip_id = clip_id
        self.pid = pid
        self._limits = limits
        self._channel = channel
        self._report = report
        self._status: int | None = None
        self._process = ChildProcess(pid)
        self._ring: Ring | None = None
        self._held: int | None = None
        self._window: Window | None = None
        self._ended = False
        self._error: DecodeError | None = None
        self._waited_s = 0.0
        self._waiting_since_s: float | None = None

    def start(
        self, source: int, sampling: DecodedSampling, threads: int, window: Window | None = None, stream: int = 0
    ) -> None:
        """Send the request and wait until the first frame is decoded.

        Raises:
            DecodeError: no frame can be read from it.
        """
        self._window = window
        request = {
            "sampling": sampling.describe(),
            "limits": asdict(self._limits),
            "threads": threads,
            "window": None if window is None else window.describe(),
            "stream": stream,
        }
        with suppress(BrokenPipeError, ConnectionResetError):  # it died already: `_receive` finds the cause
            self._channel.send(request, [source])
        try:
            message = self._receive()
            if message["type"] != "info":
                raise ProtocolError(f"info was expected, got {message['type']!r}")
            self.info = _info(message, self._limits)
        except ProtocolError as error:
            self._distrust(error)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Frame:
        if self._error is not None:
            raise self._error
        if self._ended:
            raise StopIteration
        try:
            self._release()
            while not self._ended:
                message = self._receive()
                match message["type"]:
                    case "frame":
                        return self._frame(message)
                    case "ring":
                        self._renew_ring(message)
                    case "end":
                        self._finish(message)
                    case other:
                        raise ProtocolError(f"unexpected message {other!r:.40}")
        except ProtocolError as error:
            self._distrust(error)
        raise StopIteration

    def _release(self) -> None:
        if self._held is not None:
            with suppress(BrokenPipeError, ConnectionResetError):  # it may have sent all and ended
                self._channel.send({"type": "free", "slot": self._held})
            self._held = None

    def _frame(self, message: Message) -> Frame:
        if self._ring is None:
            raise ProtocolError("a frame before there was memory for it")
        slot = wire.integer(message, "slot", 0, self._ring.slots - 1)
        width, height = _size(message, self._limits)
        if width * height * 3 > self._ring.slot_bytes:
            raise ProtocolError(f"{width} x {height} px do not fit into {self._ring.slot_bytes} bytes")
        index = wire.integer(message, "index", 0, _MAX_COUNT)
        t_s = wire.number(message, "t_s")
        if self._window is not None and t_s not in self._window:
            raise ProtocolError(f"a frame at {t_s} s, outside of {self._window.describe()}")
        self._held = slot
        return Frame(self._ring.view(slot, height, width), t_s, index, self.clip_id)

    def _renew_ring(self, message: Message) -> None:
        present = self._ring.slot_bytes if self._ring is not None else 0
        slot_bytes = wire.integer(message, "slot_bytes", present + 1, self._limits.max_pixels * 3)
        slots = slots_for(slot_bytes)
        try:
            fd = allocate(slots * slot_bytes)
        except OSError as error:
            self._process.kill()
            self._fail(DecodeError("over_limit", f"no memory for {slots} frames of {slot_bytes} bytes: {error}"))
        try:
            self._ring = Ring(fd, slots, slot_bytes)
            with suppress(BrokenPipeError, ConnectionResetError):  # it died: the next `_receive` finds the cause
                self._channel.send({"type": "ring", "slots": slots, "slot_bytes": slot_bytes}, [fd])
        finally:
            os.close(fd)

    def _finish(self, message: Message) -> None:
        decoded = wire.integer(message, "decoded", 0, _MAX_COUNT)
        corrupt = wire.integer(message, "corrupt", 0, _MAX_COUNT)
        damaged = wire.ranges(message, "damaged", MAX_RANGES)
        truncated = message.get("truncated") is True
        self.info = replace(
            self.info, frames_decoded=decoded, frames_corrupt=corrupt, damaged=damaged, truncated=truncated
        )
        self._ended = True

    def _receive(self) -> Message:
        """The next message that is not a heartbeat."""
        while True:
            since_s = self._waiting_since_s = time.monotonic()
            try:
                received = self._channel.receive()
            except ConnectionResetError:
                received = None
            finally:
                self._waiting_since_s = None
                self._waited_s += time.monotonic() - since_s
            if received is None:
                self._fail(self._cause_of_death())
            message, _ = received
            match message.get("type"):
                case "progress":
                    continue
                case "error":
                    outcome = _OUTCOMES.get(wire.text(message, "outcome"), "undecodable")
                    streams = wire.integer(message, "streams", 1, _MAX_STREAMS) if "streams" in message else 1
                    self._fail(DecodeError(outcome, wire.text(message, "message"), streams=streams))
                case None:
                    raise ProtocolError("a message without a type")
            return message

    def _fail(self, error: DecodeError) -> NoReturn:
        self._error = self._error or error
        raise self._error

    def _distrust(self, error: ProtocolError) -> NoReturn:
        self._process.kill()
        self._fail(DecodeError("undecodable", f"the decoder sent an invalid message: {error}"))

    def _cause_of_death(self) -> DecodeError:
        self._reap()
        if self._status is None:
            return DecodeError("undecodable", "the decoder ended without an error message", died=True)
        code = os.waitstatus_to_exitcode(self._status)
        if code == -signal.SIGXCPU:
            return DecodeError("over_limit", f"decoding takes more than {self._limits.cpu_s} s of CPU time", died=True)
        if code < 0:
            return DecodeError("undecodable", f"the decoder died of {_signal_name(-code)}", died=True)
        return DecodeError("undecodable", f"the decoder ended with exit code {code}", died=True)

    def check(self) -> None:
        """End the child if it exceeded a limit of time or memory. Another thread calls this regularly."""
        if self._ended:
            return
        limits = self._limits
        since_s = self._waiting_since_s
        stalled_s = 0.0 if since_s is None else time.monotonic() - since_s
        if stalled_s > limits.stall_s:
            self._sentence(f"the decoder sent no heartbeat for {limits.stall_s:g} s")
        elif self._waited_s + stalled_s > limits.wall_s:
            self._sentence(f"decoding takes more than {limits.wall_s:g} s")
        elif self._process.rss_bytes() > limits.rss_bytes:
            self._sentence(f"decoding takes more than {limits.rss_bytes} bytes of memory")

    def _sentence(self, message: str) -> None:
        self._error = self._error or DecodeError("over_limit", message, died=True)
        self._process.kill()

    def abort(self) -> None:
        """End the child; the reader of the clip gets DecodeError and closes it. Callable from any thread."""
        self._error = self._error or DecodeError("unavailable", "the decode server was closed")
        self._process.kill()

    def _reap(self) -> None:
        """Wait until the fork server reports the child's exit status, or is gone."""
        if self._report.closed:
            return
        with selectors.DefaultSelector() as selector:
            selector.register(self._report, selectors.EVENT_READ)
            status = self._report.read(REPORT.size) if selector.select(_REAP_S) else b""
        if status:
            (self._status,) = REPORT.unpack(status)
            # It was waited for, so its number may belong to another process.
            self._process.close()
        self._report.close()

    def close(self) -> None:
        """End the child in any state, and free the clip's resources. Idempotent."""
        self._ended = True
        self._process.kill()
        self._reap()
        self._process.close()
        self._channel.close()
        self._ring = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no name
        return f"signal {number}"


def _size(message: Message, limits: Limits) -> tuple[int, int]:
    width = wire.integer(message, "width", 1, limits.max_pixels)
    height = wire.integer(message, "height", 1, limits.max_pixels)
    if width * height > limits.max_pixels:
        raise ProtocolError(f"{width} x {height} px, after the limit was checked")
    return width, height


def _aspect(message: Message) -> float:
    value = wire.number(message, "pixel_aspect")
    if not 1 / MAX_ASPECT <= value <= MAX_ASPECT:
        raise ProtocolError(f"pixel_aspect must be in 1/{MAX_ASPECT}..{MAX_ASPECT}, got {value}")
    return value


def _info(message: Message, limits: Limits) -> ClipInfo:
    width, height = _size(message, limits)
    rotation = wire.integer(message, "rotation", 0, 270)
    if rotation % 90:
        raise ProtocolError(f"rotation must be a multiple of 90, got {rotation}")
    return ClipInfo(
        duration_s=wire.optional_number(message, "duration_s"),
        width=width,
        height=height,
        fps=wire.optional_number(message, "fps"),
        codec=wire.text(message, "codec"),
        container=wire.text(message, "container"),
        pixel_format=wire.text(message, "pixel_format"),
        rotation=rotation,
        decoder=wire.text(message, "decoder"),
        seek_s=wire.optional_number(message, "seek_s"),
        pixel_aspect=_aspect(message),
        streams=wire.integer(message, "streams", 1, _MAX_STREAMS),
    )
