"""MTCNN against facenet-pytorch's own, its two backends against each other, and frames that crash other versions."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from facenet_pytorch import MTCNN

from pipeline.faces.boxes import iou
from pipeline.faces.create import create_detector
from pipeline.faces.detector import FaceDetector
from pipeline.types import Faces, Floats, Image
from tests.media import Scene, face_picture
from tests.pipeline.faces.conftest import FrameSource

ALWAYS = (0.0, float("inf"))


@pytest.fixture(scope="module")
def stock() -> MTCNN:
    return MTCNN(keep_all=True, min_face_size=40, device="cpu")


@pytest.fixture(scope="module")
def crowd() -> Scene:
    return Scene(1280, 480, people=(ALWAYS,) * 4, face_px=(60, 150), seed=3)


def stock_faces(stock: MTCNN, image: Image, sure: float = 0.99) -> Floats:
    boxes, scores = stock.detect(image)
    return np.zeros((0, 4), np.float32) if boxes is None else boxes[scores >= sure].astype(np.float32)


def found_again(wanted: Floats, faces: Faces, least_iou: float) -> Floats:
    """For each box the IoU with the face at its place, 0 under `least_iou`."""
    best = iou(wanted, faces.boxes).max(axis=1, initial=0.0)
    return np.where(best >= least_iou, best, 0)


def test_finds_the_faces_of_made_pictures_as_facenet_pytorch_does(
    mtcnn: FaceDetector, stock: MTCNN, crowd: Scene
) -> None:
    for t_s in (0.0, 1.5):
        image = crowd.render(t_s)
        faces = mtcnn.detect([image])[0]
        assert len(faces) == 4
        overlaps = found_again(stock_faces(stock, image), faces, 0.7)
        assert len(overlaps) == 4
        assert overlaps.min() > 0
        assert overlaps.mean() > 0.85


def test_landmarks_are_on_the_face_in_the_stated_order(mtcnn: FaceDetector, stock: MTCNN) -> None:
    faces = mtcnn.detect([face_picture()])[0]
    _, _, points = stock.detect(face_picture(), landmarks=True)
    assert np.abs(faces.landmarks - points).max() < 4  # px, of a face of 110
    left_eye, right_eye, nose, left_mouth, right_mouth = faces.landmarks[0]
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert left_eye[1] < nose[1] < left_mouth[1]


def test_backends_agree(mtcnn: FaceDetector, crowd: Scene) -> None:
    """Within a hundredth of a pixel and 1e-4 of probability: both compute in fp32."""
    by_torch = create_detector("mtcnn", backend="torch")
    image = crowd.render(0.5)
    a, b = mtcnn.detect([image])[0], by_torch.detect([image])[0]
    for one, other in ((a, b), (mtcnn.refine(image, a.boxes + 3), by_torch.refine(image, a.boxes + 3))):
        np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-2)
        np.testing.assert_allclose(one.landmarks, other.landmarks, atol=1e-2)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees(mtcnn: FaceDetector, crowd: Scene) -> None:
    """Within a pixel: convolutions on CUDA may use TF32."""
    image = crowd.render(0.5)
    cuda, cpu = create_detector("mtcnn", device="cuda").detect([image])[0].boxes, mtcnn.detect([image])[0].boxes
    np.testing.assert_allclose(cuda[cuda[:, 0].argsort()], cpu[cpu[:, 0].argsort()], atol=1)


@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_autocast_around_it_changes_nothing(backend: str) -> None:
    detector = create_detector("mtcnn", backend=backend)  # type: ignore[arg-type]
    plain = detector.detect([face_picture()])[0]
    with torch.autocast("cpu", torch.bfloat16):
        cast = detector.detect([face_picture()])[0]
        refined = detector.refine(face_picture(), plain.boxes)
    np.testing.assert_array_equal(cast.boxes, plain.boxes)
    assert refined.scores[0] > 0.9


def test_images_of_any_sizes_in_one_call(mtcnn: FaceDetector, crowd: Scene) -> None:
    black = np.zeros((300, 200, 3), np.uint8)
    many = mtcnn.detect([face_picture(), black, crowd.render(0), face_picture()[:200]])
    assert [len(faces) for faces in many] == [1, 0, 4, 1]
    assert mtcnn.detect([]) == []


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (11, 11), (12, 12), (39, 39), (40, 2000), (41, 41)])
def test_frames_smaller_than_a_face_hold_none(mtcnn: FaceDetector, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    assert len(mtcnn.detect([image])[0]) == 0
    lost = mtcnn.refine(image, np.array([[-5, -5, 60, 80], [3000, 0, 3040, 40]], np.float32))
    assert lost.scores.tolist() == [0, 0]


def test_noise_and_plain_colours_hold_no_face(mtcnn: FaceDetector) -> None:
    rng = np.random.default_rng(1)
    pictures = [rng.integers(0, 256, (480, 640, 3), np.uint8), np.full((480, 640, 3), 127, np.uint8)]
    assert [len(faces) for faces in mtcnn.detect(pictures)] == [0, 0]


def test_small_faces_are_found_down_to_the_size_asked_for() -> None:
    scene = Scene(640, 360, people=(ALWAYS,), face_px=(44, 44), seed=0)
    image = scene.render(0)
    assert len(create_detector(min_face_px=40).detect([image])[0]) == 1
    assert len(create_detector(min_face_px=120).detect([image])[0]) == 0


@pytest.mark.parametrize("move", [(0, 0, 1), (0.25, 0, 1), (-0.2, 0.2, 1), (0, 0, 1.25), (0, 0, 0.8)])
def test_refine_follows_a_face_that_moved(mtcnn: FaceDetector, move: tuple[float, float, float]) -> None:
    dx, dy, scale = move
    box = mtcnn.detect([face_picture()])[0].boxes
    centre, half = (box[:, :2] + box[:, 2:]) / 2, (box[:, 2:] - box[:, :2]) / 2 * scale
    centre = centre + np.float32([dx, dy]) * (box[0, 3] - box[0, 1])
    refined = mtcnn.refine(face_picture(), np.concatenate([centre - half, centre + half], axis=1))
    assert refined.scores[0] > 0.9
    assert iou(refined.boxes, box)[0, 0] > 0.8


def test_refine_keeps_length_and_order_and_marks_missing_faces(mtcnn: FaceDetector, crowd: Scene) -> None:
    image = crowd.render(0)
    faces = mtcnn.detect([image])[0]
    nowhere = np.array([[10, 380, 90, 470]], np.float32)
    asked = np.concatenate([faces.boxes[:2], nowhere, faces.boxes[2:]])
    refined = mtcnn.refine(image, asked)
    assert (refined.scores > 0).tolist() == [True, True, False, True, True]
    assert np.diagonal(iou(refined.boxes, asked))[[0, 1, 3, 4]].min() > 0.8
    assert len(mtcnn.refine(image, np.zeros((0, 4), np.float32))) == 0


def test_threads_share_one_detector(mtcnn: FaceDetector, crowd: Scene) -> None:
    images = [crowd.render(t / 4) for t in range(8)]
    alone = [(found, mtcnn.refine(image, found.boxes)) for image in images for found in mtcnn.detect([image])]

    def look(image: Image) -> tuple[Faces, Faces]:
        found = mtcnn.detect([image])[0]
        return found, mtcnn.refine(image, found.boxes)

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(look, images))
    for (found, refined), (found_too, refined_too) in zip(alone, together, strict=True):
        np.testing.assert_array_equal(found.boxes, found_too.boxes)
        np.testing.assert_array_equal(refined.boxes, refined_too.boxes)


@pytest.mark.data
def test_real_clips_as_facenet_pytorch(
    mtcnn: FaceDetector, stock: MTCNN, data_dir: Path, frames_of: FrameSource
) -> None:
    """Of the faces that the stock cascade is sure of (0.999), 95 % on talking heads, at a mean IoU of 0.85."""
    overlaps: list[float] = []
    for name in ("519.mp4", "634.mp4", "talk_1.mp4", "sign_book.mkv"):
        for frame in frames_of(data_dir / "videos" / name, fps=1, seconds=2.5):
            faces = mtcnn.detect([frame.image])[0]
            overlaps += found_again(stock_faces(stock, frame.image, sure=0.999), faces, 0.5).tolist()
    assert len(overlaps) >= 8
    assert np.mean(np.array(overlaps) > 0) >= 0.95
    assert np.mean([o for o in overlaps if o > 0]) > 0.85


@pytest.mark.data
def test_street_scene_as_facenet_pytorch(
    mtcnn: FaceDetector, stock: MTCNN, data_dir: Path, frames_of: FrameSource
) -> None:
    """With profiles and motion blur 75 %, and no face that the stock cascade does not find."""
    recalled: list[bool] = []
    for frame in frames_of(data_dir / "videos" / "street_1080p_many_faces.mp4", fps=0.7):
        faces = mtcnn.detect([frame.image])[0]
        boxes, scores = stock.detect(frame.image)
        recalled += (found_again(boxes[scores >= 0.99].astype(np.float32), faces, 0.5) > 0).tolist()
        assert iou(faces.boxes, boxes.astype(np.float32)).max(axis=1).min() > 0.3
    assert len(recalled) >= 12
    assert np.mean(recalled) >= 0.75
