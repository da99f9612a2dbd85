"""Plots of the report: ROC, reliability diagram and ladder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from models.atomic import atomic_write
from trainers.evaluation.evaluate import Evaluated, SetResult
from trainers.evaluation.items import Items
from trainers.evaluation.ladder import Ladder
from trainers.evaluation.summary import Level
from trainers.metrics import REALS_ABOVE, roc_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, distinguishable with every kind of colour vision.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_FRAME, _VIDEO = _COLOURS[0], _COLOURS[1]
_DPI = 150
_LOWEST_FPR = 1e-3
# Bars with fewer items are pale: their height is mostly noise.
_SOLID_ITEMS = 10


def write_plots(report: Path, evaluated: Sequence[Evaluated]) -> dict[str, Path]:
    """Write PNGs next to a report: `NAME-roc.png`, `NAME-reliability.png`, `NAME-ladder.png`, empty ones are skipped.

    Returns:
        Files by title.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        OSError: a file cannot be written.
    """
    # Not pyplot: it keeps global state and looks for a display.
    from matplotlib.figure import Figure

    written: dict[str, Path] = {}
    for title, suffix, draw in (
        ("ROC", "roc", _roc),
        ("Reliability", "reliability", _reliability),
        ("Ladder", "ladder", _ladders),
    ):
        figure = Figure(layout="constrained", dpi=_DPI)
        if draw(figure, evaluated):
            path = report.with_name(f"{report.stem}-{suffix}.png")
            with atomic_write(path) as file:
                figure.savefig(file, format="png", facecolor="white")
            written[title] = path
    return written


def _roc(figure: Figure, evaluated: Sequence[Evaluated]) -> bool:
    curves = [
        curve for number, each in enumerate(evaluated) for curve in _curves(each, _COLOURS[number % len(_COLOURS)])
    ]
    if not curves:
        return False
    figure.set_size_inches(11, 5 + 0.22 * len(curves))
    linear, logarithmic = figure.subplots(1, 2)
    for axes in (linear, logarithmic):
        for items, label, colour, style in curves:
            _draw_curve(axes, items, label, colour, style)
        axes.set_xlabel("reals called fake (FPR)")
        axes.set_ylabel("fakes called fake (TPR)")
        axes.set_ylim(0, 1.01)
        axes.grid(alpha=0.3)
    chance = [10 ** (i / 50 - 3) for i in range(151)]
    for axes in (linear, logarithmic):
        axes.plot(chance, chance, color="grey", linewidth=0.8, linestyle=":")
    linear.set_xlim(-0.01, 1)
    linear.set_title("ROC")
    logarithmic.set_xscale("log")
    logarithmic.set_xlim(_LOWEST_FPR, 1)
    logarithmic.set_title(
        f"the same, few false alarms (thin: fewer than {REALS_ABOVE} reals called fake)", fontsize="medium"
    )
    handles, labels = linear.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", fontsize="small", frameon=False)
    return True


def _curves(evaluated: Evaluated, colour: str) -> list[tuple[Items, str, str, str]]:
    """Items, label, colour and line style: videos solid, frames dashed if they differ."""
    name, result = evaluated.result.name, evaluated.result
    videos, frames = evaluated.judged.videos, evaluated.judged.frames
    what = "clips" if result.kind == "clips" else "videos"
    found = []
    if result.video is not None and videos is not None and result.video.metrics["auc"].value is not None:
        found.append((videos, f"{name}, {len(videos):,} {what}: {_auc(result.video)}", colour, "-"))
    if result.frame is None or frames is None or result.frame.metrics["auc"].value is None:
        return found
    # With one crop per video the curves would coincide.
    if not found or len(frames) > len(found[0][0]):
        found.append((frames, f"{name}, {len(frames):,} frames: {_auc(result.frame)}", colour, "--"))
    return found


def _draw_curve(axes: Axes, items: Items, label: str, colour: str, style: str) -> None:
    curve = roc_curve(items.label, items.probability)
    supported = REALS_ABOVE / max(1, int((items.label == 0).sum()))
    whole = curve.fpr >= supported
    # Starts at the first supported point; the part before it is thin.
    axes.plot(
        curve.fpr[whole], curve.tpr[whole], style, color=colour, linewidth=1.8, label=label, drawstyle="steps-post"
    )
    axes.plot(curve.fpr, curve.tpr, style, color=colour, linewidth=0.9, alpha=0.6, drawstyle="steps-post")


def _reliability(figure: Figure, evaluated: Sequence[Evaluated]) -> bool:
    shown = [each.result for each in evaluated if each.result.reliability]
    if not shown:
        return False
    columns = min(3, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure.set_size_inches(4.2 * columns, 5.2 * rows)
    grid = figure.subplots(2 * rows, columns, squeeze=False, sharex=True, height_ratios=[3, 1] * rows)
    for axes in grid.ravel()[: 2 * rows * columns]:
        axes.set_visible(False)
    for number, result in enumerate(shown):
        row, column = divmod(number, columns)
        above, below = grid[2 * row][column], grid[2 * row + 1][column]
        _draw_reliability(above, below, result, _COLOURS[number % len(_COLOURS)])
    return True


def _draw_reliability(above: Axes, below: Axes, result: SetResult, colour: str) -> None:
    for axes in (above, below):
        axes.set_visible(True)
        axes.grid(alpha=0.3)
        axes.set_xlim(0, 1)
    above.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
    # Calibration is at equal priors; sets with one class have no share at equal priors.
    balanced = all(each.balanced is not None for each in result.reliability)
    shares = [each.fakes if each.balanced is None else each.balanced for each in result.reliability]
    above.plot([each.confidence for each in result.reliability], shares, color=colour, linewidth=1, alpha=0.5)
    for each, share in zip(result.reliability, shares, strict=True):
        face = colour if each.items >= _SOLID_ITEMS else "white"
        above.plot(each.confidence, share, "o", markersize=6, color=colour, markerfacecolor=face)
        if each.balanced_low is not None and each.balanced_high is not None:
            above.plot([each.confidence] * 2, [each.balanced_low, each.balanced_high], color=colour, linewidth=1)
    above.set_ylim(-0.02, 1.02)
    above.set_ylabel("share of fakes, equal priors" if balanced else "share of fakes")
    level = result.frame or result.video
    ece = level.metrics["ece_balanced" if balanced else "ece"].value if level else None
    what = "clips" if result.kind == "clips" else "frames"
    above.set_title(f"{result.name}, {what}" + (f": ECE {ece:.3f}" if ece is not None else ""), fontsize="medium")
    for each in result.reliability:
        below.bar(each.low, each.items, width=0.95 * (each.high - each.low), align="edge", color=colour, alpha=0.6)
    below.set_yscale("log")
    below.set_ylim(bottom=0.7)
    below.set_ylabel("items")
    below.set_xlabel(f"P(fake); hollow: fewer than {_SOLID_ITEMS} items", fontsize="small")


def _ladders(figure: Figure, evaluated: Sequence[Evaluated]) -> bool:
    shown = [each.result for each in evaluated if each.result.ladder is not None and _has_auc(each.result.ladder)]
    if not shown:
        return False
    longest = max(len(each.ladder.rungs) for each in shown if each.ladder)
    figure.set_size_inches(max(6, 2 + 0.6 * longest), 3.6 * len(shown))
    for axes, result in zip(figure.subplots(len(shown), 1, squeeze=False)[:, 0], shown, strict=True):
        _draw_ladder(axes, result)
    return True


def _draw_ladder(axes: Axes, result: SetResult) -> None:
    if result.ladder is None:
        return
    rungs = result.ladder.rungs
    same = all(r.frame is None or r.video is None or r.frame.counts == r.video.counts for r in rungs)
    for offset, name, colour in ((-0.1, "frames", _FRAME), (0.1, "videos", _VIDEO)):
        if name == "frames" and same and any(rung.video for rung in rungs):
            continue
        levels = [rung.frame if name == "frames" else rung.video for rung in rungs]
        found = [(i, level.metrics["auc"]) for i, level in enumerate(levels) if level is not None]
        points = [(i, auc.value, auc.low, auc.high) for i, auc in found if auc.value is not None]
        if not points:
            continue
        x = [i + (0 if same else offset) for i, *_ in points]
        y = [value for _, value, _, _ in points]
        spread = [
            [v - (low if low is not None else v) for _, v, low, _ in points],
            [(high if high is not None else v) - v for _, v, _, high in points],
        ]
        axes.errorbar(x, y, yerr=spread, fmt="o", color=colour, capsize=3, linewidth=1.2, label=f"AUC, {name}")
        if rungs[points[0][0]].kind == "clean":
            axes.axhline(y[0], color=colour, linewidth=0.8, linestyle=":")
    for i in range(1, len(rungs)):
        if rungs[i].kind != rungs[i - 1].kind:
            axes.axvline(i - 0.5, color="grey", linewidth=0.6, alpha=0.5)
    axes.axhline(0.5, color="grey", linewidth=0.8)
    axes.set_xticks(range(len(rungs)), [rung.name for rung in rungs], rotation=40, ha="right", fontsize="small")
    axes.set_xlim(-0.5, len(rungs) - 0.5)
    axes.set_ylabel("AUC")
    axes.grid(axis="y", alpha=0.3)
    axes.set_title(f"{result.name}: {result.ladder.rows:,} crops; dotted: clean", fontsize="medium")
    axes.legend(fontsize="small", loc="lower left")


def _has_auc(ladder: Ladder) -> bool:
    levels = [level for rung in ladder.rungs for level in (rung.frame, rung.video) if level is not None]
    return any(level.metrics["auc"].value is not None for level in levels)


def _auc(level: Level) -> str:
    auc = level.metrics["auc"]
    ends = "" if auc.low is None or auc.high is None else f" ({auc.low:.3f} to {auc.high:.3f})"
    return f"AUC {auc.value:.3f}{ends}"
