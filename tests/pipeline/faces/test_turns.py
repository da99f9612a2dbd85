"""People who are not upright in a whole clip are found, and scored upright."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.contracts import Outcome, Verdict
from pipeline.faces.turns import boxes_back, turned
from pipeline.parts.join import PartResult, judge_parts, plan_parts
from pipeline.scan import Scanner
from pipeline.sources import Source
from pipeline.video.sampling import Fps
from pipeline.video.sandbox import DecodeServer
from tests import media
from tests.pipeline.quick import QuickNetwork, quick_scanner

Turn = Literal[0, 90, 180, 270]


@given(st.sampled_from([0, 90, 180, 270]), st.integers(1, 60), st.integers(1, 60), st.data())
def test_a_box_in_a_turned_frame_is_the_same_place(turn: int, width: int, height: int, data: st.DataObject) -> None:
    x0, y0 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x1, y1 = data.draw(st.integers(x0 + 1, width)), data.draw(st.integers(y0 + 1, height))
    image = np.zeros((height, width, 3), np.uint8)
    image[y0:y1, x0:x1] = 255
    rows, columns = np.nonzero(turned(image, turn)[..., 0])
    there = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float32)
    assert boxes_back(there, turn, width, height).tolist() == [[x0, y0, x1, y1]]


@pytest.fixture(scope="module")
def scanner(decode_server: DecodeServer) -> Iterator[Scanner]:
    network = QuickNetwork()
    # Differs for an upright face and the same one turned.
    network.log_odds = lambda pixels: (
        (pixels[:, :32].mean((1, 2, 3), dtype=np.float32) - pixels[:, 32:].mean((1, 2, 3), dtype=np.float32)) / 8
    )
    with quick_scanner(decode_server, Fps(2), network=network) as scanner:
        yield scanner


@pytest.fixture(scope="module")
def upright(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("turns") / "upright.mp4"
    media.make_clip(path, seconds=6, size=(480, 320), face_px=(130, 150))
    return path


def judged(scanner: Scanner, path: Path) -> Verdict:
    report = scanner.scan(Source(str(path)))
    assert report is not None
    return report.verdict


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_turned_clip_is_judged_like_the_upright_one(
    turn: Turn, scanner: Scanner, upright: Path, tmp_path: Path
) -> None:
    whole, other = judged(scanner, upright), judged(scanner, media.turn_clip(upright, tmp_path / "turned.mp4", turn))
    assert (whole.outcome, other.outcome) == (Outcome.SCORED, Outcome.SCORED)
    assert {face.roll for face in whole.frames} == {0}
    assert {face.roll for face in other.frames} == {turn}
    assert other.frames_scored >= whole.frames_scored - 1
    assert other.probability == pytest.approx(whole.probability, abs=0.1)
    # Boxes are those in the frame as it is shown.
    for ours, theirs in zip(other.frames, whole.frames, strict=False):
        box = boxes_back(np.array([ours.box], np.float32), turn, 480, 320)[0]
        assert np.abs(box - theirs.box).max() < 25


def test_parts_of_a_turned_clip_give_the_same(scanner: Scanner, upright: Path, tmp_path: Path) -> None:
    path = media.turn_clip(upright, tmp_path / "turned.mp4", 180)
    parts = [scanner.scan_part(Source(str(path)), window) for window in plan_parts(6.0, 3.0, 1.0)]
    joined = judge_parts([PartResult.from_bytes(part.to_bytes()) for part in parts], None, None)
    whole = judged(scanner, path)
    assert (joined.outcome, len(joined.people)) == (whole.outcome, len(whole.people)) == (Outcome.SCORED, 1)
    assert {face.roll for face in joined.frames} == {180}
    assert joined.probability == pytest.approx(whole.probability, abs=0.05)


def test_a_clip_without_people_stays_without(scanner: Scanner, tmp_path: Path) -> None:
    media.make_clip(tmp_path / "empty.mp4", seconds=3, faces=0)
    assert judged(scanner, tmp_path / "empty.mp4").outcome is Outcome.NO_FACE


@pytest.mark.data
@pytest.mark.slow
def test_no_real_clip_is_turned(scanner: Scanner, data_dir: Path) -> None:
    for path in sorted((data_dir / "videos").glob("*.mp4")):
        assert {face.roll for face in judged(scanner, path).frames} == {0}, path.name
