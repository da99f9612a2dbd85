"""A decode child as its reader sees it: how much memory it takes, and how it is ended without hitting anything else."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress

import psutil


class ChildProcess:
    """A process that is not a child of this one, so its number can be given to another process once it has ended.

    On Linux a descriptor of the process itself is used (pidfd_open(2), Linux 5.3). Elsewhere its start time is compared
    before each signal, and nothing is sent once it was found gone: psutil would still send it then, to any process or
    thread that has the number now. Thread-safe.
    """

    def __init__(self, pid: int) -> None:
        """Find the process; one that has ended already is never signalled.

        Args:
            pid: its number.
        """
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._process: psutil.Process | None = None
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            self._fd = _descriptor(pid)
            self._process = psutil.Process(pid)

    def kill(self) -> None:
        """Send SIGKILL, if it has not ended and `close` was not called."""
        with self._lock:
            if self._process is None:
                return
            with suppress(ProcessLookupError, psutil.NoSuchProcess):
                if self._fd is not None:
                    signal.pidfd_send_signal(self._fd, signal.SIGKILL)
                elif self._process.is_running():
                    self._process.kill()

    def rss_bytes(self) -> int:
        """Its resident memory; 0 once it has ended."""
        with self._lock:
            if self._process is None or not self._process.is_running():
                return 0
            try:
                return int(self._process.memory_info().rss)
            except psutil.Error:
                return 0

    def close(self) -> None:
        """Let go of it: from now on nothing is sent. Idempotent."""
        with self._lock:
            self._process = None
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None


def _descriptor(pid: int) -> int | None:
    """A descriptor of the process; None where the system has none.

    Raises:
        ProcessLookupError: there is no such process.
    """
    if not hasattr(os, "pidfd_open") or not hasattr(signal, "pidfd_send_signal"):
        return None
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except OSError:  # an older kernel, or a seccomp filter
        return None
