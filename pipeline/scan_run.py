"""Runs `unmask scan`: many clips, a progress line, the outputs, an exit code."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections import Counter
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError
from rich.console import Console

from models.atomic import atomic_write
from models.errors import UnmaskError
from models.zoo import default_detector
from pipeline.clip_report import ClipReport
from pipeline.contracts import Outcome, Provenance, Verdict, as_text
from pipeline.finding import Found, expand
from pipeline.graphs.format import SUFFIX
from pipeline.logs import configure_logging
from pipeline.manifests.reader import CredentialsReader, is_installed
from pipeline.outputs import Output, OutputError, check_outputs
from pipeline.results.jsonl import JsonlError, VerdictLog, begins_with_record, read_verdicts
from pipeline.results.report_clips import ReportClips, RunSummary, begins_as_report
from pipeline.results.terminal import ScanProgress, summary
from pipeline.scan_start import (
    EXIT_ALL_SCORED,
    EXIT_BAD_INPUT,
    EXIT_INTERRUPTED,
    EXIT_NOT_WRITTEN,
    EXIT_SOME_OUTCOME,
    RETRIED,
    BadOptionError,
    ended_by_sigterm,
    started_scanner,
)
from pipeline.scanner_options import ScannerOptions
from pipeline.settings import Settings, describe_invalid
from pipeline.sources import Source
from pipeline.video.window import Window
from pipeline.visible import markup, visible

if TYPE_CHECKING:
    from pipeline.scan import Scanner


@dataclass(frozen=True)
class Options:
    """Options of `unmask scan`.

    Attributes:
        paths: files, folders, globs or fsspec URIs.
        scanner: how clips are read and scored.
        recursive: include sub-folders.
        follow_links: include linked sub-folders.
        quiet_s: wait until a file has not changed for this long.
        architecture: see `pipeline.detectors.load`, as `weights` and `untrained`.
        jsonl: file for the records; "-" is standard output.
        report: file for the HTML report.
        skipped: file that lists what was left out of folders.
        force: outputs may replace files that are not earlier outputs, but never an input.
        resume: keep the records of the JSONL file of the same bytes, weights and sampling.
        part: only this part of each clip is judged.
    """

    paths: tuple[str, ...]
    scanner: ScannerOptions
    recursive: bool = False
    follow_links: bool = False
    quiet_s: float = 0.0
    architecture: str | None = None
    weights: str | None = None
    untrained: bool = False
    jsonl: Path | None = None
    report: Path | None = None
    skipped: Path | None = None
    force: bool = False
    resume: bool = False
    part: Window | None = None


def run(options: Options) -> int:
    """Scan, write the outputs, show the summary; returns the exit code."""
    configure_logging(level="warning", as_json=False)
    console = Console(stderr=True)
    try:
        settings = Settings()
    except ValidationError as error:
        console.print(f"[red]Error:[/] {markup(describe_invalid(error))}", highlight=False, soft_wrap=True)
        return EXIT_BAD_INPUT
    found = expand(
        options.paths, recursive=options.recursive, follow_links=options.follow_links, chains=settings.uri_chains
    )
    if not found.sources:
        paths = markup(", ".join(options.paths))
        console.print(
            f"[red]No clips:[/] {paths} held {found.why_skipped() or 'nothing'}.", highlight=False, soft_wrap=True
        )
        return EXIT_BAD_INPUT
    try:
        with ended_by_sigterm():
            return _Run(options, settings, found, console).scan()
    except BadOptionError as error:
        console.print(f"[red]Error:[/] {markup(str(error))}", highlight=False, soft_wrap=True)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        console.print("[yellow]Interrupted[/]")
        return EXIT_INTERRUPTED


def _write_skipped(path: Path, found: Found) -> None:
    with atomic_write(path) as file:
        for item in found.skipped:
            line = json.dumps({"skipped": as_text(item.name), "reason": item.reason}, ensure_ascii=False)
            file.write(line.encode() + b"\n")


def _begins_as_skipped(beginning: bytes) -> bool:
    return beginning.startswith(b'{"skipped": ')


class _NotWrittenError(UnmaskError):
    """An output could not be written to its end, such as on a full disk."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(message)
        self.path = path


class _Run:
    """One scan of many clips and its results."""

    def __init__(self, options: Options, settings: Settings, found: Found, console: Console) -> None:
        self.options = options
        self.settings = settings
        self.found = found
        self.sources = found.sources
        self.console = console
        self.started_at = time.time()
        self.reports = ReportClips()
        self.outcomes: Counter[Outcome] = Counter()
        self.kept: set[str] = set()
        self.not_written: dict[Path, str] = {}

    def scan(self) -> int:
        started = time.perf_counter()
        interrupted = False
        self._check_outputs()
        with ExitStack() as stack:
            progress = stack.enter_context(ScanProgress(self.console, len(self.sources)))
            scanner = stack.enter_context(
                started_scanner(
                    self.options.scanner,
                    self.settings,
                    architecture=self.options.architecture,
                    weights=self.options.weights,
                    untrained=self.options.untrained,
                    quiet_s=self.options.quiet_s,
                    portraits=self.options.report is not None,
                    progress=progress.frame,
                    credentials=self._credentials(),
                )
            )
            log = self._open_log(stack, scanner.provenance)
            try:
                self._scan(scanner, log, progress)
            except KeyboardInterrupt:
                interrupted = True
                scanner.stopping.set()
            except _NotWrittenError as error:
                self.not_written[error.path] = str(error)
                scanner.stopping.set()
        self._finish(time.perf_counter() - started, interrupted=interrupted)
        if self.not_written:
            for message in self.not_written.values():
                self.console.print(f"[red]Error:[/] {markup(message)}", highlight=False, soft_wrap=True)
            return EXIT_NOT_WRITTEN
        if interrupted:
            done = self.outcomes.total()
            self.console.print(f"[yellow]Interrupted[/] after {done} of {len(self.sources)} clips.")
            return EXIT_INTERRUPTED
        return EXIT_ALL_SCORED if set(self.outcomes) == {Outcome.SCORED} else EXIT_SOME_OUTCOME

    def _credentials(self) -> CredentialsReader | None:
        """For the report, where they can be read."""
        if self.options.report is None or not is_installed():
            return None
        return CredentialsReader(self.settings.c2pa_trust)

    def _check_outputs(self) -> None:
        """Check outputs first: evidence must not be overwritten, and a long scan must not fail at its end."""
        options = self.options
        outputs = []
        if options.jsonl is not None:
            outputs.append(Output("--jsonl", options.jsonl, begins_with_record, "a file of records"))
        if options.report is not None:
            outputs.append(Output("--report", options.report, begins_as_report, "a report of Unmask"))
        if options.skipped is not None:
            outputs.append(Output("--skipped", options.skipped, _begins_as_skipped, "a list of skipped files"))
        try:
            clips = (source.path for source in self.sources if not source.is_remote)
            check_outputs(outputs, [*clips, *self._weights()], force=options.force)
        except OutputError as error:
            raise BadOptionError(str(error)) from error

    def _weights(self) -> list[str]:
        """The files of the weights, and the graphs next to them."""
        from models.zoo import ZooError, resolve, split_names

        files = [self.options.scanner.face_weights]
        with suppress(ZooError):  # which loading them reports
            for name in split_names(self.options.weights or default_detector()):
                path = resolve(name)
                files += [path, path.with_suffix(SUFFIX)]
        return [str(path) for path in files if path is not None]

    def _open_log(self, stack: ExitStack, provenance: Provenance) -> VerdictLog | None:
        path = self.options.jsonl
        if path is None or str(path) == "-":
            return None

        part = self.options.part
        sampling = provenance.sampling if part is None else part.sampling_text(provenance.sampling)

        def same(verdict: Verdict) -> bool:
            past = verdict.provenance
            return verdict.outcome not in RETRIED and (
                past.weights_sha256,
                past.input_spec,
                past.detector,
                past.sampling,
            ) == (provenance.weights_sha256, provenance.input_spec, provenance.detector, sampling)

        try:
            return stack.enter_context(VerdictLog(path, keep=same if self.options.resume else None))
        except (JsonlError, OSError) as error:
            raise BadOptionError(f"--jsonl: {error}") from error

    def _scan(self, scanner: Scanner, log: VerdictLog | None, progress: ScanProgress) -> None:
        from pipeline.scan_many import scan_all

        def done(source: Source, sha256: str | None) -> bool:
            return log is not None and source.id in log.kept and log.kept[source.id].source_sha256 == sha256

        workers = self.options.scanner.clips_at_once
        with closing(scan_all(scanner, self.sources, workers=workers, done=done, part=self.options.part)) as reports:
            for source, report in reports:
                progress.clip(source)
                if report is not None:
                    self._take(report, log)
                elif log is not None:
                    self.kept.add(source.id)
                    self.outcomes[log.kept[source.id].outcome] += 1

    def _take(self, report: ClipReport, log: VerdictLog | None) -> None:
        self.outcomes[report.verdict.outcome] += 1
        if log is not None:
            try:
                log.write(report.verdict)
            except OSError as error:
                self.reports.add(report)
                why = f"--jsonl: {error.strerror or error}; the records before this clip's are in the file"
                raise _NotWrittenError(log.path, why) from error
        elif self.options.jsonl is not None:
            line = report.verdict.to_json()
            sys.stdout.write((visible(line) if sys.stdout.isatty() else line) + "\n")
            sys.stdout.flush()
        self.reports.add(report)

    def _finish(self, elapsed_s: float, *, interrupted: bool) -> None:
        options = self.options
        if options.report is not None:
            from pipeline.results.report import write_report

            if self.kept and options.jsonl is not None:
                for verdict in read_verdicts(options.jsonl):
                    if verdict.id in self.kept:
                        self.reports.add(ClipReport(verdict))
            verdicts = [clip.verdict for clip in self.reports]
            try:
                write_report(
                    options.report,
                    self.reports,
                    run=RunSummary(
                        started_at=self.started_at,
                        elapsed_s=elapsed_s,
                        clips=len(verdicts),
                        frames_sampled=sum(verdict.frames_sampled for verdict in verdicts),
                        frames_scored=sum(verdict.frames_scored for verdict in verdicts),
                        command=as_text(shlex.join(["unmask", *sys.argv[1:]])),
                        skipped_files=len(self.found.skipped),
                        software=f"unmask {version('unmask')}",
                    ),
                )
            except OSError as error:
                self.not_written[options.report] = f"--report: {error.strerror or error}"
        if options.skipped is not None:
            try:
                _write_skipped(options.skipped, self.found)
            except OSError as error:
                self.not_written[options.skipped] = f"--skipped: {error.strerror or error}"
        # Standard output is reserved for records if they go there.
        console = self.console if str(options.jsonl) == "-" else Console()
        verdicts = [clip.verdict for clip in self.reports]
        if self.outcomes or not interrupted:
            for part in summary(verdicts, self.outcomes, untrained=options.untrained):
                console.print(part, highlight=False)
        if self.kept:
            console.print(f"already judged (--resume): {len(self.kept)} of the clips", highlight=False)
        if self.found.skipped:
            console.print(f"skipped: {self.found.why_skipped()}", highlight=False)
        for what, path in (("records", options.jsonl), ("report", options.report), ("skipped files", options.skipped)):
            if path is not None and str(path) != "-" and path not in self.not_written:
                console.print(f"{what}: {visible(str(path))}", highlight=False, markup=False)
