"""Logs of a run: log.jsonl, TensorBoard events if it is installed, and a plot of the curves."""

from __future__ import annotations

import json
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

LOG, CURVES = "log.jsonl", "curves.png"


class RunLog:
    """Appends to the logs of a run; a resumed run appends to them."""

    def __init__(self, folder: Path, *, enabled: bool = True) -> None:
        """Open the logs in `folder`; `enabled` is False in all processes but the leader."""
        self.folder = folder
        self._file = (folder / LOG).open("a", encoding="utf-8") if enabled else None
        self._board: Any = None
        if enabled and find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"))

    def write(self, values: dict[str, Any]) -> None:
        """One line of numbers; `step` and `samples` give the position."""
        if self._file is None:
            return
        self._file.write(json.dumps({"time": round(time.time(), 1), **values}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                if name not in ("step", "samples"):
                    self._board.add_scalar(name, value, values["samples"])

    def close(self) -> None:
        """Close the open files."""
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()

    def draw(self) -> Path | None:
        """The curves of the whole run as a plot; None if matplotlib is missing or nothing was logged."""
        return draw_curves(self.folder) if self._file is not None and find_spec("matplotlib") is not None else None


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log. Steps repeated after an interruption appear once, with the last values."""
    lines: list[dict[str, Any]] = []
    for text in (folder / LOG).read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:  # the run was killed while writing it
            continue
        while lines and lines[-1]["step"] > line["step"]:
            lines.pop()
        lines.append(line)
    return lines


def draw_curves(folder: Path) -> Path | None:
    """Plot loss, validation and speed over samples as `curves.png` in the run's folder; None if there is no data."""
    from matplotlib.figure import Figure

    lines = read_log(folder)
    if not lines:
        return None
    figure = Figure(figsize=(10, 7), layout="constrained")
    loss, validation, speed = figure.subplots(3, 1, sharex=True, height_ratios=(2, 3, 1))
    training = [line for line in lines if "loss" in line]
    for name in sorted({name for line in training for name in line if name.endswith("_loss")}):
        samples, values = zip(*((line["samples"], line[name]) for line in training if name in line), strict=True)
        loss.plot(samples, _smooth(list(values)), label=name.replace("_", " "))
    loss.set_ylabel("loss (smoothed)")
    validated = [line for line in lines if "val/selection" in line]
    names = sorted({name for line in validated for name in line if name.startswith("val/")})
    for name in names:
        points = [(line["samples"], line[name]) for line in validated if name in line]
        width = 2.5 if name == "val/selection" else 1.0
        validation.plot(*zip(*points, strict=True), label=name.removeprefix("val/"), linewidth=width, marker=".")
    validation.set_ylabel("validation AUC")
    speed.plot([line["samples"] for line in training], [line["images_per_s"] for line in training], linewidth=0.8)
    speed.set_ylabel("images/s")
    speed.set_xlabel("images shown")
    for axes in (loss, validation):
        if axes.lines:
            axes.legend(fontsize=8, ncols=3)
    for axes in (loss, validation, speed):
        axes.grid(alpha=0.3)
    path = folder / CURVES
    figure.savefig(path, dpi=110)
    return path


def _smooth(values: list[float], keep: float = 0.9) -> list[float]:
    smoothed: list[float] = []
    for value in values:
        smoothed.append(value if not smoothed else keep * smoothed[-1] + (1 - keep) * value)
    return smoothed
