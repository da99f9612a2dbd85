"""Erases videos: one, and by class those whose time is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import redis
import structlog

from pipeline.contracts import SourceClass, State
from web.database import Database
from web.media import Media
from web.repeating import Repeating
from web.rescore_keys import RescoredKeys
from web.videos import Videos

log = structlog.get_logger(__name__)

DAY_S: Final = 86_400.0
_EVERY_S: Final = 600.0
# Read at a time.
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
        self._looks = Repeating("retention", _EVERY_S, lambda: self.look(time.time()))

    def start(self) -> None:
        """Begin, if there is anything to do."""
        if self._keep_s:
            self._looks.start()

    def stop(self) -> None:
        """End."""
        self._looks.stop()

    def look(self, now_s: float) -> None:
        """Erase what is over at this time, Unix seconds. What cannot be erased waits for the next look."""
        for source_class, kept_s in self._keep_s.items():
            after = 0
            while found := self._over(source_class, now_s - kept_s, after):
                after = found[-1][0]
                for _, id_ in found:
                    if self._looks.is_stopping:
                        return
                    log.info("its time is over", video=id_, source_class=source_class.value)
                    self._erase(id_)

    def _over(self, source_class: SourceClass, before_s: float, after: int) -> list[tuple[int, str]]:
        """Numbers and ids of some videos behind this number."""
        rows = self._database.read().execute(
            "SELECT n, id FROM videos WHERE state = ? AND source_class = ? AND finished_s < ? AND n > ? "
            "ORDER BY n LIMIT ?",
            (State.DONE, source_class, before_s, after, _BATCH),
        )
        return [(row["n"], row["id"]) for row in rows]


def erase(videos: Videos, media: Media, id_: str, by: str | None, keys: RescoredKeys | None = None) -> None:
    """Erase all that the service has of a video.

    Args:
        videos: the rows.
        media: the files.
        id_: of the video.
        by: id of the key of who deletes it; None: its time is over, or somebody at the service's machine does.
        keys: what Redis has of rescored videos; None: no Redis is known here. While it is away, that is logged, and
            the next call, or the service's next look, deletes it.

    Raises:
        ProblemError: it was deleted meanwhile, or the store of its file is away.
    """
    # The file first: where that fails, the video can be erased again.
    media.delete(id_)
    videos.delete(id_, by)
    if keys is not None:
        try:
            keys.forget_deleted()
        except redis.RedisError as error:
            log.warning("rescored records stay in Redis until it is back", video=id_, error=str(error))
