"""Judges waiting videos in this process, as `unmask scan` does."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import structlog

from pipeline import tracing
from pipeline.clip_report import ClipReport
from pipeline.contracts import Outcome, State, Verdict
from pipeline.first_print import print_of
from pipeline.manifests.reader import CredentialsReader
from pipeline.scan import Scanner
from pipeline.scanner_options import ScannerOptions
from pipeline.settings import Settings
from pipeline.sources import ScanInterruptedError, Source, SourceLimits
from pipeline.weights.age import MadeWeights, made_weights
from pipeline.worker.access import UriAllow
from web.hub import Event, Hub
from web.judges import ended, named, step_back, unjudged
from web.known import Known
from web.media import Media, StoreAwayError
from web.problems import is_out_of_space
from web.videos import MAX_CRASHES, Video, Videos

if TYPE_CHECKING:
    from pipeline.detectors import Detector

log = structlog.get_logger(__name__)

# Progress of a video is published this often at most, in seconds.
_PROGRESS_S: Final = 0.2
# How often an idle thread looks for a video by itself, in seconds; it is woken when one comes.
_LOOK_S: Final = 5.0
# Of deleted videos that may be running; more are forgotten, and judged to the end.
_MAX_DROPPED: Final = 1000
# Another try may succeed where a fetch or the engine failed.
_MAX_AGAIN: Final = 2
# After a fault of the machine, in seconds.
_TROUBLE_S: Final = 1.0
# After a store did not answer, in seconds; a try may take as long itself.
_AWAY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class JudgeOptions:
    """How videos are judged.

    Attributes:
        weights: names or paths; None: the default ones.
        scanner: see `ScannerOptions`.
        known_first: compare an upload with earlier videos before it is judged.
    """

    weights: str | None = None
    scanner: ScannerOptions = field(default_factory=ScannerOptions)
    known_first: bool = False


@contextmanager
def judging_scanner(
    load: Callable[[], Sequence[Detector]], options: ScannerOptions, settings: Settings, **more: Any
) -> Iterator[Scanner]:
    """The scanner that judges videos of a service, closed at the end of the block.

    Args:
        load: gives the weights.
        options: how clips are read and scored.
        settings: limits of the machine.
        more: see `pipeline.assembly.scanner`; nothing of it changes a verdict.
    """
    from pipeline import assembly
    from pipeline.video.sandbox import DecodeServer

    with DecodeServer() as server:
        # It imports the decoders in its own process, while this one imports the rest.
        server.start()
        with assembly.scanner(
            load(),
            options,
            source_limits=SourceLimits.of(settings),
            min_coverage=settings.min_coverage,
            server=server,
            **more,
        ) as scanner:
            yield scanner


class Judge:
    """Threads that take waiting videos, the oldest first.

    Args:
        videos: where they wait, and where verdicts go.
        media: their files.
        hub: gets their events.
        known: keeps their prints.
        options: see `JudgeOptions`.
        settings: limits of the machine, and which URIs may be read.

    Attributes:
        error: why nothing can be judged; None: nothing is wrong.
        trouble: why nothing can be judged at the moment; None: nothing is wrong.
        scanner: what judges; None until the networks are loaded, and once it is closed.
        weights: of the scanner, and when they were made; empty until the networks are loaded.
        failed: called once if nothing can be judged.
        finished: called after each verdict.
        loaded: called with the scanner when the networks are loaded, before it judges.
    """

    def __init__(
        self,
        videos: Videos,
        media: Media,
        hub: Hub,
        known: Known,
        options: JudgeOptions,
        settings: Settings,
    ) -> None:
        self.error: str | None = None
        self.failed: Callable[[], None] = lambda: None
        self.finished: Callable[[], None] = lambda: None
        self.allow = UriAllow.parse(settings.uri_allow or "")
        self._videos = videos
        self._media = media
        self._hub = hub
        self._known = known
        self._options = options
        self._settings = settings
        self._credentials = CredentialsReader(settings.c2pa_trust)
        self._wake = threading.Condition()
        self.trouble: str | None = None
        self.loaded: Callable[[Scanner], None] = lambda scanner: None
        self.scanner: Scanner | None = None
        self.weights: tuple[MadeWeights, ...] = ()
        self._unfinished: set[str] = set()
        self._again: Counter[str] = Counter()
        self._places = threading.Condition()
        self._judged_now, self._is_alone = 0, False
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._sent_s: dict[str, float] = {}
        self._dropped: set[str] = set()
        self._threads: list[threading.Thread] = []

    @property
    def is_ready(self) -> bool:
        """Whether the networks are loaded."""
        return self._ready.is_set()

    def check(self, uri: str) -> None:
        """See `AnyJudge.check`."""
        self.allow.check(uri)

    def start(self) -> None:
        """Load the networks and begin, in threads; what an earlier process left waits again."""
        self._videos.requeue_all()
        main = threading.Thread(target=self._run, name="judge")
        self._threads.append(main)
        main.start()

    def wake(self) -> None:
        """A video waits."""
        with self._wake:
            self._wake.notify()

    def is_complete(self, video: Video) -> bool:
        """See `AnyJudge.is_complete`."""
        return video.state is State.DONE

    def drop(self, id_: str) -> None:
        """End the judging of a video that was deleted."""
        if len(self._dropped) > _MAX_DROPPED:
            self._dropped.clear()
        self._dropped.add(id_)

    def stop(self) -> None:
        """End at the next frame; what is under way waits again. Returns when all threads have ended."""
        self._stopping.set()
        with self._wake:
            self._wake.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        step_back()
        try:
            with ExitStack() as stack:
                self.scanner = scanner = self._scanner(stack)
                stack.callback(self._forget_scanner)
                self.loaded(scanner)
                self._ready.set()
                others = [
                    threading.Thread(target=self._serve, args=(scanner,), name=f"judge-{i}")
                    for i in range(1, self._options.scanner.clips_at_once)
                ]
                for thread in others:
                    thread.start()
                self._serve(scanner)
                for thread in others:
                    thread.join()
        except Exception as error:
            self.error = str(error)
            log.exception("no video can be judged")
            self.failed()

    def _forget_scanner(self) -> None:
        self.scanner = None

    def _load(self) -> Sequence[Detector]:
        from pipeline.detectors import load_all

        detectors = load_all(architecture=None, weights=self._options.weights, untrained=False)
        self.weights = tuple(made_weights(each) for each in detectors)
        return detectors

    def _scanner(self, stack: ExitStack) -> Scanner:
        scanner = stack.enter_context(
            judging_scanner(
                self._load,
                self._options.scanner,
                self._settings,
                progress=self._progress,
                prints=True,
                credentials=self._credentials,
            )
        )
        return replace(scanner, partial=self._partial)

    def _serve(self, scanner: Scanner) -> None:
        while not self._stopping.is_set():
            try:
                is_idle = not self._serve_one(scanner)
                self.trouble = None
            except StoreAwayError as error:
                self.trouble = str(error)
                self._stopping.wait(_AWAY_S)
                continue
            except Exception as error:  # a full disk, a locked database: it goes on when that is over
                trouble = f"{type(error).__name__}: {error}"
                if trouble != self.trouble:  # it may last for hours
                    log.warning("judging is held up", error=trouble, exc_info=not is_out_of_space(error))
                self.trouble = trouble
                self._stopping.wait(_TROUBLE_S)
                continue
            if is_idle:
                with self._wake:
                    if not self._stopping.is_set():
                        self._wake.wait(_LOOK_S)

    def _serve_one(self, scanner: Scanner) -> bool:
        """Judge the video that has waited longest; False: nobody waits."""
        for id_ in list(self._unfinished):
            self._videos.requeue(id_)
            self._unfinished.discard(id_)
        video = self._videos.take()
        if video is None:
            return False
        try:
            with self._turn(alone=video.tries > 0):
                self._videos.begin(video.id)
                self._judge(scanner, video)
        except BaseException:
            self._unfinished.add(video.id)
            raise
        return True

    @contextmanager
    def _turn(self, *, alone: bool) -> Iterator[None]:
        """A place among those that are judged; alone: when and while there is no other."""
        with self._places:
            self._places.wait_for(lambda: not self._is_alone and not (alone and self._judged_now))
            self._judged_now += 1
            self._is_alone = alone
        try:
            yield
        finally:
            with self._places:
                self._judged_now -= 1
                self._is_alone = False
                self._places.notify_all()

    def _judge(self, scanner: Scanner, video: Video) -> None:
        self._hub.publish(video.id, Event("state", {"state": video.state.value}))
        if video.tries >= MAX_CRASHES:
            error = f"the service ended {MAX_CRASHES} times while it judged this video"
            self._finish(video, named(unjudged(video, Outcome.MODEL_ERROR, error, scanner.provenance), video))
            return
        try:
            with self._opened(video) as source:
                is_known = self._options.known_first and self._look_first(scanner, video, source)
                with tracing.span("judge", {"unmask.clip.id": video.id}, carried=video.trace):
                    report = scanner.scan(source, stop=self._stops(video.id), part=video.upload.part)
                    if report is not None:
                        tracing.note({"unmask.outcome": str(report.verdict.outcome)})
        except ScanInterruptedError:
            self._videos.requeue(video.id)
            return
        finally:
            self._sent_s.pop(video.id, None)
            self._dropped.discard(video.id)
        assert report is not None  # nothing says that its verdict exists already
        if report.transient and self._again[video.id] < _MAX_AGAIN:
            self._again[video.id] += 1
            log.warning("judged again", video=video.id, error=report.verdict.error)
            self._videos.requeue(video.id)
            return
        self._again.pop(video.id, None)
        report = named(report, video, source.name)
        self._finish(video, replace(report, print=None) if is_known else report)

    def _look_first(self, scanner: Scanner, video: Video, source: Source) -> bool:
        """Keep the print of an upload before it is judged; whether it has one. Of a URI it would be a second fetch."""
        if video.upload.uri is not None:
            return False
        print_ = print_of(
            source,
            scanner.server,
            limits=scanner.limits,
            source_limits=scanner.source_limits,
            part=video.upload.part,
            stop=self._stops(video.id),
        )
        self._known.keep(video.id, print_)
        if self._known.similar(video):
            self._hub.publish(video.id, Event("known", {}))
        return len(print_) > 0

    def _finish(self, video: Video, report: ClipReport) -> None:
        if report.print is not None:
            # Before the verdict: if the process ends in between, both are made again.
            self._known.keep(video.id, report.print)
        finished = self._videos.finish(video.id, report)
        self.finished()
        if finished is not None:
            self._hub.publish(video.id, ended(finished))

    @contextmanager
    def _opened(self, video: Video) -> Iterator[Source]:
        """What is judged; an upload is on this machine until the end of the block."""
        if video.upload.uri is not None:
            yield Source(video.upload.uri, given_id=video.id, guard=self.allow)
            return
        with self._media.local(video.id, self._stops(video.id)) as path:
            yield Source(str(path), given_id=video.id, is_path=True)

    def _stops(self, id_: str) -> Callable[[], bool]:
        return lambda: self._stopping.is_set() or id_ in self._dropped

    def _progress(self, source: Source, share: float | None, scored: int) -> None:
        now_s = time.monotonic()
        if now_s - self._sent_s.get(source.id, 0.0) >= _PROGRESS_S:
            self._sent_s[source.id] = now_s
            data = {"share": None if share is None else round(share, 3)}
            self._hub.publish(source.id, Event("progress", data))

    def _partial(self, source: Source, verdict: Verdict) -> None:
        data = {
            "outcome": verdict.outcome,
            "label": verdict.label,
            "probability": verdict.suspicion,
            "people": len(verdict.people),
            "frames": verdict.frames_scored,
        }
        self._hub.publish(source.id, Event("partial", data))
