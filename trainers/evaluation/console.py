"""Terminal output of `unmask evaluate`; plain if rich is not installed."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from pipeline.visible import masked, visible_lines
from trainers.evaluation.scoring import Progress
from trainers.evaluation.tables import Table

# Most rows shown on a terminal; the report has all of them.
MAX_ROWS = 40
_PLAIN_WIDTH = 160
# Between two updates of the progress line, in seconds.
_UPDATE_S = 0.2


def show(table: Table) -> None:
    """Print a table, its first rows if it is long, on standard output."""
    rows = table.rows[:MAX_ROWS]
    more = len(table.rows) - len(rows)
    notes = [note for note in (table.note, f"... and {more} more rows, see --report or --json" if more else "") if note]
    try:
        from rich.console import Console
        from rich.table import Table as RichTable

        from pipeline.visible import markup, visible
    except ModuleNotFoundError:
        say("\n".join([table.title, *_plain(table.columns, rows), *notes, ""]))
        return
    # Tables wider than the default of a pipe would lose their columns.
    console = Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH, highlight=False)
    drawn = RichTable(title=markup(table.title), title_justify="left", header_style="bold")
    for i, column in enumerate(table.columns):
        drawn.add_column(markup(column), justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        drawn.add_row(*map(markup, row))
    console.print(drawn)
    for note in notes:
        console.print(visible(note), style="dim", markup=False)


def say(text: str) -> None:
    """One line on standard output."""
    sys.stdout.write(visible_lines(masked(text)) + "\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """One line on standard error."""
    sys.stderr.write(visible_lines(masked(text)) + "\n")
    sys.stderr.flush()


def announce(what: str, total: int) -> Progress | None:
    """A progress line on standard error that vanishes at the end; None without a terminal."""
    if not sys.stderr.isatty():
        return None
    started = last_update = time.perf_counter()

    def update(done: int) -> None:
        nonlocal last_update
        now = time.perf_counter()
        if done < total and now - last_update < _UPDATE_S:
            return
        last_update = now
        rate = done / max(now - started, 1e-3)
        line = f"{what}: {done:,}/{total:,}, {rate:.1f}/s, {(total - done) / max(rate, 1e-3):.0f} s left"
        sys.stderr.write("\r\x1b[K" + (line if done < total else ""))
        sys.stderr.flush()

    return update


def _plain(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[i]) for line in (columns, *rows)) for i in range(len(columns))]
    lines = [columns, ["-" * width for width in widths], *rows]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
