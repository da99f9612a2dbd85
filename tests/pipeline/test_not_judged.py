"""Faces that cannot be judged: their reasons in records of scans, parts and streams."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.clip_report import ClipReport
from pipeline.contracts import Outcome, Verdict
from pipeline.faces.create import create_detector
from pipeline.faces.detector import FaceDetector
from pipeline.faces.flaws import Flaw, flaw_counts, flaws_text
from pipeline.live.state import StreamState
from pipeline.parts.join import judge_parts
from pipeline.parts.result import PartResult
from pipeline.results.report import render_report
from pipeline.results.report_clips import RunSummary
from pipeline.scan import Scanner
from pipeline.sources import Source
from pipeline.video.sampling import Fps
from pipeline.video.sandbox import DecodeServer
from pipeline.video.window import Window
from tests import media
from tests.pipeline.quick import quick_scanner
from tests.pipeline.records import PROVENANCE, record


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return create_detector("mtcnn")


@pytest.fixture
def scanner(detector: FaceDetector, decode_server: DecodeServer) -> Iterator[Scanner]:
    with quick_scanner(decode_server, Fps(2), detector=detector, portraits=False) as scanner:
        yield scanner


def clip(
    path: Path, *, face_px: float = 110, blur_px: float = 0, gain: float = 1, masked: bool = False, seconds: float = 4
) -> Path:
    """One person, seen through a lens that is out of focus by `blur_px`, in light of `gain`, with or without a mask."""
    scene = media.Scene(640, 360, people=((0.0, 9.0),), face_px=(face_px, face_px), seed=3)

    def frames() -> Iterator[tuple[float, media.Picture]]:
        for number in range(round(10 * seconds)):
            image = np.asarray(scene.render(number / 10) * gain, np.uint8)
            if masked:
                wear_mask(image, scene.poses(number / 10)[0])
            yield number / 10, np.asarray(cv2.GaussianBlur(image, (0, 0), blur_px) if blur_px else image, np.uint8)

    media.encode(path, frames(), fps=10)
    return path


def wear_mask(image: media.Picture, pose: media.Pose | None) -> None:
    """A pale blue mask over mouth and nose."""
    assert pose is not None
    # In px of `media.face_picture`: outline of the mask, which begins below the eyes.
    outline = np.array([(-40, 4), (-14, -4), (0, -8), (14, -4), (40, 4), (36, 46), (12, 64), (-12, 64), (-36, 46)])
    points = np.c_[outline + media.FACE_CENTRE, np.ones(len(outline))] @ pose.matrix().T
    cv2.fillPoly(image, [np.rint(points).astype(np.int32)], (150, 185, 210), cv2.LINE_AA)


def judged(scanner: Scanner, path: Path) -> Verdict:
    report = scanner.scan(Source(str(path)))
    assert report is not None
    return report.verdict


def test_a_clear_clip_has_no_face_that_is_not_judged(scanner: Scanner, tmp_path: Path) -> None:
    verdict = judged(scanner, clip(tmp_path / "clear.mp4"))
    assert verdict.outcome is Outcome.SCORED
    assert verdict.not_judged == {}
    assert min(face.quality for face in verdict.frames) > 0.5


@pytest.mark.parametrize(
    ("looks", "reason", "text"),
    [
        ({"blur_px": 5}, "unclear", "too blurred"),
        ({"face_px": 35}, "tiny", "too small (below 32 px)"),
        ({"gain": 0.11}, "dark", "too dark"),
        ({"masked": True}, "covered", "covered by something"),
    ],
)
def test_a_clip_without_judged_faces_has_reasons(
    scanner: Scanner, tmp_path: Path, looks: dict[str, float], reason: str, text: str
) -> None:
    verdict = judged(scanner, clip(tmp_path / "poor.mp4", **looks))
    assert verdict.outcome is Outcome.LOW_QUALITY
    assert verdict.probability is None
    assert set(verdict.not_judged) == {reason}
    assert verdict.not_judged[reason] > 1
    assert verdict.error is not None
    assert f"{verdict.not_judged[reason]} {text}" in verdict.error


def test_the_parts_of_a_clip_count_each_face_once(scanner: Scanner, tmp_path: Path) -> None:
    path = clip(tmp_path / "poor.mp4", blur_px=5)
    windows = (Window(0, 2), Window(1, 9))
    parts = [PartResult.from_bytes(scanner.scan_part(Source(str(path)), window).to_bytes()) for window in windows]
    whole, joined = judged(scanner, path), judge_parts(parts, None, None)
    assert joined.not_judged == whole.not_judged
    assert joined.error == whole.error


def test_a_part_of_an_earlier_worker_has_no_reasons(scanner: Scanner, tmp_path: Path) -> None:
    part = scanner.scan_part(Source(str(clip(tmp_path / "poor.mp4", blur_px=5))), Window(0))
    lines = part.to_bytes().decode()
    start = lines.index(',"flaws":')
    earlier = PartResult.from_bytes((lines[:start] + lines[lines.index("}", start) :]).encode())
    assert not earlier.flaws.any()
    assert judge_parts([earlier], None, None).not_judged == {}


def test_a_live_stream_sums_the_reasons_of_its_segments() -> None:
    state = StreamState(stream_id="s", started_at=1.0, updated_at=1.0, frames_sampled=5, faces_seen=12)
    state.add_not_judged({"tiny": 4, "turned": 2})
    state.add_not_judged({"tiny": 3})
    moved = StreamState.model_validate_json(state.model_dump_json())
    verdict = moved.verdict(PROVENANCE, None, None, [])
    assert verdict.outcome is Outcome.LOW_QUALITY
    assert verdict.not_judged == {"tiny": 7, "turned": 2}
    assert verdict.error == (
        "12 faces in 5 sampled frames: 7 too small (below 32 px), 2 turned away, 3 not seen in a second frame"
    )


def test_the_state_of_an_earlier_stream_is_read() -> None:
    fields = StreamState(stream_id="s", started_at=1.0, updated_at=1.0).model_dump()
    del fields["not_judged"]
    assert StreamState.model_validate(fields).not_judged == {}


def test_a_record_without_the_reasons_is_read() -> None:
    fields = record().model_dump(by_alias=True)
    del fields["not_judged"]
    assert Verdict.model_validate(fields).not_judged == {}


def test_reasons_are_counted_and_written_most_frequent_first() -> None:
    counts = flaw_counts(np.array([Flaw.NONE, Flaw.TURNED, Flaw.TINY, Flaw.TINY, 99], np.int64))
    assert counts == {"turned": 1, "tiny": 2, "other": 1}
    assert flaws_text({"turned": 1, "tiny": 2000}) == "2,000 too small (below 32 px), 1 turned away"
    assert flaws_text({"made_of_wax": 1}) == "1 made of wax"
    assert flaws_text({}) == ""


def test_the_report_shows_the_reasons_of_a_scored_clip() -> None:
    assert "3 too blurred, compressed or noisy, 1 too small (below 32 px)" in page_of(
        record(not_judged={"unclear": 3, "tiny": 1})
    )
    assert "were not judged" not in page_of(record())


def page_of(verdict: Verdict) -> str:
    run = RunSummary(
        started_at=1.0,
        elapsed_s=1.0,
        clips=1,
        frames_sampled=verdict.frames_sampled,
        frames_scored=verdict.frames_scored,
        command="unmask scan clip.mp4",
        skipped_files=0,
        software="unmask",
    )
    return render_report([ClipReport(verdict)], run=run)
