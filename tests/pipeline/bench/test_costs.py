"""`unmask bench --plan`: figures of this machine, from which a plan can be made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from pipeline.bench import costs
from pipeline.commands.bench import run
from pipeline.commands.plan import run as run_plan
from pipeline.planning.figures import read_figures
from tests import media


@pytest.mark.slow
def test_figures_are_measured_and_planned_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "RUN_S", 0.5)
    clip, out = tmp_path / "clip.mp4", tmp_path / "figures.json"
    media.make_clip(clip, seconds=6)
    app = Typer()
    app.command("bench")(run)
    app.command("plan")(run_plan)
    done = CliRunner().invoke(
        app, ["bench", str(clip), "--weights", "unmask-small", "--workers", "2", "--plan", "--json", str(out)]
    )
    assert done.exit_code == 0, done.output
    figures = read_figures(out)
    assert figures.clip == "clip.mp4"
    assert figures.clips_at_once == 2
    assert figures.fps == pytest.approx(2, rel=0.1)
    assert figures.faces_a_frame == pytest.approx(1, abs=0.2)
    assert figures.clip_s == pytest.approx(6, abs=0.1)
    assert [batch.crops for batch in figures.batches] == [1, 2, 4]
    assert figures.task_cpu_s("video", 60) > figures.task_cpu_s("video", 6) > 0
    assert figures.sizes.record(100) > figures.sizes.record(10) > 500
    assert figures.sizes.segment > 1000
    target = tmp_path / "plan.json"
    planned = CliRunner().invoke(app, ["plan", "--streams", "3", "--bench", str(out), "--json", str(target)])
    assert planned.exit_code == 0, planned.output
    assert json.loads(target.read_text())["plan"]["fleet"]["workers"] >= 1


def test_a_clip_without_a_face_is_refused(tmp_path: Path) -> None:
    clip = tmp_path / "empty.mp4"
    media.make_clip(clip, seconds=2, faces=0)
    app = Typer()
    app.command()(run)
    done = CliRunner().invoke(app, [str(clip), "--weights", "unmask-small", "--plan"])
    assert done.exit_code == 2
    assert "empty.mp4" in done.output
