"""Show what this machine computes with, what is missing, and how to get it."""

from __future__ import annotations

import typer

from pipeline.commands.options import JsonTo


def run(json_to: JsonTo = None) -> None:
    """Show what this machine computes with, what is missing, and how to get it.

    Exit codes: 0 clips can be scanned, 1 something that scanning needs is missing.
    """
    import dataclasses

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from pipeline.commands.errors import exit_on_error
    from pipeline.commands.output import written_as_json
    from pipeline.doctor import can_scan, examine

    findings = examine()
    ready = can_scan(findings)
    listed = [dataclasses.asdict(finding) for finding in findings]
    with exit_on_error():
        printed = written_as_json(json_to, {"can_scan": ready, "findings": listed})
    if not printed:
        marks = {"ok": ("ok", "green"), "optional": ("absent", "yellow"), "missing": ("MISSING", "bold red")}
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for finding in findings:
            what = Text(finding.value)
            if finding.advice:
                what.append(f"\n{finding.advice}", style="dim")
            table.add_row(Text(*marks[finding.status]), Text(finding.name), what)
        console = Console()
        console.print(table)
        verdict = "Ready to scan." if ready else "Not ready to scan: see what is MISSING above."
        console.print(verdict, style="bold green" if ready else "bold red")
    raise typer.Exit(0 if ready else 1)
