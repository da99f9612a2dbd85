"""YuNet against OpenCV's decoding of the same network."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.faces.boxes import iou
from pipeline.faces.create import create_detector
from pipeline.faces.detector import FaceDetector
from tests.media import Scene, face_picture
from tests.pipeline.faces.conftest import FrameSource

pytestmark = pytest.mark.data


def test_decodes_as_opencv_does(data_dir: Path) -> None:
    weights = data_dir / "weights" / "yunet_n_dynamic.onnx"
    scene = Scene(960, 416, people=((0.0, float("inf")),) * 3, face_px=(60, 120), seed=2)
    image = scene.render(0.5)
    faces = create_detector("yunet", weights=weights, min_face_px=12).detect([image])[0]
    theirs = cv2.FaceDetectorYN.create(str(weights), "", (960, 416), 0.75, 0.3, 5000)
    _, rows = theirs.detect(image[:, :, ::-1].copy())
    assert len(faces) == len(rows) == 3
    np.testing.assert_allclose(faces.scores, rows[:, 14], atol=1e-4)
    np.testing.assert_allclose(faces.boxes, np.hstack([rows[:, :2], rows[:, :2] + rows[:, 2:4]]), atol=0.05)
    np.testing.assert_allclose(faces.landmarks, rows[:, 4:14].reshape(-1, 5, 2), atol=0.05)


def test_finds_what_mtcnn_finds(yunet: FaceDetector, mtcnn: FaceDetector) -> None:
    scene = Scene(1280, 480, people=((0.0, float("inf")),) * 4, face_px=(60, 150), seed=3)
    for image in (scene.render(0.0), scene.render(1.0)):
        a, b = yunet.detect([image])[0], mtcnn.detect([image])[0]
        assert len(a) == len(b) == 4
        best = iou(a.boxes, b.boxes).argmax(axis=1)
        assert np.diagonal(iou(a.boxes, b.boxes[best])).min() > 0.7
        assert np.abs(a.landmarks - b.landmarks[best]).max() < 12  # px: eyes of both are the same eyes


def test_refine_follows_faces_marks_missing_ones_and_keeps_order(yunet: FaceDetector) -> None:
    image = face_picture()
    box = yunet.detect([image])[0].boxes
    side = box[0, 3] - box[0, 1]
    asked = np.concatenate([box + 0.25 * side, np.array([[20, 300, 120, 420]], np.float32), box - 0.15 * side])
    refined = yunet.refine(image, asked)
    assert (refined.scores > 0).tolist() == [True, False, True]
    assert iou(refined.boxes, box)[[0, 2], 0].min() > 0.7  # the patch shows the face larger than the frame did
    assert len(yunet.refine(image, box[:0])) == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (31, 33), (40, 2000)])
def test_frames_smaller_than_a_face_hold_none(yunet: FaceDetector, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    assert [len(faces) for faces in yunet.detect([image, face_picture()])] == [0, 1]
    assert yunet.refine(image, np.array([[-5, -5, 60, 80]], np.float32)).scores.tolist() == [0]


def test_real_clips_hold_one_person(yunet: FaceDetector, data_dir: Path, frames_of: FrameSource) -> None:
    for name in ("004.mp4", "brtujopkby.mp4"):
        counts = [len(yunet.detect([f.image])[0]) for f in frames_of(data_dir / "videos" / name, fps=1, seconds=6)]
        assert counts == [1] * len(counts), name
