"""The loop of docs/operations.md at small size: every command, in its order."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import required_service
from tests.e2e.loop import Clip as LoopClip
from tests.e2e.loop import clip_of, run
from tests.e2e.service import UNMASK
from tests.trainers.crops import face, forged, make_crops
from tests.weights import small_weights

# Enough for the gate: ten decided people of each class are held out.
CLIPS, LATER = 84, 6
SETTINGS = (
    *("--samples", "960", "--ladder", "none", "--fpr", "0.2", "--calibration-rows", "40", "--margin", "0.1"),
    *("--set", "data.pairs.shares={'dfdc': 0.4, 'decisions': 0.6}", "--set", "optim.lr=3e-3"),
    *("--set", "data.augment.h264_share=0", "--set", "data.augment.platform.share=0"),
    *("--set", "data.augment.apart.h264_share=0", "--set", "data.augment.strong.blur_share=0"),
)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_decisions_become_the_weights_in_use(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    base = make_crops(tmp_path / "base", train=16, val=24)
    first = tmp_path / "first.safetensors"
    small_weights(first)
    evaluation = tmp_path / "first.json"
    command = ["evaluate", "--weights", first, "--manifest", base, "--split", "val", "--half", "report"]
    options = ["--ladder", "none", "--json", evaluation]
    subprocess.run([UNMASK, *map(str, [*command, *options])], check=True, capture_output=True)
    (tmp_path / "clips").mkdir()
    clips = []
    for number in range(CLIPS):
        is_fake = bool(number % 2)
        path = tmp_path / "clips" / f"{number}.mp4"
        pictures = [face(1000 * number + frame, 192) for frame in range(2)]
        clip_of([forged(each, number) if is_fake else each for each in pictures], path, seed=number)
        clips.append(LoopClip(path, is_fake))
    with required_service():
        passed = run(
            tmp_path / "loop",
            clips,
            replay=base,
            weights=first,
            evaluation=evaluation,
            later=LATER,
            held_out=0.6,
            options=SETTINGS,
        )
    said = capfd.readouterr().out
    assert passed, said
    (report,) = (tmp_path / "loop" / "runs").glob("retrain-*/report.json")
    assert json.loads(report.read_text())["passed"]
