"""Has waiting videos judged by workers: a task for each, its verdict from Redis (docs/contracts.md)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import redis
import structlog

from pipeline.clip_report import ClipReport
from pipeline.contracts import REQUEUED_KEY, Outcome, Provenance, State, Topic, Verdict, is_of_newer_version
from pipeline.purge import purge
from pipeline.sources import ScanInterruptedError
from pipeline.submit import BATCH
from pipeline.transport.history import read_topic
from pipeline.transport.kafka import TransportError
from pipeline.transport.messages import Message
from pipeline.worker.access import UriAllow
from pipeline.worker.message import is_transient
from web.hub import Event, Hub
from web.judges import ended, named, unjudged
from web.media import Media, StoreAwayError
from web.media_links import MediaPlaces
from web.pictures import Pictures
from web.problems import ProblemError, is_out_of_space
from web.streams import Streams
from web.submitting import Submitter, check_task
from web.tasks import TASK_S, Task, Tasks
from web.videos import Video, Videos
from web.workers import Workers

log = structlog.get_logger(__name__)

# How often verdicts are looked for, in seconds; looking takes a tenth of the time at most.
_LOOK_S: Final = 0.5
_SHARE: Final = 0.1
# How often an idle service looks for videos by itself, and whether Kafka is there, in seconds.
_IDLE_S: Final = 5.0
# After a failure, in seconds.
_TROUBLE_S: Final = 1.0
# Workers may have been unable to reach a service that restarts.
_MAX_AGAIN: Final = 2
# Between the clocks of two machines, in seconds.
_CLOCKS_S: Final = 60.0
_NO_WORKER: Final = Provenance(
    model="",
    weights_sha256=[],
    input_spec="",
    detector="",
    sampling="",
    decoder="none",
    software="",
    source_sha256=None,
    untrained=False,
)

# What Redis has of a clip; the error where it cannot be read.
_Found = tuple[State, Outcome | None] | None | Exception


class RemoteJudge:
    """Threads: one submits, one takes verdicts, one reads dead letters, one makes pictures.

    Each step is written down before the next one, and may be repeated: a task may be sent twice, and a record be found
    twice.

    Args:
        workers: the way to them.
        tasks: what was submitted.
        videos: where they wait, and where verdicts go.
        media: their files.
        places: where workers find these.
        streams: looked at together with the verdicts.
        pictures: made of what was judged.
        hub: gets the events of videos.
        allow: what may be handed in by its URI; workers have a list of their own.

    Attributes:
        error: None: whatever is wrong may pass.
        failed: never called.
        finished: called after each verdict.
    """

    def __init__(
        self,
        workers: Workers,
        tasks: Tasks,
        videos: Videos,
        media: Media,
        places: MediaPlaces,
        streams: Streams,
        hub: Hub,
        allow: UriAllow,
        pictures: Pictures,
    ) -> None:
        self.error: str | None = None
        self.failed: Callable[[], None] = lambda: None
        self.finished: Callable[[], None] = lambda: None
        self.allow = allow
        self._workers, self._tasks, self._videos, self._media = workers, tasks, videos, media
        self._streams, self._hub = streams, hub
        self._submitter = Submitter(workers, tasks, videos, places, self._end)
        self._trouble: dict[str, str] = {}
        self._looked = threading.Event()
        self._ending = threading.Lock()
        self._waiting = threading.Event()
        self._stopping = threading.Event()
        self._probed_s = 0.0
        self._has_orphans = True
        self._shares: dict[str, float | None] = {}
        # Videos of which that was logged.
        self._newer: set[str] = set()
        self._judged = threading.Event()
        self._pictures = pictures
        works = {
            "submit": (self._submit, self._waiting),
            "verdicts": (self._collect, self._stopping),
            "dead letters": (self._read_letters, self._stopping),
            "pictures": (self._make_pictures, self._judged),
        }
        self._threads = [
            threading.Thread(target=self._run, args=(name, *how), name=name) for name, how in works.items()
        ]

    @property
    def trouble(self) -> str | None:
        """Why videos cannot be submitted, or verdicts not be taken; None: nothing is wrong."""
        return "; ".join(dict.fromkeys(self._trouble.copy().values())) or None

    @property
    def is_ready(self) -> bool:
        """Whether Kafka and Redis were reached."""
        return self._workers.connected is not None and self._looked.is_set()

    def check(self, uri: str) -> None:
        """See `AnyJudge.check`."""
        self.allow.check(uri)
        check_task(uri)

    def start(self) -> None:
        """Begin, in threads."""
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """A video waits."""
        self._waiting.set()

    def is_complete(self, video: Video) -> bool:
        """See `AnyJudge.is_complete`; of a URI there is nothing else."""
        return video.state is State.DONE and (video.upload.uri is not None or self._tasks.has_pictures(video.id))

    def drop(self, id_: str) -> None:
        """A video was deleted; what workers store of it will be, too: its task is left behind for that."""
        self._has_orphans = True

    def stop(self) -> None:
        """End; workers go on, and their verdicts are taken after the next start."""
        self._stopping.set()
        self._waiting.set()
        self._judged.set()
        self._workers.interrupt()
        for thread in self._threads:
            thread.join()
        self._pictures.close()
        self._workers.close()

    def _run(self, name: str, work: Callable[[], float], woken: threading.Event) -> None:
        """Repeat some work, which returns after how many seconds, unless it is woken."""
        while True:
            if woken is not self._stopping:
                woken.clear()
            if self._stopping.is_set():
                return
            try:
                wait_s = work()
                self._trouble.pop(name, None)
            except (TransportError, redis.RedisError) as error:
                if name not in self._trouble:
                    log.warning("Kafka or Redis is away", work=name, error=str(error))
                self._trouble[name] = str(error)
                wait_s = _TROUBLE_S
            except Exception as error:  # a full disk, a locked database: it goes on when that is over
                trouble = f"{type(error).__name__}: {error}"
                if trouble != self._trouble.get(name):  # it may last for hours
                    log.warning("judging is held up", work=name, error=trouble, exc_info=not is_out_of_space(error))
                self._trouble[name] = trouble
                wait_s = _TROUBLE_S
            woken.wait(wait_s)

    def _submit(self) -> float:
        return 0.0 if self._submitter.step() else _IDLE_S

    def _make_pictures(self) -> float:
        try:
            return 0.0 if self._pictures.step(self._stopping.is_set) else _IDLE_S
        except ScanInterruptedError:
            return 0.0

    def _collect(self) -> float:
        begun_s = time.monotonic()
        self._probe()
        unfinished = self._tasks.unfinished()
        for first in range(0, len(unfinished), BATCH):
            tasks = unfinished[first : first + BATCH]
            for task, found in zip(tasks, self._found(tasks), strict=True):
                self._follow(task, found)
        self._tell_progress([task.id for task in unfinished if task.state is State.RUNNING])
        replaced = self._tasks.may_be_replaced()
        for task, found in zip(replaced, self._found(replaced), strict=True):
            if isinstance(found, tuple) and found[1] not in (None, Outcome.MODEL_ERROR):
                self._take(task, again=True)
        if self._has_orphans and "kafka" not in self._trouble:
            with suppress(TransportError):  # the next look tries again; what is judged does not wait for it
                self._delete_orphans()
        if self._streams.look():
            self.finished()
        self._looked.set()
        return max(_LOOK_S, (time.monotonic() - begun_s) / _SHARE)

    def _tell_progress(self, ids: Sequence[str]) -> None:
        shares = dict(zip(ids, self._workers.verdicts.shares(ids), strict=True))
        for id_, share in shares.items():
            if share is not None and share != self._shares.get(id_):
                self._hub.publish(id_, Event("progress", {"share": share}))
        self._shares = shares

    def _delete_orphans(self) -> None:
        self._has_orphans = False
        try:
            orphans = self._tasks.orphans()
            for task, found in zip(orphans, self._found(orphans), strict=True):
                # A worker that is at it would store its record later.
                is_over = isinstance(found, Exception) or (found is not None and found[0] is State.DONE)
                if is_over or time.time() - task.submitted_s > TASK_S:
                    purge(task.id, self._workers.verdicts, self._workers.publisher())
                    self._tasks.remove(task.id)
                else:
                    self._has_orphans = True
        except BaseException:
            self._has_orphans = True
            raise

    def _probe(self) -> None:
        every_s = _TROUBLE_S if "kafka" in self._trouble else _IDLE_S
        if self._probed_s and time.monotonic() - self._probed_s < every_s:
            return
        self._probed_s = time.monotonic()
        if self._workers.answers():
            self._trouble.pop("kafka", None)
        else:
            self._trouble["kafka"] = f"no answer from Kafka at {self._workers.bootstrap}"

    def _found(self, tasks: Sequence[Task]) -> list[_Found]:
        """What Redis has of each; one whose hash cannot be read does not hold up the others."""
        store = self._workers.verdicts
        try:
            return list(store.states([task.id for task in tasks]))
        except (redis.ResponseError, ValueError) as error:
            if is_transient(error):
                raise
            if len(tasks) == 1:
                return [error]
            return [found for task in tasks for found in self._found([task])]

    def _follow(self, task: Task, found: _Found) -> None:
        if isinstance(found, Exception):
            if not self._is_of_newer(task) and (video := self._video(task.id)) is not None:
                self._end(video, Outcome.MODEL_ERROR, f"what Redis has of it cannot be read: {found}")
        elif found is None:  # Redis has lost its data
            self._again(task, unread=False)
        elif found[0] is State.DONE:
            self._take(task)
        elif found[0] is State.QUEUED and time.time() - task.submitted_s > TASK_S:
            self._again(task, unread=False)
        elif found[0] is not task.state and self._tasks.mirror(task.id, found[0]):
            self._hub.publish(task.id, Event("state", {"state": found[0].value}))

    def _take(self, task: Task, *, again: bool = False) -> None:
        record, video = self._workers.verdicts.record(task.id), self._video(task.id)
        if record is None or video is None:
            return
        try:
            verdict = Verdict.model_validate_json(record)
        except ValueError as error:
            if self._is_of_newer(task):
                return
            self._end(video, Outcome.MODEL_ERROR, f"its record is not one that this version reads: {error}")
            return
        try:
            has_file = video.upload.uri is None and self._media.find(video.id) is not None
        except StoreAwayError:
            return  # the next look asks again
        if verdict.outcome is Outcome.UNAVAILABLE and has_file and task.again < _MAX_AGAIN:
            log.warning("submitted again", video=video.id, error=verdict.error)
            self._again(task, unread=True)
            return
        self._keep(video, verdict, again=again)

    def _is_of_newer(self, task: Task) -> bool:
        """Whether a worker of a newer version judged it: it waits until this service is updated, too."""
        try:
            record = self._workers.verdicts.record(task.id)
        except redis.ResponseError as error:
            if is_transient(error):
                raise
            return False
        if record is None or not is_of_newer_version(record):
            return False
        if task.id not in self._newer:
            self._newer.add(task.id)
            log.warning("a worker of a newer version judged this video: update the service", video=task.id)
        return True

    def _again(self, task: Task, *, unread: bool) -> None:
        """Submit a video again, as if workers had never heard of it."""
        self._workers.verdicts.delete(task.id)
        self._tasks.forget(task.id, again=unread)
        self.wake()

    def _read_letters(self) -> float:
        if self._workers.connected is None:  # the thread that connects makes the topic, if it is missing
            return _LOOK_S
        self._trouble.pop("dead letters", None)
        for message in read_topic(self._workers.bootstrap, Topic.DEAD, follow=True, stop=self._stopping.is_set):
            self._read_letter(message)
        return 0.0

    def _read_letter(self, message: Message) -> None:
        """End a video that has a dead letter and no record; with a record, that is its end."""
        task = self._tasks.get((message.key or b"").decode("utf-8", "replace"))
        if task is None or message.timestamp_s < task.submitted_s - _CLOCKS_S:
            return
        if self._workers.client.sismember(REQUEUED_KEY, message.place):
            return
        try:
            if self._workers.verdicts.record(task.id) is not None:
                return
        except redis.ResponseError as error:
            if is_transient(error):
                raise
        if (video := self._video(task.id)) is not None:
            self._end(video, Outcome.MODEL_ERROR, message.header("error"))

    def _video(self, id_: str) -> Video | None:
        with suppress(ProblemError):
            return self._videos.get(id_)
        return None

    def _end(self, video: Video, outcome: Outcome, error: str) -> None:
        """End a video that no worker has ended."""
        log.warning("ended without a worker", video=video.id, outcome=str(outcome), error=error)
        self._keep(video, unjudged(video, outcome, error, _NO_WORKER).verdict)

    def _keep(self, video: Video, verdict: Verdict, *, again: bool = False) -> None:
        with self._ending:
            now = self._video(video.id)
            if now is None or (now.state is State.DONE and not again):
                return
            finished = self._videos.finish(video.id, named(ClipReport(verdict), video, verdict.source))
            self._tasks.new_pictures(video.id)
        self.finished()
        if finished is not None:
            self._hub.publish(video.id, ended(finished))
            self._judged.set()
