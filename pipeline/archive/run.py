"""Runs `unmask archive`: plan, parts, results, an exit code; the same call again goes on where it ended."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from models.cores import available_cores
from models.zoo import default_detector, resolve, split_names
from pipeline.archive.dispatch import EngineError, Pool, dispatch
from pipeline.archive.manifest import Manifest, open_manifest
from pipeline.archive.output import OutFolder
from pipeline.archive.part import Job, WorkerSpec
from pipeline.archive.plan import (
    ROWS,
    Asked,
    Bounds,
    Judged,
    Plan,
    PlannedRows,
    check_same,
    read_plan,
    write_plan,
    write_rows,
)
from pipeline.archive.results import FAILED, SUCCESS, Totals, begin_again, complete_parts, write_results
from pipeline.archive.table import Marker
from pipeline.contracts import Outcome, Provenance
from pipeline.logs import configure_logging
from pipeline.scan_start import (
    EXIT_ALL_SCORED,
    EXIT_INTERRUPTED,
    EXIT_SOME_OUTCOME,
    ended_by_sigterm,
)
from pipeline.scanner_options import ScannerOptions
from pipeline.settings import Settings
from pipeline.sources import SourceLimits
from pipeline.video.window import Window
from pipeline.visible import markup

Engine = Literal["local", "ray"]
# Cores that the threads of one scanner keep busy.
_CORES_EACH = 4


@dataclass(frozen=True)
class Options:
    """Options of `unmask archive`.

    Attributes:
        manifest: path or URI.
        out: folder or URI of the output.
        scanner: how clips are read and scored; `workers` are clips at once in each process.
        engine: where parts are judged.
        processes: workers or actors; None: one for each four cores.
        weights: see `pipeline.detectors.load_all`.
        part: only this part of each clip is judged.
        part_files: files of a part at most; None: by the length of the manifest.
        part_bytes: size of a part at most; None: 8 GiB.
        retry_failed: judge what was unavailable, shed or a model_error again.
        ray_address: of a cluster; None: start one on this machine.
    """

    manifest: str
    out: str
    scanner: ScannerOptions
    engine: Engine = "local"
    processes: int | None = None
    weights: str | None = None
    part: Window | None = None
    part_files: int | None = None
    part_bytes: int | None = None
    retry_failed: bool = False
    ray_address: str | None = None


def run(options: Options) -> int:
    """Judge an archive; returns the exit code.

    Raises:
        UnmaskError: as its parts say, with its exit code.
        ValueError: the output or a setting is invalid.
    """
    configure_logging(level="warning", as_json=False)
    console = Console(stderr=True)
    try:
        with ended_by_sigterm():
            out = OutFolder(options.out)
            with out.locked():
                return _Run(options, out, console).archive()
    except KeyboardInterrupt:
        console.print("[yellow]Interrupted[/]; the same command goes on.")
        return EXIT_INTERRUPTED


class _Run:
    """One call of `unmask archive`."""

    def __init__(self, options: Options, out: OutFolder, console: Console) -> None:
        self.options, self.out, self.console = options, out, console
        self.settings = Settings()
        self.limits = SourceLimits.of(self.settings)

    def archive(self) -> int:
        with open_manifest(self.options.manifest, self.limits) as manifest:
            self.plan = self._planned(manifest)
        write_plan(self.out, self.plan)
        markers = complete_parts(self.out, self.plan)
        if self.options.retry_failed:
            begin_again(self.out, self.plan, markers.values())
            markers = {number: marker for number, marker in markers.items() if not marker.retryable}
        todo = [number for number in self.plan.by_size() if number not in markers]
        kept = len(markers)
        if todo:
            self.out.delete(SUCCESS)
            self._judge(todo, markers)
            self._check(todo)
        totals = write_results(self.out, self.plan, markers)
        self._show(totals, kept)
        return EXIT_SOME_OUTCOME if totals.not_scored else EXIT_ALL_SCORED

    def _check(self, judged: list[int]) -> None:
        """Of the parts that workers reported: a worker on another machine may have another folder of this name."""
        found = complete_parts(self.out, self.plan, judged)
        if missing := sorted(set(judged) - set(found)):
            raise EngineError(
                f"{self.out.shown}: {len(missing)} parts were reported as complete and are not there as they were "
                f"written, such as part {missing[0]}. All machines must see this folder; the same command goes on"
            )

    def _planned(self, manifest: Manifest) -> Plan:
        """The folder's plan, or a new one; nothing is judged if a row is bad, or the folder is another archive's."""
        options = self.options
        plan = read_plan(self.out)
        if plan is not None:
            check_same(self.out, plan.asked, self._asked(manifest, plan.asked.working_folder is not None))
            return plan
        checked = manifest.check()
        asked = self._asked(manifest, checked.has_relative)
        bounds = Bounds.of(checked.rows, options.part_files, options.part_bytes)
        return Plan(manifest=manifest.name, asked=asked, parts=tuple(write_rows(self.out, manifest, bounds)))

    def _asked(self, manifest: Manifest, has_relative: bool) -> Asked:
        options = self.options
        return Asked(
            manifest_sha256=manifest.sha256,
            weights_sha256=tuple(_sha256(resolve(name)) for name in split_names(options.weights or default_detector())),
            sampling=options.scanner.sampling.describe(),
            part=None if options.part is None else options.part.describe(),
            face_detector=options.scanner.face_detector,
            looks=options.scanner.looks.describe(),
            min_coverage=self.settings.min_coverage,
            part_files=options.part_files,
            part_bytes=options.part_bytes,
            working_folder=str(Path.cwd()) if has_relative else None,
        )

    def _judge(self, todo: list[int], markers: dict[int, Marker]) -> None:
        with ExitStack() as stack:
            rows = PlannedRows(stack.enter_context(self.out.opened(ROWS)), self.plan)
            pool, workers = stack.enter_context(self._pool(len(todo)))
            progress = stack.enter_context(self._progress())
            complete = sum(marker.rows for marker in markers.values())
            task = progress.add_task("archive", total=self.plan.files, completed=complete)

            def done(marker: Marker) -> None:
                nonlocal complete
                markers[marker.part] = marker
                complete += marker.rows
                # Records of an earlier run's journal were not counted one by one.
                progress.update(task, completed=max(complete, progress.tasks[0].completed))

            dispatch(
                pool,
                todo,
                workers=workers,
                job_of=lambda part, deaths: Job(part, tuple(rows.of(part)), deaths),
                ready=self._ready,
                recorded=lambda files: progress.advance(task, files),
                done=done,
            )

    @contextmanager
    def _pool(self, parts: int) -> Iterator[tuple[Pool, int]]:
        """Workers of the engine, and how many are wanted."""
        options = self.options
        if options.engine == "ray":
            from pipeline.archive.ray_engine import connected, ray_pool

            with connected(options.ray_address) as ray:
                cores = int(ray.cluster_resources().get("CPU", 1))
                workers = options.processes or max(1, cores // _CORES_EACH)
                cpus = max(1, min(_CORES_EACH, cores // workers))
                gpus = 1.0 if options.scanner.device.startswith("cuda") else 0.0
                with ray_pool(ray, self._spec(cpus), cpus=cpus, gpus=gpus) as pool:
                    yield pool, min(workers, parts)
            return
        from pipeline.archive.local import local_pool

        workers = min(parts, options.processes or max(1, available_cores() // _CORES_EACH))
        with local_pool(self._spec(available_cores() // workers)) as pool:
            yield pool, workers

    def _spec(self, cores: int) -> WorkerSpec:
        """For a worker with so many cores."""
        options, settings = self.options, self.settings
        return WorkerSpec(
            out=self.out.target,
            key=self.plan.id,
            scanner=replace(options.scanner, workers=options.scanner.workers or max(1, cores) + 1),
            weights=_absolute(options.weights),
            window=options.part,
            working_folder=self.plan.asked.working_folder,
            settings={
                name: getattr(settings, name)
                for name in ("min_coverage", "max_fetch_bytes", "max_file_bytes", "uri_chains")
            },
        )

    def _ready(self, provenance: Provenance) -> None:
        """The first scanner of an archive goes into its plan; every later one must judge in the same way."""
        judged = Judged.of(provenance)
        if self.plan.judged is None:
            self.plan = self.plan.model_copy(update={"judged": judged, "software": provenance.software})
            write_plan(self.out, self.plan)
        else:
            check_same(self.out, self.plan.judged, judged)

    def _progress(self) -> Progress:
        return Progress(
            SpinnerColumn(),
            MofNCompleteColumn(),
            TextColumn("files"),
            BarColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )

    def _show(self, totals: Totals, kept: int) -> None:
        console = Console()

        def say(text: str) -> None:
            console.print(markup(text), highlight=False, soft_wrap=True)

        counts = ", ".join(f"{count} {outcome}" for outcome, count in totals.outcomes.items())
        say(f"{totals.files} files: {counts}")
        if totals.outcomes.get(Outcome.SCORED):
            say("scored: " + ", ".join(f"{count} {label}" for label, count in totals.labels.items()))
        if kept:
            say(f"already complete: {kept} of {len(self.plan.parts)} parts")
        say(f"records: {self.out.shown}/part-*.parquet")
        if totals.not_scored:
            say(f"without a score: {self.out.shown}/{FAILED}")


def _absolute(weights: str | None) -> str | None:
    """Paths of weights for workers, which may have other working folders; names stay."""
    if weights is None:
        return None
    return ",".join(str(Path(name).absolute()) if Path(name).is_file() else str(name) for name in split_names(weights))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
