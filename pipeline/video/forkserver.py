"""The fork server: imports the decoders once and forks itself for each clip.

Not `multiprocessing`'s, which imports the caller's `__main__` again in every child. `DecodeServer` starts it as
`python -m pipeline.video.forkserver` with a connected socket as standard input. A request is a message with two
descriptors: the child's end of a socket pair, and a pipe into which this server writes the child's pid at once and
its wait status when it has ended. When the other end of the socket closes, the server kills all children and exits.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import importlib
import json
import os
import pkgutil
import selectors
import signal
import socket
import sys
from contextlib import suppress

import av
import cv2

from pipeline.video import cage, child
from pipeline.video.wire import REPORT, Channel

# linux/sched.h; `os.unshare` comes with Python 3.12.
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000


def main() -> None:
    """Serve until the other end hangs up."""
    channel = Channel(socket.socket(fileno=os.dup(0)))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    # A fork copies the calling thread only: no other thread may run.
    cv2.setNumThreads(1)
    _import_all()
    no_network = _leave_network()
    # Keeps the collector from touching, and thereby copying, the pages that children share.
    gc.freeze()
    try:
        channel.send({"no_network": no_network, "layers": _layers()})
    except (BrokenPipeError, ConnectionResetError):  # no clip was opened in the end
        return
    _Server(channel).serve()


def _import_all() -> None:
    """Import every module of PyAV: a child in its cage can open no file."""
    for module in pkgutil.walk_packages(av.__path__, "av."):
        with suppress(ImportError):
            importlib.import_module(module.name)


def _layers() -> dict[str, object]:
    """Which layers the cage has here, as a child finds them."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, json.dumps(cage.lock().to_dict()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        found = answer.read()
    os.waitpid(pid, 0)
    return dict(json.loads(found)) if found else cage.NO_LAYERS.to_dict()


def _leave_network() -> bool:
    """Move to a network namespace without addresses, which children inherit. Not allowed everywhere: best effort."""
    if sys.platform != "linux":
        return False
    unshare = ctypes.CDLL(None).unshare
    return bool(unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0)


class _Server:
    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._reports: dict[int, int] = {}  # pid of a living child: the pipe for its status
        self._woken, self._wakes = os.pipe()
        for fd in (self._woken, self._wakes):
            os.set_blocking(fd, False)
        # The handler does nothing; it makes Python write to the pipe, which wakes `select`.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wakes, warn_on_full_buffer=False)

    def serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._channel, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            serving = True
            while serving:
                for key, _ in selector.select():
                    if key.fd == self._woken:
                        with suppress(BlockingIOError):
                            os.read(self._woken, 4096)
                        self._reap(os.WNOHANG)
                    else:
                        serving = self._answer()
        for pid in self._reports:
            os.kill(pid, signal.SIGKILL)
        self._reap()

    def _answer(self) -> bool:
        try:
            request = self._channel.receive(max_fds=2)
        except ConnectionResetError:
            return False
        if request is None:
            return False
        _, (client, report) = request
        try:
            pid = os.fork()
        except OSError as error:
            self._tell(report, -(error.errno or errno.EAGAIN))
            os.close(report)
        else:
            if pid == 0:
                _become_child(client)
            self._reports[pid] = report
            self._tell(report, pid)
        os.close(client)
        return True

    def _reap(self, options: int = 0) -> None:
        while self._reports:
            pid, status = os.waitpid(-1, options)
            if pid == 0:
                return
            report = self._reports.pop(pid)
            self._tell(report, status)
            os.close(report)

    @staticmethod
    def _tell(report: int, value: int) -> None:
        with suppress(BrokenPipeError):  # the reader has closed its end
            os.write(report, REPORT.pack(value))


def _become_child(client: int) -> None:
    """Keep one socket of the server and close the rest, decode, and exit."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        os.dup2(client, 3)
        os.closerange(4, os.sysconf("SC_OPEN_MAX"))
        child.run(socket.socket(fileno=3))
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
