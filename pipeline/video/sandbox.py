"""Decoding out of process: a hostile or broken file affects only its own clip.

Video files are hostile input, and libav is a large parser in C. Each clip is read by a child process of its own, with
limits on memory, time and files, in a cage (`pipeline.video.cage`) and without a network as far as the system allows,
and with demuxers that open only the one given file. All its output is checked before use.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline.video.cage import NO_LAYERS, Layers
from pipeline.video.clip import ClipInfo, DecodeError, Limits
from pipeline.video.clip_reader import ClipReader
from pipeline.video.sampling import DecodedSampling, Fps
from pipeline.video.window import Window
from pipeline.video.wire import REPORT, Channel

__all__ = ["ClipInfo", "ClipReader", "DecodeError", "DecodeServer", "Isolation", "Limits", "Window"]

log = logging.getLogger(__name__)

# The directory that holds our packages: the server must import the code that runs here, whatever its directory.
_ROOT = Path(__file__).resolve().parents[2]
# It takes about a second; a cold disk on a busy machine takes many.
_START_TIMEOUT_S = 120.0
# It only has to kill and reap its children.
_STOP_TIMEOUT_S = 10.0
# How often clips are checked for time and memory. A decoder allocates well below 1 GB in this time.
_WATCH_EVERY_S = 0.2
# What the interpreter needs to start. A process that parses hostile files must not see the worker's secrets.
_ENVIRONMENT = ("PATH", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")
# More decode a single clip faster, but several clips run at once, and each thread holds frames.
_THREADS = 2


def cage_required() -> bool:
    """Whether UNMASK_SANDBOX refuses to decode without a whole cage.

    Raises:
        ValueError: its value is neither auto nor required.
    """
    value = os.environ.get("UNMASK_SANDBOX") or "auto"
    if value not in ("auto", "required"):
        raise ValueError(f"UNMASK_SANDBOX: expected auto or required, got {value!r}")
    return value == "required"


@dataclass(frozen=True, slots=True)
class Isolation:
    """Isolation that this system provides in addition to processes and limits.

    Attributes:
        no_network: decode children run in a network namespace without addresses.
        layers: of their cage.
    """

    no_network: bool
    layers: Layers = NO_LAYERS


class DecodeServer:
    """Opens clips, each in a decode child of its own. Thread-safe; a context manager.

    It starts a fork server when first needed, and a new one if that dies. `close` leaves no process behind.
    """

    def __init__(self, threads: int = _THREADS) -> None:
        """Starts no process yet.

        Args:
            threads: of each decode child.
        """
        self._threads = threads
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._greeted = False
        self._isolation = Isolation(no_network=False)
        self._clips: weakref.WeakSet[ClipReader] = weakref.WeakSet()
        self._watchman: threading.Thread | None = None
        self._closed = threading.Event()

    @property
    def isolation(self) -> Isolation:
        """The isolation on this machine. Starts the server."""
        with self._lock:
            self._connect()
            return self._isolation

    def start(self) -> None:
        """Start the fork server without waiting for it, so that it imports its decoders while others load.

        Raises:
            RuntimeError: this server is closed.
        """
        with self._lock:
            if self._closed.is_set():
                raise RuntimeError("this DecodeServer is closed")
            if self._process is None:
                self._launch()

    def open(
        self,
        source: Path | int,
        clip_id: str,
        sampling: DecodedSampling | None = None,
        limits: Limits | None = None,
        window: Window | None = None,
        stream: int = 0,
    ) -> ClipReader:
        """Open a clip and decode its first frame.

        Args:
            source: path of a regular file, or a descriptor of one (which is read from its start, moves its offset,
                and stays the caller's).
            clip_id: goes into the frames.
            sampling: which frames to deliver; two a second if not given.
            limits: of the child; the defaults if not given.
            window: deliver only the frames in it, with the same times and pixels as from the whole clip. Their `index`
                is the same too, except in Matroska (unless sampling is `Every`), where it is estimated from time and
                average rate; its differences are exact.
            stream: which of the clip's video streams, the largest first.

        Raises:
            DecodeError: it cannot be opened ("unavailable"), has no video ("undecodable") or passes a limit
                ("over_limit").
            RuntimeError: the server is closed, does not start, or lacks layers of the cage that are required.
        """
        fd = _open_regular(source)
        try:
            clip = self._fork(clip_id, limits or Limits())
            try:
                clip.start(fd, sampling or Fps(), self._threads, window, stream)
            except BaseException:
                clip.close()
                raise
            return clip
        finally:
            os.close(fd)

    def close(self) -> None:
        """End all children and the server; clips that are still being read end with DecodeError. Idempotent."""
        self._closed.set()
        with self._lock:
            clips = list(self._clips)
            self._disconnect()
        for clip in clips:
            clip.abort()
        if self._watchman is not None:
            self._watchman.join()

    def _fork(self, clip_id: str, limits: Limits) -> ClipReader:
        clip = self._try_fork(clip_id, limits) or self._try_fork(clip_id, limits)
        if clip is None:
            raise RuntimeError("the decode server died twice in a row; see its standard error")
        return clip

    def _try_fork(self, clip_id: str, limits: Limits) -> ClipReader | None:
        """A clip with a fresh child, or None if the server is dead."""
        ours, theirs = socket.socketpair()
        reading, writing = os.pipe()
        report = FileIO(reading)
        try:
            with self._lock:
                channel = self._connect()
                # A dead server is noticed below too: then the other end of the pipe is closed.
                with suppress(BrokenPipeError, ConnectionResetError):
                    channel.send({}, [theirs.fileno(), writing])
        finally:
            theirs.close()
            os.close(writing)
        answer = report.read(REPORT.size)
        if not answer:
            ours.close()
            report.close()
            return None
        (pid,) = REPORT.unpack(answer)
        if pid < 0:
            ours.close()
            report.close()
            raise DecodeError("unavailable", f"no process to decode in: {os.strerror(-pid)}")
        clip = ClipReader(Channel(ours), report, pid, clip_id, limits)
        with self._lock:
            self._clips.add(clip)
            if self._watchman is None:
                self._watchman = threading.Thread(target=self._watch, name="decode-watch", daemon=True)
                self._watchman.start()
        return clip

    def _watch(self) -> None:
        while not self._closed.wait(_WATCH_EVERY_S):
            with self._lock:
                clips = list(self._clips)
            for clip in clips:
                try:
                    clip.check()
                except Exception:
                    # The limits of the other clips are still to be kept.
                    log.exception("the limits of a clip could not be checked")

    def _connect(self) -> Channel:
        if self._closed.is_set():
            raise RuntimeError("this DecodeServer is closed")
        if self._channel is None or self._process is None or self._process.poll() is not None:
            self._disconnect()
            self._launch()
        assert self._channel is not None
        if not self._greeted:
            self._greet(self._channel)
        return self._channel

    def _launch(self) -> None:
        """Start the process; it says hello once it has imported its decoders."""
        ours, theirs = socket.socketpair()
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        path = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            # -P: a file named like a module in the current directory must not be imported.
            [sys.executable, "-P", "-m", "pipeline.video.forkserver"],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            env={**environment, "PYTHONPATH": os.pathsep.join(path), "OPENBLAS_NUM_THREADS": "1"},
            # Ctrl-C in the terminal is for the worker, which ends the decoders itself.
            start_new_session=True,
        )
        theirs.close()
        self._channel, self._greeted = Channel(ours), False

    def _greet(self, channel: Channel) -> None:
        """Wait for the hello, which says how isolated children are."""
        assert self._process is not None
        channel.set_timeout(_START_TIMEOUT_S)
        try:
            hello = channel.receive()
        except TimeoutError as error:
            self._disconnect()
            raise RuntimeError(f"the decode server did not answer within {_START_TIMEOUT_S:g} s") from error
        if hello is None:
            code = self._process.wait()
            self._disconnect()
            raise RuntimeError(f"the decode server ended with exit code {code}; see its standard error")
        channel.set_timeout(None)
        self._isolation = Isolation(bool(hello[0].get("no_network")), Layers(**hello[0]["layers"]))
        self._check_cage()
        self._greeted = True

    def _check_cage(self) -> None:
        if not (missing := self._isolation.layers.missing):
            return
        lacks = f"this system lacks {', '.join(missing)} for the cage of decode children"
        if cage_required():
            self._disconnect()
            raise RuntimeError(f"{lacks}, and UNMASK_SANDBOX is required")
        log.warning("%s: see `unmask doctor`", lacks)

    def _disconnect(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _open_regular(source: Path | int) -> int:
    """A new descriptor of a regular file that is not empty.

    Raises:
        DecodeError: it cannot be opened, or is not such a file.
    """
    name = "the file" if isinstance(source, int) else f"{source}"
    try:
        # O_NONBLOCK: opening a named pipe must not wait for its writer.
        fd = os.dup(source) if isinstance(source, int) else os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise DecodeError("unavailable", f"cannot open {name}: {error}") from error
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_size:
        return fd
    os.close(fd)
    if stat.S_ISDIR(status.st_mode):
        raise DecodeError("unavailable", f"{name} is a directory")
    if not stat.S_ISREG(status.st_mode):
        raise DecodeError("unavailable", f"{name} is not a regular file")
    raise DecodeError("undecodable", f"{name} is empty")
