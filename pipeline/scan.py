"""One machine, no broker: a clip in, its verdict out; clips of several threads share batches."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import structlog

from models.checkpoint_info import Calibration, Thresholds
from models.spec import InputSpec
from pipeline.clip_report import AppliedThresholds, ClipReport
from pipeline.contracts import Adapted, JudgedPart, Outcome, Provenance, Verdict, as_text
from pipeline.credentials import Credentials
from pipeline.early_looks import EarlyLooks
from pipeline.faces.crop import crops_of
from pipeline.faces.detector import FaceDetector
from pipeline.faces.tracker import FaceTracker
from pipeline.faces.turns import TurnFinder
from pipeline.faces.views import Looks, crops_with_views
from pipeline.frame_scorer import FrameScorer
from pipeline.known.prints import PrintMaker
from pipeline.manifests.reader import CredentialsReader
from pipeline.parts.join import overlap_for
from pipeline.parts.result import PartResult, SeenFrame
from pipeline.portraits import FacePlace, PortraitPicker
from pipeline.scoring.engine import Engine, ScoringError
from pipeline.scoring.group import EngineGroup
from pipeline.several_streams import MAX_STREAMS, StreamShape, on_all_streams
from pipeline.sources import Opened, ScanInterruptedError, Source, SourceError, SourceLimits, open_source
from pipeline.stage_times import StageTimes
from pipeline.types import Crops, Faces, Floats, Frame, Scores
from pipeline.verdict.aggregate import SUPPORT_FRAMES, ClipFacts, Failure, judge, supported_people
from pipeline.verdict.coverage import MIN_COVERAGE, Damage, Range, coverage_of
from pipeline.verdict.sequential import is_settled
from pipeline.video.clip import ClipInfo
from pipeline.video.sampling import Adaptive, DecodedSampling, Even, Fps, Sampling, fixed, within
from pipeline.video.sandbox import ClipReader, DecodeError, DecodeServer, Limits, Window

log = structlog.get_logger(__name__)

# Largest share of a part's length that is decoded before its first frame. Key frames are rarely ten seconds apart.
_SEEK_SHARE = 0.5
# The first partial verdict comes after so many frames, the next one after this many times as many: so all of them cost
# little, however long the clip is.
_PARTIAL_FRAMES, _PARTIAL_GROWTH = 8, 1.3

Progress = Callable[[Source, float | None, int], None]


@dataclass(frozen=True, slots=True)
class ClipCost:
    """What a clip took.

    Attributes:
        seconds: in each stage: open, decode, faces, queue (until the engine takes a crop), score (of the last crops),
            print (where the scanner makes prints).
        decoder_died: its decode child was killed, by what it met or by a limit.
    """

    seconds: dict[str, float]
    decoder_died: bool


class LongClipError(Exception):
    """A clip is longer than the limit; it was not started.

    Attributes:
        duration_s: as its container says.
        overlap_s: of its parts, see `pipeline.parts.join.overlap_for`.
    """

    def __init__(self, duration_s: float, overlap_s: float) -> None:
        super().__init__(f"{duration_s:.1f} s long")
        self.duration_s = duration_s
        self.overlap_s = overlap_s


@dataclass(frozen=True)
class Scanner:
    """Everything that judging a clip takes; shared by all threads of a scan.

    Attributes:
        engine: scores crops; its backend belongs to the same detector as `spec`. A group where several detectors score,
            or one with more looks than the plain one.
        spec: input of that detector; of an ensemble the largest one, for the pictures of reports.
        provenance: what is the same for all clips; decoder and source_sha256 are filled in for each.
        source_limits: how much is read and fetched.
        portraits: keep crops for a report.
        prints: make a print of each clip, see `pipeline.known.prints`.
        progress: called for each frame with the source, the part of the clip that is done (None where its
            duration is unknown) and the number of faces scored in it.
        partial: called now and then with the source and the verdict on what was scored so far, which may still change.
        cost: called at the end of each clip.
        stopping: set it to end the scan at the next frame.
        min_coverage: share of a clip's duration that must be readable for a verdict.
        looks: at each face, in addition to the plain one; the engine's group has the same.
        credentials: reads the Content Credentials of each file meanwhile; None: nobody looks.
    """

    engine: Engine | EngineGroup
    spec: InputSpec
    detector: FaceDetector
    server: DecodeServer
    sampling: Sampling
    provenance: Provenance
    calibration: Calibration | None = None
    thresholds: Thresholds | None = None
    limits: Limits = field(default_factory=Limits)
    source_limits: SourceLimits = field(default_factory=SourceLimits)
    portraits: bool = True
    prints: bool = False
    progress: Progress | None = None
    partial: Callable[[Source, Verdict], None] | None = None
    cost: Callable[[ClipCost], None] | None = None
    stopping: threading.Event = field(default_factory=threading.Event)
    min_coverage: float = MIN_COVERAGE
    looks: Looks = field(default_factory=Looks)
    credentials: CredentialsReader | None = None

    def cut(self, frame: Frame, faces: Faces) -> Crops:
        """The crops of a frame's faces as the engine wants them."""
        if isinstance(self.engine, EngineGroup):
            return crops_with_views(frame, faces, self.spec, self.engine.views)
        return crops_of(frame, faces, self.spec)

    def submit(self, crops: Crops) -> Future[Floats]:
        """Queue what `cut` gave; see `Engine.submit`. The future holds log-odds of fake before `calibration`."""
        if isinstance(self.engine, EngineGroup):
            return self.engine.submit(crops.views)
        return self.engine.submit(crops.pixels)

    def with_sampling(self, sampling: Sampling) -> Scanner:
        """The same, but for the frames that are looked at."""
        provenance = self.provenance.model_copy(update={"sampling": sampling.describe()})
        return replace(self, sampling=sampling, provenance=provenance)

    def scan(
        self,
        source: Source,
        *,
        done: Callable[[str | None], bool] | None = None,
        stop: Callable[[], bool] = lambda: False,
        longest_s: float | None = None,
        part: Window | None = None,
    ) -> ClipReport | None:
        """Judge one clip. Whatever is wrong with it ends in a typed outcome.

        Args:
            source: the clip.
            done: given the sha256 of its bytes, whether its verdict exists already.
            stop: asked at each frame, whether to end this clip without a verdict.
            longest_s: a clip that is longer is not started, if parts of this length cost no more than the whole and
                give the same verdict.
            part: only this part of the clip is decoded and judged; times stay those of the whole clip. The looks of
                adaptive sampling are left out.

        Returns:
            The verdict with its portraits, or None if it existed already.

        Raises:
            ScanInterruptedError: `stopping` was set, or `stop` said so.
            LongClipError: it is longer than `longest_s`, and can be decoded in parts.
        """
        started = time.perf_counter()
        clip = _Clip(self, source, stop, part)
        clip.longest_s = None if part is not None else longest_s
        if not self._run(clip, done):
            return None
        report = clip.report(time.perf_counter() - started)
        others = [other.report(other.took_s) for other in clip.others]
        shapes = [each.shape for each in (clip, *clip.others)]
        return replace(on_all_streams([report, *others], shapes, self.thresholds), credentials=clip.credentials)

    def scan_part(self, source: Source, window: Window, *, stop: Callable[[], bool] = lambda: False) -> PartResult:
        """Score one part of a clip, for `judge_parts`. Errors are in the result; `progress` is not called.

        Args:
            source: the whole clip.
            window: the part, see `plan_parts`.
            stop: asked at each frame, whether to end this part without a result.

        Raises:
            ScanInterruptedError: `stopping` was set, or `stop` said so.
        """
        started = time.perf_counter()
        clip = _Clip(replace(self, portraits=False, progress=None), source, stop, window)
        clip.is_share = True
        self._run(clip, None)
        return clip.part(window, time.perf_counter() - started)

    def _run(self, clip: _Clip, done: Callable[[str | None], bool] | None) -> bool:
        """Collect the scores, or the reason why there are none; False if the clip's verdict existed already."""
        try:
            return self._collect(clip, done)
        finally:
            clip.times().trace(size_bytes=clip.size_bytes)

    def _collect(self, clip: _Clip, done: Callable[[str | None], bool] | None) -> bool:
        started = time.perf_counter()
        source = clip.source
        try:
            with open_source(source, self.source_limits, stop=clip.stopped) as opened:
                clip.spent.add("open", started, time.perf_counter())
                clip.sha256, clip.size_bytes = opened.sha256, opened.size_bytes
                if done is not None and done(opened.sha256):
                    return False
                reading = None if self.credentials is None else self.credentials.begin(opened.fd)
                try:
                    clip.run(opened)
                finally:
                    clip.credentials = None if reading is None else reading.end(clip.stopped)
        except (ScanInterruptedError, LongClipError):
            raise
        except SourceError as error:
            clip.end(Failure(error.outcome, str(error), error.transient))
        except DecodeError as error:
            clip.fail(error)
        except ScoringError as error:
            clip.end(Failure(Outcome.MODEL_ERROR, str(error), transient=True))
        except Exception as error:  # a clip must end in a verdict, which has the error
            log.exception("scoring failed", clip_id=source.id, source=source.name)
            clip.end(Failure(Outcome.MODEL_ERROR, f"{type(error).__name__}: {error}", transient=True))
        clip.collect()
        if self.cost is not None:
            self.cost(clip.cost())
        return True


class _Clip:
    """The state of one clip while it is scanned; belongs to one thread."""

    def __init__(
        self,
        scanner: Scanner,
        source: Source,
        stop: Callable[[], bool],
        window: Window | None = None,
        stream: int = 0,
    ) -> None:
        self.scanner = scanner
        self.source = source
        self.stop = stop
        self.window = window
        self.stream = stream
        self.is_share = False  # of a long clip, for `judge_parts`
        self.others: list[_Clip] = []  # of its other streams
        self.streams = 1
        self.shape = StreamShape()
        self.took_s = 0.0
        self.longest_s: float | None = None
        self.failure: Failure | None = None
        self.died = False
        self.seen: list[SeenFrame]  # of a share only
        self.sha256: str | None = None
        self.size_bytes: int | None = None
        self.credentials: Credentials | None = None
        self.decoder = "none"
        self.duration_s: float | None = None
        self.overlap_s: float | None = None
        self.damage: Damage | None = None
        self.pixel_aspect = 1.0
        self.scores = Scores.join(source.id, [])
        self.looks: EarlyLooks | None = None  # of a clip whose sampling is adaptive
        self.settled = False  # by them
        self.partial_at = _PARTIAL_FRAMES
        self.spent = StageTimes()  # of opening, and of readings that gave way to another
        self.printed = PrintMaker() if scanner.prints else None
        self._begin(turn=0)

    def _begin(self, turn: int) -> None:
        """Start without frames, which are turned by so many degrees."""
        self.seen = []
        self.picker = PortraitPicker() if self.scanner.portraits else None
        self.scorer = self._new_scorer(turn)

    def _new_scorer(self, turn: int = 0) -> FrameScorer:
        scanner = self.scanner
        return FrameScorer(
            self.source.id,
            FaceTracker(scanner.detector),
            cut=scanner.cut,
            submit=scanner.submit,
            calibration=scanner.calibration,
            scored=self._scored,
            turn=turn,
        )

    def run(self, opened: Opened) -> None:
        """Score all frames, of the other video streams too.

        Raises:
            ScoringError: a crop could not be scored.
            DecodeError: the only stream cannot be read.
        """
        try:
            self._score(opened)
        except DecodeError as error:
            self.streams = max(self.streams, error.streams)
            if self.streams == 1:
                raise
            self.fail(error)
        if not self.is_share and self.stream == 0:
            for number in range(1, min(self.streams, MAX_STREAMS)):
                self._score_other(opened, number)

    def _score(self, opened: Opened) -> None:
        """Decode, find, cut and submit all frames; once more where people turn out not to be upright."""
        if self._look_early(opened):
            return
        if not self._read(opened, self.longest_s):
            if self._can_be_split(opened):
                raise LongClipError(self.duration_s or 0.0, self.overlap_s or 0.0)
            self._read(opened, None)
        if turn := self._finder.turn():
            self.scorer.finish()
            self.spent.update(self.scorer.times)
            self._begin(turn)
            self._read(opened, None)

    def _look_early(self, opened: Opened) -> bool:
        """Whether few frames settle the verdict, where the sampling allows that."""
        scanner, thresholds = self.scanner, self.scanner.thresholds
        if not isinstance(scanner.sampling, Adaptive) or thresholds is None or self.window is not None or self.stream:
            return False
        self.looks = looks = EarlyLooks(
            scanner.sampling,
            open_clip=lambda look: self._opened_with(opened, look),
            frames_of=self._until_stopped,
            new_scorer=self._new_scorer,
            new_finder=lambda: TurnFinder(scanner.detector),
        )

        def settles() -> bool:
            assert looks.scores is not None
            verdict = judge(self._facts(0.0, looks), looks.scores, scanner.calibration, thresholds)
            return is_settled(verdict, looks.scores, looks.planned, scanner.calibration, thresholds)

        self.settled = looks.run(self._describe, settles)
        self.spent.update(looks.times)
        if not self.settled:
            self._begin(turn=0)
        return self.settled

    def _score_other(self, opened: Opened, number: int) -> None:
        """Score another stream of the same file; if it cannot be read, this is its own failure."""
        started = time.perf_counter()
        clip = _Clip(self.scanner, self.source, self.stop, self.window, number)
        clip.sha256 = self.sha256
        try:
            clip.run(opened)
        except DecodeError as error:
            clip.fail(error)
        clip.collect()
        clip.took_s = time.perf_counter() - started
        self.others.append(clip)

    def fail(self, error: DecodeError) -> None:
        """The stream cannot be read, or only partly."""
        self.died = error.died
        # What cannot be opened after its bytes were hashed is short of processes or memory at the moment.
        self.failure = Failure(Outcome(error.outcome), str(error), error.outcome == "unavailable")

    def end(self, failure: Failure) -> None:
        """The file has no verdict, whatever was found in its other streams."""
        self.failure = failure
        self.others.clear()

    def cost(self) -> ClipCost:
        """Of all its streams."""
        return ClipCost(dict(self.times().seconds), any(each.died for each in (self, *self.others)))

    def times(self) -> StageTimes:
        """Of all its streams."""
        times = StageTimes()
        for each in (self, *self.others):
            times.update(each.spent)
            times.update(each.scorer.times)
        return times

    def _read(self, opened: Opened, longest_s: float | None) -> bool:
        """Whether it was read; not if it is longer than `longest_s`."""
        scanner = self.scanner
        self._finder = finder = TurnFinder(scanner.detector)
        with self._open(opened) as reader:
            self._describe(reader.info)
            end_s = 0.0
            duration_s = self.duration_s
            # Parts hold one stream.
            if longest_s is not None and duration_s is not None and duration_s > longest_s and self.streams == 1:
                self.overlap_s = overlap_for(fixed(scanner.sampling), duration_s, reader.info.fps, longest_s)
                if self.overlap_s is not None:
                    return False
            for frame in self._until_stopped(reader):
                faces, scored = self.scorer.add(frame)
                if self.scorer.error is not None:
                    raise self.scorer.error
                if self.scorer.turn == 0 and finder.look(frame.image, faces):
                    return True
                if self.is_share:
                    self.seen.append(SeenFrame(frame.t_s, frame.index, faces))
                end_s = frame.t_s
                if scanner.progress is not None:
                    scanner.progress(self.source, self._share_done(frame.t_s), scored)
                self._say_partial()
            info = reader.info
            if info.duration_s is not None or end_s > 0:  # not a picture
                self.damage = Damage(_within(info.damaged, self.window), info.frames_corrupt, info.truncated, end_s)
        if self.window is not None and not self.is_share and self.scorer.frames == 0:
            self.failure = Failure(Outcome.UNDECODABLE, _no_frame(self.window, self.duration_s))
        return True

    def _say_partial(self) -> None:
        scanner, is_whole = self.scanner, not self.is_share and self.stream == 0
        if scanner.partial is None or not is_whole or self.scorer.frames < self.partial_at:
            return
        self.partial_at = int(self.scorer.frames * _PARTIAL_GROWTH) + 1
        verdict = judge(self._facts(0.0), self.scorer.so_far(), scanner.calibration, scanner.thresholds)
        scanner.partial(self.source, verdict)

    def _share_done(self, t_s: float) -> float | None:
        start_s = 0.0 if self.window is None else self.window.start_s
        length_s = self._end_s() - start_s
        return min(1.0, (t_s - start_s) / length_s) if 0 < length_s < math.inf else None

    def _end_s(self) -> float:
        """Of what is read; infinity if that is unknown."""
        end_s = math.inf if self.window is None else self.window.end_s
        return min(end_s, self.duration_s or math.inf)

    def _open(self, opened: Opened) -> ClipReader:
        """The clip; one that is too short for a verdict at the rate of samples gets as many frames as one needs."""
        sampling = fixed(self.scanner.sampling)
        reader = self._opened_with(opened, sampling)
        duration_s = self.duration_s = reader.info.duration_s
        if self.window is not None and not self.is_share:
            chosen = within(sampling, self.window.start_s, self._end_s(), SUPPORT_FRAMES)
            if chosen != sampling:
                reader.close()
                return self._opened_with(opened, chosen)
        if (
            self.window is None
            and isinstance(sampling, Fps)
            and duration_s is not None
            and duration_s * sampling.fps < SUPPORT_FRAMES
        ):
            reader.close()
            return self._opened_with(opened, Even(SUPPORT_FRAMES))
        return reader

    def _opened_with(self, opened: Opened, sampling: DecodedSampling) -> ClipReader:
        scanner = self.scanner
        # The decode child starts and looks at the file.
        with self.scorer.timed("decode"):
            return scanner.server.open(
                opened.fd, self.source.id, sampling, scanner.limits, self.window, stream=self.stream
            )

    def _describe(self, info: ClipInfo) -> None:
        self.decoder = info.decoder
        self.duration_s = info.duration_s
        self.pixel_aspect = info.pixel_aspect
        self.shape = StreamShape(info.width, info.height, info.codec)
        self.streams = info.streams

    def _can_be_split(self, opened: Opened) -> bool:
        """Where a part had to decode all before it, the cost of all would grow with the square of the length."""
        scanner, start = self.scanner, Window(0.0, 1.0)
        with scanner.server.open(opened.fd, self.source.id, fixed(scanner.sampling), scanner.limits, start) as reader:
            seek_s = reader.info.seek_s
        return seek_s is not None and self.longest_s is not None and seek_s <= _SEEK_SHARE * self.longest_s

    def _until_stopped(self, reader: ClipReader) -> Iterator[Frame]:
        while True:
            with self.scorer.timed("decode"):
                frame = next(reader, None)
            if frame is None:
                return
            if self.stopped():
                raise ScanInterruptedError
            if self.printed is not None:
                with self.scorer.timed("print"):
                    self.printed.add(frame)
            yield frame

    def stopped(self) -> bool:
        """Whether the scan, or this clip, is to end now."""
        return self.scanner.stopping.is_set() or self.stop()

    def collect(self) -> None:
        """Wait for the scores that are still missing; keep a failure that was found before."""
        self.scores = self.scorer.finish()
        if self.settled and self.looks is not None and self.looks.scores is not None:
            self.scores = self.looks.scores
        if self.scorer.error is not None and self.failure is None:
            self.failure = Failure(Outcome.MODEL_ERROR, str(self.scorer.error), transient=True)

    def _scored(self, crops: Crops, scores: Scores) -> None:
        if self.picker is not None:
            faces, turn = crops.faces, self.scorer.turn
            for i, pixels in enumerate(crops.pixels):
                self.picker.add(
                    pixels,
                    track=int(scores.track_ids[i]),
                    t_s=float(scores.t_s[i]),
                    probability=float(scores.probability[i]),
                    quality=float(scores.quality[i]),
                    place=None if faces is None else FacePlace.of(faces, i, turn=turn, stream=self.stream),
                )

    def _facts(self, elapsed_s: float, looks: EarlyLooks | None = None) -> ClipFacts:
        """Of the early looks, if they are given, else of the reading that counts."""
        part = None if self.is_share else self.window
        sampling = self.scanner.provenance.sampling
        sampling = sampling if part is None else part.sampling_text(sampling)
        seen = looks or (self.looks if self.settled else None) or self.scorer
        return ClipFacts(
            id=self.source.id,
            source=as_text(self.source.name),
            duration_s=self.duration_s,
            frames_sampled=seen.frames,
            faces_seen=seen.faces,
            failure=self.failure,
            provenance=self.scanner.provenance.model_copy(
                update={"decoder": self.decoder, "source_sha256": self.sha256, "sampling": sampling}
            ),
            elapsed_s=elapsed_s,
            not_judged=seen.not_judged,
            adapted=self._adapted(),
            coverage=None if self.damage is None else coverage_of(self.damage, self.duration_s, part),
            min_coverage=self.scanner.min_coverage,
            pixel_aspect=self.pixel_aspect,
            turn=self.scorer.turn,
            part=None if part is None else _judged(part),
        )

    def _adapted(self) -> Adapted | None:
        looks = self.looks
        if looks is None or not looks.frames:
            return None
        return Adapted(early=self.settled, looked_at=looks.frames, planned=looks.planned)

    def part(self, window: Window, elapsed_s: float) -> PartResult:
        """What was collected."""
        return PartResult.of(self._facts(elapsed_s), window, self.seen, self.scores, self.damage)

    def report(self, elapsed_s: float) -> ClipReport:
        """The verdict on what was collected."""
        scanner = self.scanner
        verdict = judge(self._facts(elapsed_s), self.scores, scanner.calibration, scanner.thresholds)
        transient = self.failure is not None and self.failure.transient
        made = None if self.printed is None else self.printed.made()
        if self.picker is None:
            return ClipReport(verdict, transient=transient, print=made)
        return ClipReport(
            verdict,
            transient=transient,
            suspicious=self.picker.suspicious,
            clearest=self.picker.clearest,
            thresholds=self._applied(verdict),
            print=made,
        )

    def _applied(self, verdict: Verdict) -> AppliedThresholds | None:
        thresholds = self.scanner.thresholds
        if thresholds is None or verdict.outcome is not Outcome.SCORED:
            return None
        real, fake = thresholds.of(len(supported_people(verdict)))
        return AppliedThresholds(real=real, fake=fake, fpr=thresholds.fpr)


def _judged(window: Window) -> JudgedPart:
    return JudgedPart(start_s=window.start_s, end_s=window.given_end_s)


def _no_frame(window: Window, duration_s: float | None) -> str:
    end = "the end" if math.isinf(window.end_s) else f"{window.end_s:g} s"
    length = "its length is unknown" if duration_s is None else f"it is {duration_s:.1f} s long"
    return f"no frame of the video was found from {window.start_s:g} s to {end}: {length}"


def _within(ranges: Sequence[Range], window: Window | None) -> tuple[Range, ...]:
    if window is None:
        return tuple(ranges)
    cut = ((max(start, window.start_s), min(end, window.end_s)) for start, end in ranges)
    return tuple((start, end) for start, end in cut if start < end)
