"""What `unmask rescore` does once its options are read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console

from pipeline.detectors import Detector, load_all
from pipeline.results.rescored import RescoredStore
from pipeline.results.store import connect
from pipeline.results.terminal import ScanProgress
from pipeline.scan import Progress
from pipeline.settings import Settings
from pipeline.sources import Source
from web.database import Database
from web.media import Media
from web.media_store import media_of
from web.rescore_keys import RescoredKeys
from web.rescore_runs import Runs, Todo, alone
from web.rescore_sinks import CheckSink, RunSink
from web.rescores import LeftOut, RescoreError, Run
from web.rescoring import Rescorer, Sink

# Of copies of what is in a store; those in use may exceed it.
_COPIES_BYTES: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is judged again, and how.

    Attributes:
        weights: checkpoints or zoo names with commas between; None: the default ones.
        since_s: only videos that were judged from then on; Unix seconds; None: all.
        until_s: only videos that were judged before; None: all.
        limit: at most so many this time; None: all.
        folder: of the service.
        store: of its files; None: the folder.
        face_weights: file of YuNet's network; None: the default one.
        workers: clips at once; None: the default for this machine.
    """

    weights: str | None
    since_s: float | None
    until_s: float | None
    limit: int | None
    folder: Path
    store: str | None
    face_weights: Path | None
    workers: int | None
    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True, slots=True)
class Replay:
    """What a check found.

    Attributes:
        compared: videos.
        differences: of those whose records differ, the first field that does, by the id of the video.
        other_weights: videos that other weights had judged: they are not compared.
        left_out: how many could not be judged again, by the reason.
    """

    compared: int
    differences: dict[str, str]
    other_weights: int
    left_out: dict[LeftOut, int]


def rescore(wanted: Wanted, database: Database, name: str | None, redis: str | None) -> Run:
    """Begin a run or go on with it, to its end or the limit.

    Args:
        wanted: what.
        database: of the service.
        name: of the run; None: that of the weights with their sha256.
        redis: URL; records go there, too; None: nowhere else.

    Raises:
        RescoreError: nothing was judged in this time, or the run is another one, or one is under way.
        KeyboardInterrupt: what is under way is not kept; the next call goes on.
        redis.RedisError: Redis does not answer.
    """
    runs, keys = Runs(database), keys_of(database, redis, wanted.settings)
    _check_not_empty(runs, wanted)
    media = media_of(wanted.store, wanted.folder, _COPIES_BYTES)
    detectors = load_all(architecture=None, weights=wanted.weights, untrained=False)
    model, sha256 = "+".join(each.name for each in detectors), [each.sha256 for each in detectors]
    with alone(wanted.folder):
        if keys is not None:
            keys.forget_deleted()
        run = runs.begin(_name_of(detectors) if name is None else name, model, sha256, wanted.since_s, wanted.until_s)
        if keys is not None:
            keys.publish(run)
        todo = runs.todo(run)
        if todo:
            run = runs.settle(run, is_done=False)
            now = todo[: wanted.limit]
            _judge(wanted, runs, media, detectors, now, RunSink(runs, run, keys))
            if len(now) < len(todo):
                return run
        return runs.settle(run, is_done=True)


def check_replay(wanted: Wanted, database: Database) -> Replay:
    """Judge again what the same weights had judged, and compare the records; nothing is kept.

    Raises:
        RescoreError: nothing was judged in this time, or not by these weights.
        KeyboardInterrupt: nothing is known then.
    """
    runs = Runs(database)
    _check_not_empty(runs, wanted)
    media = media_of(wanted.store, wanted.folder, _COPIES_BYTES)
    detectors = load_all(architecture=None, weights=wanted.weights, untrained=False)
    found = runs.judged(wanted.since_s, wanted.until_s)
    same = [each for each in found if each.sha256 == tuple(member.sha256 for member in detectors)]
    if not same:
        raise RescoreError(f"these weights judged no video of {len(found)}: nothing to compare")
    sink, now = CheckSink(), same[: wanted.limit]
    _judge(wanted, runs, media, detectors, now, sink)
    return Replay(sink.compared, sink.differences, len(found) - len(same), dict(sink.left_out))


def keys_of(database: Database, redis: str | None, settings: Settings) -> RescoredKeys | None:
    """What Redis has of rescored videos; None without its URL.

    Raises:
        ValueError: not a URL of Redis.
    """
    if not redis:
        return None
    return RescoredKeys(database, RescoredStore(connect(redis), ttl_s=settings.ttl_s))


def _judge(
    wanted: Wanted, runs: Runs, media: Media, detectors: Sequence[Detector], todo: Sequence[Todo], sink: Sink
) -> None:
    with _progress(len(todo)) as (frame, done):
        rescorer = Rescorer(
            runs,
            media,
            detectors,
            wanted.settings,
            face_weights=wanted.face_weights,
            workers=wanted.workers,
            progress=frame,
        )
        rescorer.run(todo, sink, done)


def _check_not_empty(runs: Runs, wanted: Wanted) -> None:
    if runs.is_empty(wanted.since_s, wanted.until_s):
        raise RescoreError("no video was judged in this time: nothing to do")


def _name_of(detectors: Sequence[Detector]) -> str:
    """The same for the same weights, so that the same command goes on."""
    models = "+".join(each.name for each in detectors)
    digests = "-".join(each.sha256[:12] for each in detectors)
    return f"{re.sub('[^A-Za-z0-9._-]', '-', models)[: 63 - len(digests)]}-{digests}"[-64:]


@contextmanager
def _progress(videos: int) -> Iterator[tuple[Progress, Callable[[Todo], None]]]:
    """A line on the terminal: what takes frames, and what takes videos."""

    def key(id_: str) -> Source:
        return Source(id_, given_id=id_)

    with ScanProgress(Console(stderr=True), videos) as line:
        yield (
            lambda source, share, scored: line.frame(key(source.id), share, scored),
            lambda each: line.clip(key(each.id)),
        )
