"""The adapters of other pipelines find the face of a clip and score it, and the comparison prints its ratios."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *(str(each) for each in arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("adapter", "options", "frames"),
    [
        ("plain_loop", ["--fps", "1"], 4),
        ("dfdc_style", ["--frames", "3", "--size", "64"], 3),
        ("deepfakebench_style", ["--frames", "3", "--size", "64"], 3),
    ],
)
def test_a_peer_scores_the_face(adapter: str, options: list[str], frames: int, one_face: Path, no_face: Path) -> None:
    if adapter.startswith("deepfakebench") and importlib.util.find_spec("dlib") is None:
        pytest.skip("needs dlib: pip install dlib-bin")
    lines = run(f"benchmarks.peers.{adapter}", *options, one_face, no_face).splitlines()
    face, none = map(json.loads, lines)
    assert (face["clip"], face["frames"], face["faces"]) == (one_face.name, frames, frames)
    assert 0 <= face["probability"] <= 1
    assert (none["faces"], none["probability"]) == (0, None)


def test_the_comparison_measures_whole_processes(no_face: Path) -> None:
    output = run("benchmarks.peers", no_face, "--rounds", "1", "--peers", "plain")
    assert re.search(r"^plain +\d+\.\d +\d+\.\d +\d+ .* x wall, \d+\.\d x CPU$", output, re.M)
