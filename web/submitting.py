"""Submits waiting videos to workers, as `unmask submit` does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Final

import redis
from pydantic import ValidationError

from pipeline.contracts import Outcome, SourceClass
from pipeline.submit import Item, submit
from pipeline.transport.kafka import Publisher, TransportError
from pipeline.transport.messages import VideoTask
from pipeline.worker.message import is_transient
from web.media_links import MediaPlaces
from web.problems import ProblemError
from web.tasks import Tasks
from web.videos import Video, Videos
from web.workers import Workers

# Tasks that are sent before the first of them is acknowledged.
_BATCH: Final = 100

End = Callable[[Video, Outcome, str], None]


class Submitter:
    """Used by one thread.

    Args:
        workers: the way to them.
        tasks: what was submitted.
        videos: those that wait.
        places: where workers find uploaded files.
        end: ends a video that can never be submitted, with an outcome and the reason.
    """

    def __init__(self, workers: Workers, tasks: Tasks, videos: Videos, places: MediaPlaces, end: End) -> None:
        self._workers = workers
        self._tasks = tasks
        self._videos = videos
        self._places = places
        self._end = end

    def step(self) -> bool:
        """Submit some of those that wait; False: nobody waits.

        Raises:
            TransportError: Kafka is away.
            redis.RedisError: Redis is away.
        """
        publisher = self._workers.publisher()
        ids = self._tasks.unsent(_BATCH)
        self._tasks.intend(ids)
        found = [video for id_ in ids if (video := self._video(id_)) is not None]
        for source_class, videos in groupby(found, key=lambda video: video.upload.source_class):
            self._send(publisher, source_class, list(videos))
        return bool(ids)

    def _video(self, id_: str) -> Video | None:
        try:
            video = self._videos.get(id_)
        except ProblemError:  # it was deleted meanwhile
            return None
        try:
            check_task(self._uri(video))
        except ValueError as error:
            self._end(video, Outcome.UNAVAILABLE, str(error))
            return None
        return video

    def _send(self, publisher: Publisher, source_class: SourceClass, videos: Sequence[Video]) -> None:
        items = [Item(self._uri(video), video.id, video.upload.part, video.trace) for video in videos]
        try:
            submit(items, publisher=publisher, store=self._workers.verdicts, source_class=source_class)
        except (redis.RedisError, TransportError) as error:
            if is_transient(error):
                raise
            if len(videos) > 1:
                for video in videos:
                    self._send(publisher, source_class, [video])
                return
            self._end(videos[0], Outcome.MODEL_ERROR, f"it cannot be submitted: {error}")
            return
        self._tasks.submitted([video.id for video in videos])

    def _uri(self, video: Video) -> str:
        return video.upload.uri if video.upload.uri is not None else self._places.uri(video.id)


def check_task(uri: str) -> None:
    """Return if a task can hold this URI.

    Raises:
        ValueError: it is not a URI or an absolute path, or too long.
    """
    try:
        VideoTask(video_id="checked", uri=uri, source_class=SourceClass.UPLOAD, submitted_at=0.0)
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"]) from error
