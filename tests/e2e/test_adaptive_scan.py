"""`unmask scan --adaptive` from its options to its outputs, with the shipped weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import build
from tests import media
from tests.e2e.conftest import Command
from tests.weights import small_weights


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a minute of one person, five frames and a key frame each second."""
    path = tmp_path_factory.mktemp("talk") / "talk.mp4"
    options = {"x264-params": "keyint=5:min-keyint=5:scenecut=0"}
    media.make_clip(path, seconds=30, fps=5, size=(320, 240), face_px=(100, 110), options=options)
    return path


def test_few_frames_of_a_long_clip_have_the_label_of_all(unmask: Command, talk: Path, tmp_path: Path) -> None:
    few, all_, report = tmp_path / "few.jsonl", tmp_path / "all.jsonl", tmp_path / "report.html"
    done = unmask("scan", talk, "--adaptive", "--jsonl", few, "--report", report)
    assert done.returncode == 0
    whole = unmask("scan", talk, "--jsonl", all_)
    assert whole.returncode == 0
    a, b = (json.loads(path.read_text()) for path in (few, all_))
    assert a["label"] == b["label"]
    assert (a["provenance"]["sampling"], b["provenance"]["sampling"]) == ("fps=2,adaptive", "fps=2")
    assert a["adapted"]["planned"] == 61
    assert b["adapted"] is None
    assert "adaptive: few frames settled" in done.stdout
    if a["adapted"]["early"]:
        assert a["adapted"]["looked_at"] == a["frames_sampled"] == len(a["frames"]) <= 20
        assert "settled this verdict" in report.read_text()
    else:
        assert a["frames"] == b["frames"]
    again = unmask("scan", talk, "--adaptive", "--jsonl", few, "--resume")
    assert "already judged (--resume): 1 of the clips" in again.stdout
    assert "already judged" not in unmask("scan", talk, "--jsonl", few, "--resume").stdout


def test_weights_without_thresholds_settle_nothing(one_face: Path, tmp_path: Path) -> None:
    small_weights(tmp_path / "small.safetensors")
    options = ["--adaptive", "--weights", str(tmp_path / "small.safetensors")]
    done = CliRunner().invoke(build(["scan"]), ["scan", str(one_face), *options])
    assert isinstance(done.exception, SystemExit)
    assert done.exit_code == 2
    assert "needs weights with thresholds" in done.stderr
