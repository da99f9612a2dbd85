"""Judging one part of an archive: the same code in each engine's workers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import structlog

from models.errors import UnmaskError
from pipeline.archive.journal import Journal
from pipeline.archive.manifest import Row
from pipeline.archive.output import NotWrittenError, OutFolder
from pipeline.archive.plan import part_name
from pipeline.archive.table import Marker, read_marker, read_rows, write_marker, write_part
from pipeline.contracts import Outcome, Provenance, Verdict, as_text
from pipeline.scan_start import RETRIED, BadOptionError, started_scanner
from pipeline.scanner_options import ScannerOptions
from pipeline.settings import Settings
from pipeline.sources import ScanInterruptedError
from pipeline.video.window import Window

if TYPE_CHECKING:
    from pipeline.scan import Scanner

log = structlog.get_logger(__name__)

# Names the file that is being judged alone, after a worker was killed.
_SUSPECT = "suspect"
# The marker of a part that is judged again where its outcomes may be transient.
AGAIN = "again"


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """All that a worker needs, in whichever process or machine it is.

    Attributes:
        out: the output, see `OutFolder`.
        key: of the plan.
        scanner: how clips are read and scored; `workers` is set.
        weights: name or path of the detector; None: the default one.
        window: only this part of each clip is judged.
        working_folder: where relative paths start; None: there are no relative paths.
        settings: fields of `Settings` that replace those of the worker's environment.
    """

    out: str
    key: str
    scanner: ScannerOptions
    weights: str | None
    window: Window | None
    working_folder: str | None
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Job:
    """A part to be judged.

    Attributes:
        part: its number.
        rows: its files.
        deaths: how many workers were killed at it in this run.
    """

    part: int
    rows: tuple[Row, ...]
    deaths: int = 0


@dataclass(frozen=True, slots=True)
class Failed:
    """A worker cannot go on; the archive ends with this message."""

    message: str
    exit_code: int


class PartRunner:
    """Judges parts, one at a time, with one scanner; see `started_runner`.

    Attributes:
        recorded: files that have got a record from it, of all parts; grows while a part is judged.
    """

    def __init__(self, scanner: Scanner, spec: WorkerSpec) -> None:
        self.recorded = 0
        self._scanner, self._spec = scanner, spec
        self._out = OutFolder(spec.out)

    @property
    def provenance(self) -> Provenance:
        """Of the records that it makes."""
        return self._scanner.provenance

    def run(self, job: Job, recorded: Callable[[], None] = lambda: None) -> Marker:
        """Judge a part and write it. Records of earlier tries of this part are kept.

        Args:
            job: the part.
            recorded: called after each file.

        Raises:
            ScanInterruptedError: the scanner was stopped; what was judged is in the journal.
            NotWrittenError: the output or the journal cannot be written.
            NotReadError: the output cannot be read.
        """
        out = self._out
        with Journal(out.journals(self._spec.key), job.part) as journal:

            def keep(row: Row, verdict: Verdict) -> None:
                journal.add(row.number, verdict.to_json())
                self.recorded += 1
                recorded()

            try:
                self._keep_lasting(job, journal)
                self._end_suspect(job, journal, keep)
                self._judge_all(job, journal, keep)
            except BaseException:
                # Ended on purpose: the files under way did not end it.
                with suppress(NotWrittenError):
                    journal.ended()
                raise
            marker = write_part(out, job.part, job.rows, journal.record)
            write_marker(out, marker)
            out.delete(part_name(job.part, AGAIN))
            journal.delete()
        return marker

    def result(self, job: Job, recorded: Callable[[], None] = lambda: None) -> Marker | Failed | None:
        """As `run`, with the ends that a driver must know as values; None: interrupted."""
        try:
            return self.run(job, recorded)
        except ScanInterruptedError:
            return None
        except Exception as error:  # noqa: BLE001 - the driver reports it, and ends
            return failure(error)

    def _keep_lasting(self, job: Job, journal: Journal) -> None:
        """Of a part that is judged again: the records whose outcome another try would not change."""
        before = read_marker(self._out, job.part, AGAIN)
        name = part_name(job.part, "parquet")
        if before is None or name not in self._out.names() or self._out.sha256(name) != before.sha256:
            return
        rows = {row.id: row for row in job.rows}
        with self._out.opened(name) as file:
            for each in read_rows(file, ["id", "outcome", "record"]):
                row = rows.get(each["id"])
                if row is not None and row.number not in journal and each["outcome"] not in RETRIED:
                    journal.add(row.number, each["record"])

    def _end_suspect(self, job: Job, journal: Journal, keep: Callable[[Row, Verdict], None]) -> None:
        """A file that was the only one under way when its worker was killed, for the second time, gets an outcome."""
        name = part_name(job.part, _SUSPECT)
        if (text := self._out.read(name)) is None:
            return
        for row in job.rows:
            if str(row.number).encode() == text and row.number not in journal:
                log.warning("a file ended its worker twice", clip_id=row.id, source=row.uri)
                keep(row, self._poisonous(row))
        self._out.delete(name)

    def _judge_all(self, job: Job, journal: Journal, keep: Callable[[Row, Verdict], None]) -> None:
        todo = [row for row in job.rows if row.number not in journal]
        alone = [row for row in todo if row.number in journal.suspects]
        if job.deaths and not journal.suspects and not len(journal):
            # The killed worker's journal is on another machine: any file may have ended it.
            alone = todo
        for row in alone:
            name = part_name(job.part, _SUSPECT)
            self._out.write(name, str(row.number).encode())
            try:
                self._judge([row], 1, journal, keep)
            finally:
                # Where the worker is killed it stays, and names the file.
                self._out.delete(name)
        rest = [row for row in todo if row.number not in journal]
        self._judge(rest, self._spec.scanner.clips_at_once, journal, keep)

    def _judge(self, rows: Sequence[Row], threads: int, journal: Journal, keep: Callable[[Row, Verdict], None]) -> None:
        from pipeline.scan_many import scan_all

        by_id = {row.id: row for row in rows}

        def begun() -> Iterator[Any]:
            for row in rows:
                journal.began(row.number)
                yield row.source

        reports = scan_all(self._scanner, begun(), workers=threads, part=self._spec.window)
        with closing(reports):
            for source, report in reports:
                if report is not None:
                    keep(by_id[source.id], report.verdict)

    def _poisonous(self, row: Row) -> Verdict:
        window, provenance = self._spec.window, self.provenance
        if window is not None:
            sampling = window.sampling_text(provenance.sampling)
            provenance = provenance.model_copy(update={"sampling": sampling})
        return Verdict(
            schema=1,
            id=row.id,
            source=as_text(row.uri),
            outcome=Outcome.MODEL_ERROR,
            probability=None,
            label=None,
            error="its worker was killed twice while it was judged, the second time with no other file under way; "
            "it may need more memory than there is",
            duration_s=None,
            frames_sampled=0,
            frames_scored=0,
            people=[],
            frames=[],
            provenance=provenance,
            elapsed_s=0.0,
        )


@contextmanager
def started_runner(spec: WorkerSpec, stopping: threading.Event) -> Iterator[PartRunner]:
    """A runner with its scanner, closed at the end of the block.

    Args:
        spec: of the worker.
        stopping: set it to end at the next frame.

    Raises:
        BadOptionError: as `started_scanner`; or the working folder does not exist here.
    """
    if spec.working_folder is not None:
        try:
            os.chdir(spec.working_folder)
        except OSError as error:
            raise BadOptionError(
                f"{spec.working_folder}: relative paths of the manifest start there, and it cannot be entered: "
                f"{error.strerror}"
            ) from error
    settings = Settings(**spec.settings)
    with started_scanner(spec.scanner, settings, weights=spec.weights) as scanner:
        yield PartRunner(replace(scanner, stopping=stopping), spec)


def failure(error: Exception) -> Failed:
    """What a worker reports of an error that it cannot go on after."""
    if isinstance(error, UnmaskError):
        return Failed(str(error), error.exit_code)
    log.error("a worker failed", exc_info=error)
    return Failed(f"internal error: {type(error).__name__}: {error}", 1)
