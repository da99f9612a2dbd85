"""Events of videos, from the threads that judge them to the clients that wait."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

# Events that a slow client may be behind; then it misses progress, never the end.
_MAX_BEHIND: Final = 100


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened to a video.

    Attributes:
        kind: state, progress, partial, known, decision or deleted.
        data: what the client gets, as JSON.
        is_last: nothing will follow.
    """

    kind: str
    data: dict[str, Any]
    is_last: bool = False


@dataclass(slots=True, eq=False)
class Listener:
    """A client that waits for the events of one video; it belongs to one event loop."""

    loop: asyncio.AbstractEventLoop
    events: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)

    def put(self, event: Event) -> None:
        """Called in the listener's loop."""
        if event.kind not in ("progress", "partial") or self.events.qsize() < _MAX_BEHIND:
            self.events.put_nowait(event)


class Hub:
    """Passes events on. Safe to share between threads."""

    def __init__(self) -> None:
        self._listeners: dict[str, set[Listener]] = defaultdict(set)
        self._lock = threading.Lock()

    @contextmanager
    def listening(self, video_id: str) -> Iterator[Listener]:
        """A listener to a video's events from now on. Call it in an event loop."""
        listener = Listener(asyncio.get_running_loop())
        with self._lock:
            self._listeners[video_id].add(listener)
        try:
            yield listener
        finally:
            with self._lock:
                self._listeners[video_id].discard(listener)
                if not self._listeners[video_id]:
                    del self._listeners[video_id]

    def publish(self, video_id: str, event: Event) -> None:
        """Tell all who listen. Call it from any thread."""
        with self._lock:
            found = list(self._listeners.get(video_id, ()))
        for listener in found:
            if not listener.loop.is_closed():
                listener.loop.call_soon_threadsafe(listener.put, event)
