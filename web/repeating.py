"""Work that a thread of the service repeats."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from web.problems import is_out_of_space

log = structlog.get_logger(__name__)


class Repeating:
    """Repeats some work until it is stopped. A full disk or a locked database is logged; the next time may succeed.

    Args:
        name: of the thread, and in the log.
        every_s: between two times, in seconds.
        work: it.
    """

    def __init__(self, name: str, every_s: float, work: Callable[[], None]) -> None:
        self._name, self._every_s, self._work = name, every_s, work
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name)

    @property
    def is_stopping(self) -> bool:
        """Whether the work should end."""
        return self._stopping.is_set()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; returns when the work has ended. It need not have begun."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                self._work()
            except Exception as error:
                log.warning("failed", work=self._name, error=str(error), exc_info=not is_out_of_space(error))
            if self._stopping.wait(self._every_s):
                return
