"""Submits videos to the workers: a listing becomes tasks, with stable ids for the same content."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import redis

from pipeline import tracing
from pipeline.contracts import Outcome, SourceClass, State, clip_id_of
from pipeline.results.store import VerdictStore
from pipeline.sources import Source, check_uri
from pipeline.transport.kafka import Publisher
from pipeline.transport.messages import VideoTask
from pipeline.video.sampling import Sampling
from pipeline.video.window import Window

T = TypeVar("T")

# Tasks sent to Kafka at once, and clips queried in one round trip to Redis.
BATCH = 500
# Names of a file's version in fsspec's file systems: s3, gcs, azure, http.
_VERSION_FIELDS = ("ETag", "etag", "md5Hash", "content_md5", "md5", "checksum", "generation")


@dataclass(frozen=True, slots=True)
class Item:
    """A video to submit.

    Attributes:
        uri: where workers find it.
        id: its own, or that of the part.
        part: only this is judged; None: all of it.
        trace: that it belongs to, see `tracing.carry`; None: a new one.
    """

    uri: str
    id: str
    part: Window | None = None
    trace: str | None = None


@dataclass(frozen=True, slots=True)
class Submitted:
    """Counts of the items.

    Attributes:
        sent: as tasks.
        known: submitted before, with a verdict now or later.
    """

    sent: int
    known: int


def item_of(source: Source, part: Window | None = None) -> Item:
    """The item behind a path or URI.

    The id depends on its location and version: the file system's own mark (an ETag), else size and time of change. A
    missing file gets an id too, and its verdict will say that it does not exist. Each part of a video has its own id.

    Args:
        source: the video.
        part: only this is judged.

    Raises:
        ValueError: the name is not UTF-8, so that no message can hold it.
    """
    name = source.name
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name!r}: a message cannot hold a name that is not UTF-8; rename the file") from error
    which = "" if part is None else f"\n{part.describe()}"
    if source.is_remote:
        return Item(name, clip_id_of(f"{name}\n{_remote_version(name)}{which}"), part)
    path = Path(source.path).absolute()
    try:
        status = path.stat()
        version = f"{status.st_size}:{status.st_mtime_ns}"
    except OSError:
        version = ""
    return Item(str(path), clip_id_of(f"{path}\n{version}{which}"), part)


def _remote_version(uri: str) -> str:
    import fsspec

    try:
        check_uri(uri, chains=False)
        filesystem, path = fsspec.core.url_to_fs(uri)
        info = filesystem.info(path)
    except Exception:  # noqa: BLE001 - plug-in file systems raise anything; the worker reports it
        return ""
    for field in _VERSION_FIELDS:
        if info.get(field):
            return f"{field}:{info[field]}"
    return f"{info.get('size')}:{info.get('mtime') or info.get('LastModified') or info.get('last_modified')}"


def submit(
    items: Iterable[Item],
    *,
    publisher: Publisher,
    store: VerdictStore,
    source_class: SourceClass,
    sampling: Sampling | None = None,
    sent: Callable[[int], None] = lambda count: None,
    clock: Callable[[], float] = time.time,
) -> Submitted:
    """Send the items that are not known yet. Safe to interrupt and repeat: nothing is lost, and little sent twice.

    Args:
        items: the videos.
        publisher: to Kafka.
        store: the known clips; sent ones are added.
        source_class: decides on the topic.
        sampling: replaces the workers' own.
        sent: called with the number of items processed since the last call.
        clock: for `submitted_at`.

    Raises:
        TransportError: Kafka is unreachable.
        redis.RedisError: Redis is unreachable.
    """
    found: Counter[str] = Counter()
    for batch in _batches(items):
        states = store.states([item.id for item in batch])
        fresh = [item for item, state in zip(batch, states, strict=True) if state is None]
        how = None if sampling is None else sampling.describe()
        spans: list[tracing.Span] = []
        try:
            under_way = []
            for item in fresh:
                spans.append(tracing.begin("submit", {"unmask.clip.id": item.id}, carried=item.trace))
                with spans[-1].active():
                    under_way.append(publisher.submit(_task(item, source_class, clock(), how)))
            # Send first, then mark as known: a known clip that was never sent would wait forever.
            for message in under_way:
                message.wait()
            for item in fresh:
                store.queue(item.id)
        except Exception as error:
            for span in spans:
                span.fail(type(error).__name__)
            raise
        finally:
            for span in spans:
                span.end()
        found["sent"] += len(fresh)
        found["known"] += len(batch) - len(fresh)
        sent(len(batch))
    return Submitted(found["sent"], found["known"])


def _task(item: Item, source_class: SourceClass, now_s: float, sampling: str | None) -> VideoTask:
    part = item.part
    return VideoTask(
        video_id=item.id,
        uri=item.uri,
        source_class=source_class,
        submitted_at=now_s,
        sampling=sampling,
        start_s=None if part is None else part.start_s,
        end_s=None if part is None else part.given_end_s,
    )


def watch(
    ids: Iterable[str],
    store: VerdictStore,
    *,
    on_done: Callable[[Outcome], None],
    every_s: float = 1.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Counter[str]]:
    """Wait until all clips have their verdict.

    Args:
        ids: of the clips.
        store: where verdicts are read.
        on_done: called once for each clip that is done.
        every_s: interval between reads.
        sleep: waits.

    Yields:
        How many of the remaining clips are queued, running, or unknown, after each read. Unknown: Redis was emptied, or
        they expired; `unmask results restore` restores published verdicts.
    """
    left = list(dict.fromkeys(ids))
    while left:
        counts: Counter[str] = Counter()
        todo: list[str] = []
        for batch in _batches(left):
            try:
                states = store.states(batch)
            except redis.ConnectionError:
                # It may be back in the next round.
                todo += batch
                counts["unknown"] += len(batch)
                continue
            for clip_id, found in zip(batch, states, strict=True):
                if found is not None and found[0] is State.DONE and found[1] is not None:
                    on_done(found[1])
                    continue
                todo.append(clip_id)
                counts["unknown" if found is None else str(found[0])] += 1
        left = todo
        yield counts
        if left:
            sleep(every_s)


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(itertools.islice(rest, BATCH)):
        yield batch
