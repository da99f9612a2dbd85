"""Judges videos of a service again by other weights, on this machine, as the service itself judges."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Final, Protocol

from pipeline.clip_report import ClipReport
from pipeline.contracts import Outcome, Verdict
from pipeline.detectors import Detector
from pipeline.faces.detector import DETECTORS
from pipeline.faces.views import Looks
from pipeline.scan import Progress, Scanner
from pipeline.scanner_options import ScannerOptions
from pipeline.settings import Settings
from pipeline.sources import ScanInterruptedError, Source
from pipeline.video.sampling import Sampling, parse_sampling
from pipeline.video.window import Window
from web.judges import named, step_back, unjudged
from web.judging import judging_scanner
from web.media import Media
from web.rescore_runs import Runs, Todo
from web.rescores import LeftOut
from web.videos import MAX_CRASHES, Video

# Another try may succeed where the engine failed.
_MAX_AGAIN: Final = 2
_LOOKS: Final = ";looks="
_PART: Final = ";part="


class Sink(Protocol):
    """What becomes of videos that are judged again; called by several threads."""

    def begin(self, video: Video) -> int:
        """It is judged next; returns how often the process ended before while it was."""

    def release(self, video: Video) -> None:
        """It was not judged, through no fault of its own."""

    def take(self, video: Video, before: Verdict, after: Verdict) -> None:
        """It was judged again."""

    def leave_out(self, video: Video, reason: LeftOut) -> None:
        """It cannot be judged again."""


@dataclass(frozen=True, slots=True)
class _How:
    """What a scanner is made for: the face detector, and the looks at each face."""

    face_detector: str
    looks: Looks

    @property
    def order(self) -> tuple[str, str]:
        """To sort by."""
        return self.face_detector, self.looks.describe()


class Rescorer:
    """Judges videos again, each with the sampling, face detector, looks and part of its record.

    Args:
        runs: of the service's database.
        media: its files.
        detectors: the weights.
        settings: limits of the machine.
        face_weights: file of YuNet's network; None: the default one.
        workers: clips at once; None: the default for this machine.
        progress: see `Scanner`.
    """

    def __init__(
        self,
        runs: Runs,
        media: Media,
        detectors: Sequence[Detector],
        settings: Settings,
        *,
        face_weights: Path | None = None,
        workers: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._runs, self._media, self._detectors, self._settings = runs, media, detectors, settings
        self._face_weights, self._progress = face_weights, progress
        self._workers = ScannerOptions(workers=workers).clips_at_once
        self._stopping = threading.Event()

    def run(self, todo: Sequence[Todo], sink: Sink, done: Callable[[Todo], None] = lambda each: None) -> None:
        """Judge these videos; the first error ends all. Videos that were deleted are passed over.

        Args:
            todo: the videos; those of one face detector are judged together.
            sink: takes what comes of each.
            done: called after each video, by this thread.

        Raises:
            StoreAwayError: the store of the files does not answer.
            DetectorError: the face detector of a record cannot be created.
            sqlite3.OperationalError: the database is locked, or its disk full.
            OSError: likewise.
        """
        known: list[tuple[_How, Todo]] = []
        for each in todo:
            if (how := _how(each)) is None:
                self._leave_out(each.id, sink)
                done(each)
            else:
                known.append((how, each))
        known.sort(key=lambda pair: pair[0].order)
        # They step back behind a service on the same machine, as do the threads that they start.
        with ThreadPoolExecutor(self._workers, thread_name_prefix="rescore", initializer=step_back) as pool:
            for how, pairs in groupby(known, key=lambda pair: pair[0]):
                self._together(pool, how, [each for _, each in pairs], sink, done)

    def _together(
        self, pool: ThreadPoolExecutor, how: _How, todo: Sequence[Todo], sink: Sink, done: Callable[[Todo], None]
    ) -> None:
        """Judge what one scanner can judge."""
        with ExitStack() as stack:
            opened = judging_scanner(
                lambda: self._detectors,
                self._options(how),
                self._settings,
                portraits=False,
                progress=self._progress,
            )
            loading = pool.submit(stack.enter_context, opened)
            try:
                scanner = replace(loading.result(), stopping=self._stopping)
            except BaseException:
                wait([loading])  # so that the stack closes it
                raise
            # One of those that were under way when the process ended may have ended it: alone, it is known which.
            suspects = [each for each in todo if each.tries]
            others = [each for each in todo if not each.tries]
            for some, at_once in ((suspects, 1), (others, self._workers)):
                # Closed before the scanner is: nothing may be judged by one that is closed.
                with closing(self._all(pool, scanner, some, sink, at_once)) as judged:
                    for each in judged:
                        done(each)

    def _options(self, how: _How) -> ScannerOptions:
        weights = self._face_weights if how.face_detector == "yunet" else None
        return ScannerOptions(
            face_detector=how.face_detector, face_weights=weights, looks=how.looks, workers=self._workers
        )

    def _all(
        self, pool: ThreadPoolExecutor, scanner: Scanner, todo: Sequence[Todo], sink: Sink, at_once: int
    ) -> Generator[Todo]:
        waiting = iter(todo)
        running: dict[Future[None], Todo] = {}
        try:
            while True:
                while len(running) < at_once and (each := next(waiting, None)) is not None:
                    running[pool.submit(self._one, scanner, each.id, sink)] = each
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    each = running.pop(future)
                    future.result()
                    yield each
        except BaseException:
            self._stopping.set()
            wait(running)
            raise

    def _leave_out(self, id_: str, sink: Sink) -> None:
        if (found := self._runs.video(id_)) is not None:
            sink.leave_out(found[0], LeftOut.OTHER_OPTIONS)

    def _one(self, scanner: Scanner, id_: str, sink: Sink) -> None:
        if self._stopping.is_set() or (found := self._runs.video(id_)) is None:
            return
        video, before = found
        try:
            sampling = _sampling(before)
        except ValueError:
            sink.leave_out(video, LeftOut.OTHER_OPTIONS)
            return
        scanner = scanner.with_sampling(sampling)
        crashes = sink.begin(video)
        try:
            if crashes >= MAX_CRASHES:
                error = f"the process ended {MAX_CRASHES} times while it judged this video"
                report = named(unjudged(video, Outcome.MODEL_ERROR, error, scanner.provenance), video)
            else:
                judged = self._judged(scanner, video, before)
                if isinstance(judged, LeftOut):
                    sink.leave_out(video, judged)
                    return
                report = judged
            sink.take(video, before, report.verdict)
        except BaseException as error:
            sink.release(video)
            if not isinstance(error, ScanInterruptedError):
                raise

    def _judged(self, scanner: Scanner, video: Video, before: Verdict) -> ClipReport | LeftOut:
        if video.upload.uri is not None:
            return LeftOut.BY_URI
        part = None if before.part is None else Window.of(before.part.start_s, before.part.end_s)
        with self._media.local(video.id, self._stopping.is_set) as path:
            if not path.is_file():
                return LeftOut.FILE_GONE
            source = Source(str(path), given_id=video.id, is_path=True)
            report = _scanned(scanner, source, part)
            for _ in range(_MAX_AGAIN):
                if report.transient:
                    report = _scanned(scanner, source, part)
            if report.verdict.outcome is Outcome.UNAVAILABLE and not path.is_file():
                return LeftOut.FILE_GONE
        sha256, old = report.verdict.provenance.source_sha256, before.provenance.source_sha256 or video.upload.sha256
        if sha256 is not None and old is not None and sha256 != old:
            return LeftOut.FILE_CHANGED
        return named(report, video, source.name)


def _scanned(scanner: Scanner, source: Source, part: Window | None) -> ClipReport:
    report = scanner.scan(source, part=part)
    assert report is not None  # nothing says that its verdict exists already
    return report


def _how(todo: Todo) -> _How | None:
    """As the record says; None: nobody knows these. Of a record that no detector made, the default."""
    name = todo.detector.partition(" ")[0] or DETECTORS[0]
    try:
        looks = Looks.parse(todo.input_spec.partition(_LOOKS)[2])
    except ValueError:
        return None
    return _How(name, looks) if name in DETECTORS else None


def _sampling(verdict: Verdict) -> Sampling:
    """That of a record; the service's default one where no scanner made it.

    Raises:
        ValueError: it is one of a later version.
    """
    text = verdict.provenance.sampling.partition(_PART)[0]
    return parse_sampling(text) if text else ScannerOptions().sampling
