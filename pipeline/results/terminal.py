"""What `unmask scan` shows on a terminal: a progress line and one summary table."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from types import TracebackType

from rich.console import Console
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from pipeline.contracts import Label, Outcome, Verdict
from pipeline.results import wording
from pipeline.sources import Source
from pipeline.verdict.coverage import describe
from pipeline.visible import markup, visible

UNTRAINED = "untrained: scores mean nothing"
# Rows of the summary; the JSONL file has all clips.
MAX_ROWS = 40
_LABEL_STYLES = {Label.FAKE: "bold red", Label.REAL: "green", Label.INCONCLUSIVE: "yellow"}


class ScanProgress:
    """A line with clips done, rate and remaining time; silent without a terminal. Thread-safe."""

    def __init__(self, console: Console, clips: int) -> None:
        self._lock = threading.Lock()
        self._shares: dict[Source, float] = {}
        self._finished = 0
        self._frames = self._faces = 0
        self._clips = clips
        self._started = time.perf_counter()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[done]}/{task.fields[clips]} clips"),
            BarColumn(),
            TextColumn("{task.fields[rate]}"),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("scan", total=clips, done=0, clips=clips, rate="")

    def frame(self, source: Source, share: float | None, faces: int) -> None:
        """A frame was processed; `share` of its clip, in 0..1, is done (None: unknown)."""
        with self._lock:
            self._frames += 1
            self._faces += faces
            if share is not None:
                self._shares[source] = share
            self._show()

    def clip(self, source: Source) -> None:
        """A clip has its verdict."""
        with self._lock:
            self._shares.pop(source, None)
            self._finished += 1
            self._show()

    def _show(self) -> None:
        elapsed_s = max(1e-3, time.perf_counter() - self._started)
        self._progress.update(
            self._task,
            completed=self._finished + sum(self._shares.values()),
            done=self._finished,
            rate=f"{self._frames / elapsed_s:.1f} frames/s, {self._faces / elapsed_s:.1f} faces/s",
        )

    def __enter__(self) -> ScanProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


def summary(
    verdicts: Sequence[Verdict], outcomes: Counter[Outcome], *, untrained: bool
) -> Iterable[Table | Panel | Text]:
    """One table of the clips, most suspicious first, then what has no score; and a line of counts.

    Args:
        verdicts: of this run, or as many of them as were kept.
        outcomes: how all clips ended, resumed ones included.
    """
    folder = _common_folder([verdict.source for verdict in verdicts])
    table = Table(header_style="bold", title=f"in {markup(folder)}" if folder else None, title_justify="left")
    table.add_column("clip", overflow="fold")
    table.add_column("outcome")
    table.add_column("label")
    # Weights without bounds from validation have no likelihood ratios: omit the empty column.
    ratios = not untrained and any(verdict.likelihood_ratio is not None for verdict in verdicts)
    for column in ("P(fake)", *(["evidence"] if ratios else []), "people", "frames", "s"):
        table.add_column(column, justify="right")
    ranked = sorted(verdicts, key=lambda verdict: -(verdict.suspicion if verdict.suspicion is not None else -1))
    for verdict in ranked[:MAX_ROWS]:
        style = "dim" if untrained else ""
        label = Text("-") if verdict.label is None else Text(verdict.label, style=_LABEL_STYLES[verdict.label])
        table.add_row(
            markup(verdict.source[len(folder) :]),
            Text(verdict.outcome, style="" if verdict.outcome is Outcome.SCORED else "magenta"),
            label,
            Text("-" if verdict.probability is None else f"{verdict.probability:.3f}", style=style),
            *([_evidence(verdict)] if ratios else []),
            str(len(verdict.people)),
            f"{verdict.frames_scored}/{verdict.frames_sampled}",
            f"{verdict.elapsed_s:.1f}",
        )
    yield table
    for verdict in ranked[:MAX_ROWS]:
        if verdict.error is not None:
            name = visible(verdict.source[len(folder) :])
            yield Text.assemble((name, "bold"), f": {verdict.outcome}: {visible(verdict.error)}")
        elif verdict.coverage is not None and (missing := describe(verdict.coverage)):
            name = visible(verdict.source[len(folder) :])
            yield Text.assemble((name, "bold"), f": the verdict is about a part: {missing}")
        if verdict.segments and not untrained:
            name = visible(verdict.source[len(folder) :])
            yield Text.assemble((name, "bold"), f": looks forged {wording.segments_text(verdict.segments)}")
    if len(ranked) > MAX_ROWS:
        yield Text(f"... and {len(ranked) - MAX_ROWS} clips more")
    counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    yield Text(f"{outcomes.total()} clip{'' if outcomes.total() == 1 else 's'}: {counts}")
    if not untrained and any(verdict.probability is not None for verdict in verdicts):
        yield Text(f"{wording.run_headline(verdicts)}.", style="bold")
        first = ranked[0]
        if first.likelihood_ratio is not None and first.suspicion == first.probability:
            name = f"{visible(first.source[len(folder) :])}: " if len(verdicts) > 1 else ""
            if text := wording.limits_text(first.limits):
                yield Text(f"{name}Limits: {text}")
            strength = "" if first.evidence is None else f"{wording.strength_text(first.evidence)}. "
            yield Text(name + strength + wording.evidence_text(first.likelihood_ratio))
    if text := wording.adaptive_summary(verdicts):
        yield Text(text)
    if untrained:
        yield Panel(Text(UNTRAINED, justify="center", style="bold yellow"), border_style="yellow")


def _evidence(verdict: Verdict) -> str:
    return "-" if verdict.likelihood_ratio is None else wording.evidence_badge(verdict.likelihood_ratio)


def _common_folder(sources: Sequence[str]) -> str:
    """The common prefix of all names, up to a slash: printed once, it leaves room for the differences."""
    prefix = os.path.commonprefix([*sources]) if len(sources) > 1 else ""  # noqa: RUF071 - URIs are no paths
    return prefix[: prefix.rfind("/") + 1]
