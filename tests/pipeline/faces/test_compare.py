"""The table of refinement against full detection."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.faces.compare import compare_refine
from pipeline.faces.detector import FaceDetector
from tests.pipeline.faces.conftest import FrameSource
from tests.pipeline.faces.stage import Stage, at


def test_counts_what_refinement_keeps_and_loses() -> None:
    stage = Stage()

    def frames():  # type: ignore[no-untyped-def]
        for n in range(11):
            stage.hidden_from_refine = {"ben"} if n > 5 else set()
            yield stage.frame(n * 0.1, {"ann": at(200 + n), "ben": at(400), **({"cid": at(550)} if n == 4 else {})})

    short, long = compare_refine(frames(), stage, [0.1, 0.5])
    assert (short.frames, long.frames) == (10, 2)
    assert (short.faces, long.faces) == (20, 4)
    assert (short.kept, long.kept) == (15, 3)
    assert short.mean_iou == pytest.approx(1, abs=1e-6)
    assert short.refine_ms is not None
    assert short.detect_ms >= 0


def test_without_faces_there_is_nothing_to_keep() -> None:
    stage = Stage()
    (row,) = compare_refine((stage.frame(n, {}) for n in range(3)), stage, [1.0])
    assert (row.faces, row.kept, row.mean_iou, row.refine_ms) == (0, 0, None, None)


def test_gaps_and_frames_are_required() -> None:
    stage = Stage()
    with pytest.raises(ValueError, match="positive"):
        compare_refine([stage.frame(0, {})], stage, [0.0])
    with pytest.raises(ValueError, match="no frames"):
        compare_refine([], stage, [1.0])


def test_a_made_clip_keeps_its_faces(mtcnn: FaceDetector, three_faces: Path, frames_of: FrameSource) -> None:
    for row in compare_refine(frames_of(three_faces, fps=5), mtcnn, [0.2, 1.0]):
        assert row.kept == row.faces == 3 * row.frames
        assert row.mean_iou is not None
        assert row.mean_iou > 0.85


@pytest.mark.data
def test_real_clips_keep_their_faces(mtcnn: FaceDetector, data_dir: Path, frames_of: FrameSource) -> None:
    faces = kept = 0
    for name in ("004.mp4", "519.mp4", "talk_4.mp4", "brtujopkby.mp4"):
        (row,) = compare_refine(frames_of(data_dir / "videos" / name, fps=2, seconds=6), mtcnn, [1.0])
        faces, kept = faces + row.faces, kept + row.kept
    assert faces >= 16
    assert kept == faces
