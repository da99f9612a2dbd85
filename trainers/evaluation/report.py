"""The report as Markdown, with plots next to it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from models.atomic import atomic_write
from trainers.evaluation.evaluate import Evaluated, Report, SetResult
from trainers.evaluation.plots import write_plots
from trainers.evaluation.tables import Table, overview, tables


def write_report(path: Path, report: Report, evaluated: Sequence[Evaluated]) -> list[Path]:
    """Write the Markdown file and its PNGs, named after it; no PNGs if matplotlib is not installed.

    Returns:
        The files written, the Markdown one first.

    Raises:
        OSError: a file cannot be written.
    """
    plots = write_plots(path, evaluated) if find_spec("matplotlib") is not None else {}
    with atomic_write(path) as file:
        file.write(markdown(report, plots).encode())
    return [path, *plots.values()]


def markdown(report: Report, plots: dict[str, Path]) -> str:
    """The text of the report.

    Args:
        report: the results.
        plots: by title.
    """
    model, settings = report.model, report.settings
    thresholds = model["thresholds"]
    facts = [
        ("weights", f"`{model['weights']}`"),
        ("sha256", f"`{model['weights_sha256']}`"),
        (
            "architecture",
            f"{model['architecture']}, {model['input_spec']['size']} px, input `{model['input_spec_hash']}`",
        ),
        ("calibration", _calibration(model["calibration"])),
        (
            "thresholds",
            "none: every verdict is inconclusive"
            if thresholds is None
            else f"fake from {thresholds['fake'][0]:.3f}, real below {thresholds['real'][0]:.3f} for one person, "
            f"chosen at {100 * thresholds['fpr']:g} % FPR",
        ),
        ("intervals", f"95 %, {settings['resamples']:,} resamples of the videos, seed {settings['seed']}"),
        ("date", datetime.fromtimestamp(report.created_at, UTC).strftime("%Y-%m-%d %H:%M UTC")),
        ("took", f"{report.elapsed_s:,.0f} s"),
        ("software", ", ".join(f"{name} {version}" for name, version in report.software.items())),
    ]
    parts = [f"# Evaluation of {model['name']}", _render(Table("", ("", ""), tuple(facts)))]
    parts += ["## All sets", _render(overview(report))]
    parts += [f"![{title}]({path.name})" for title, path in plots.items()]
    for each in report.sets:
        parts.append(f"## {each.name}")
        parts.append(" ".join(_about(each)))
        parts += [text for table in tables(each) for text in (f"### {table.title}", _render(table))]
    return "\n\n".join(parts) + "\n"


def _calibration(values: dict[str, Any]) -> str:
    parts = [f"scale {values['scale']:.4g}, bias {values['bias']:.4g}"]
    if values["curve"]:
        parts = ["log-odds at logits " + ", ".join(f"{x:.2f}: {y:.2f}" for x, y in values["curve"])]
    if values["quality"]:
        parts.append("trust at qualities " + ", ".join(f"{x:.2f}: {y:.2f}" for x, y in values["quality"]))
    if values["bounds"]:
        bounds = values["bounds"]
        parts.append(
            f"likelihood ratios from {bounds['lower']:.3g} to {bounds['upper']:.3g} "
            f"({bounds['reals']:,} reals, {bounds['fakes']:,} fakes)"
        )
    return "; ".join(parts)


def _about(result: SetResult) -> list[str]:
    said = [f"`{result.source}`:"]
    if result.kind == "clips":
        ends = ", ".join(f"{count} {outcome}" for outcome, count in (result.outcomes or {}).items())
        said.append(f"{result.rows:,} clips ({ends}), each judged by the pipeline itself:")
        said.append(f"{result.face_detector}, {result.sampling}.")
    else:
        said.append(f"{result.rows:,} crops of {f'split {result.split}' if result.split else 'all splits'},")
        said.append(f"the {result.half} half;" if result.half else "both halves;")
        said.append(
            f"manifest `{(result.manifest_sha256 or '')[:16]}`, these rows `{(result.rows_sha256 or '')[:16]}`."
        )
    said.append(f"Scored by {result.backend}.")
    if result.failures:
        said.append(f"{len(result.failures)} could not be scored, listed below.")
    return said


def _render(table: Table) -> str:
    lines = [_line(table.columns), _line(["---", *["---:"] * (len(table.columns) - 1)])]
    lines += [_line(row) for row in table.rows]
    return "\n".join(lines) + (f"\n\n{table.note}" if table.note else "")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"
