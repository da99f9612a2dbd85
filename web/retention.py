"""Erases judged videos whose time is over, by class."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog

from pipeline.contracts import SourceClass, State
from web.database import Database
from web.problems import is_out_of_space

log = structlog.get_logger(__name__)

DAY_S: Final = 86_400.0
_EVERY_S: Final = 600.0
# At a time, so that a service that is asked to end does.
_BATCH: Final = 100


def parse_keep(given: Sequence[str]) -> dict[SourceClass, float]:
    """How long videos are kept, in seconds, from texts such as `upload=90`, in days.

    Raises:
        ValueError: one is malformed, names no class of videos, or one that another one has.
    """
    found: dict[SourceClass, float] = {}
    names = {each.value: each for each in SourceClass}
    for text in given:
        name, _, days = text.partition("=")
        try:
            kept_s = float(days) * DAY_S
        except ValueError:
            kept_s = 0.0
        if name not in names or not 0 < kept_s < float("inf"):
            raise ValueError(f"--keep-days is CLASS=DAYS, such as upload=90, with {' or '.join(names)}; got {text!r}")
        if names[name] in found:
            raise ValueError(f"--keep-days names {name} twice")
        found[names[name]] = kept_s
    return found


class Retention:
    """A thread that looks now and then.

    Args:
        database: of the videos.
        keep_s: for how long, by class; classes without it are kept.
        erase: called with the id of a video whose time is over.
    """

    def __init__(self, database: Database, keep_s: Mapping[SourceClass, float], erase: Callable[[str], None]) -> None:
        self._database, self._keep_s, self._erase = database, dict(keep_s), erase
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retention")

    def start(self) -> None:
        """Begin, if there is anything to do."""
        if self._keep_s:
            self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def look(self, now_s: float) -> None:
        """Erase what is over at this time, Unix seconds. What cannot be erased waits for the next look."""
        for source_class, kept_s in self._keep_s.items():
            for id_ in self._over(source_class, now_s - kept_s):
                if self._stopping.is_set():
                    return
                log.info("its time is over", video=id_, source_class=source_class.value)
                self._erase(id_)

    def _over(self, source_class: SourceClass, before_s: float) -> list[str]:
        rows = self._database.read().execute(
            "SELECT id FROM videos WHERE state = ? AND source_class = ? AND finished_s < ? ORDER BY n LIMIT ?",
            (State.DONE, source_class, before_s, _BATCH),
        )
        return [row["id"] for row in rows]

    def _run(self) -> None:
        while True:
            try:
                self.look(time.time())
            except Exception as error:  # a full disk, a locked database: the next time
                log.warning("videos are not erased", error=str(error), exc_info=not is_out_of_space(error))
            if self._stopping.wait(_EVERY_S):
                return
