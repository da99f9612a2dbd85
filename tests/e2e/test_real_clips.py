"""The shared clips with known people, scanned as in the quick start."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from pipeline.contracts import Outcome, Verdict
from pipeline.results.jsonl import read_verdicts
from tests.e2e.conftest import Command

pytestmark = [pytest.mark.data, pytest.mark.slow]

STREET = "street_1080p_many_faces.mp4"
PORTRAITS = {"brtujopkby.mp4": (1080, 1920), "portrait_720p.mp4": (720, 1280)}


@pytest.fixture(scope="module")
def verdicts(unmask: Command, data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Verdict]:
    out = tmp_path_factory.mktemp("real") / "out.jsonl"
    done = unmask("scan", data_dir / "videos", "--jsonl", out)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped: 1 no media by content" in done.stdout
    return {Path(verdict.source).name: verdict for verdict in read_verdicts(out)}


def test_all_clips_are_scored(verdicts: dict[str, Verdict]) -> None:
    assert len(verdicts) == 17
    assert {verdict.outcome for verdict in verdicts.values()} == {Outcome.SCORED}


def test_the_street_has_many_people(verdicts: dict[str, Verdict]) -> None:
    assert len(verdicts[STREET].people) >= 5


def test_a_single_person_has_one_track_for_most_of_the_clip(verdicts: dict[str, Verdict]) -> None:
    tracks = {name: [person.frames for person in v.people] for name, v in verdicts.items() if name != STREET}
    assert {name: frames for name, frames in tracks.items() if len(frames) != 1} == {}
    covered = {name: frames[0] / verdicts[name].frames_sampled for name, frames in tracks.items()}
    assert {name: share for name, share in covered.items() if share < 0.85} == {}


@pytest.mark.parametrize("name", PORTRAITS)
def test_portrait_clips_are_upright(verdicts: dict[str, Verdict], name: str) -> None:
    width, height = PORTRAITS[name]
    boxes = [face.box for face in verdicts[name].frames]
    assert statistics.median((y1 - y0) / (x1 - x0) for x0, y0, x1, y1 in boxes) > 1.1
    for x0, y0, x1, y1 in boxes:
        assert 0 <= (x0 + x1) / 2 <= width
        assert 0 <= (y0 + y1) / 2 <= height
