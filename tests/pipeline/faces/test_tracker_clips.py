"""Detector and tracker together on synthetic and real clips."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipeline.faces.boxes import iou
from pipeline.faces.detector import FaceDetector
from pipeline.faces.quality import MIN_QUALITY
from pipeline.faces.tracker import FaceTracker
from pipeline.types import Frame
from tests.media import make_clip
from tests.pipeline.faces.conftest import FrameSource

STREET = "street_1080p_many_faces.mp4"
ONE_PERSON = (
    "004.mp4", "004_982.mp4", "519.mp4", "519_515.mp4", "634.mp4", "634_660.mp4", "750_743.mp4", "anndvqgoko.mp4",
    "brtujopkby.mp4", "knqhpwoigk.mp4", "portrait_720p.mp4", "sign_book.mkv", "talk_1.mp4", "talk_2.mp4", "talk_4.mp4",
    "widuwuoiur.mp4",
)  # fmt: skip


class CountingDetector:
    """Counts the full detections of another one."""

    def __init__(self, inner: FaceDetector) -> None:
        self.detections = 0
        self.name, self._detect, self.refine = inner.name, inner.detect, inner.refine

    def detect(self, images):  # type: ignore[no-untyped-def]
        self.detections += len(images)
        return self._detect(images)


@pytest.mark.parametrize("fps", [1, 2, None])
def test_three_people_are_three_tracks(
    mtcnn: FaceDetector, three_faces: Path, frames_of: FrameSource, fps: float | None
) -> None:
    tracker, seen, frames = FaceTracker(mtcnn), Counter[int](), 0
    for frame in frames_of(three_faces, fps=fps):
        seen.update(tracker.update(frame).track_ids.tolist())
        frames += 1
    assert seen == {0: frames, 1: frames, 2: frames}


def test_boxes_stay_on_the_face_between_full_detections(
    mtcnn: FaceDetector, one_face: Path, frames_of: FrameSource
) -> None:
    """As the made clip moves, the refined boxes overlap those of a full detection by 0.8 on every frame."""
    counting = CountingDetector(mtcnn)
    tracker = FaceTracker(counting)
    frames = 0
    for frame in frames_of(one_face, fps=None):
        faces = tracker.update(frame)
        frames += 1
        assert len(faces) == 1
        assert faces.quality[0] > 0.5
        if frame.index % 5 == 0:
            assert iou(faces.boxes, mtcnn.detect([frame.image])[0].boxes).max() > 0.8
    assert frames == 100
    assert counting.detections == 4


def test_a_person_leaves_and_comes_back(mtcnn: FaceDetector, clips: Path, frames_of: FrameSource) -> None:
    """The second person is visible from 0.5 to 1.5 s; a black second does not make two people of the first."""
    path = clips / "coming_and_going.mp4"
    make_clip(path, seconds=4, size=(800, 360), faces=((0, 9), (0.5, 1.5)), blanks=((2.0, 3.0),))
    tracker = FaceTracker(mtcnn)
    times: dict[int, list[float]] = {}
    for frame in frames_of(path, fps=10):
        for id_ in tracker.update(frame).track_ids.tolist():
            times.setdefault(id_, []).append(frame.t_s)
    assert list(times) == [0, 1]
    assert len(times[0]) >= 29
    assert not [t for t in times[0] if 2.0 <= t < 3.0]
    assert times[1][0] == pytest.approx(0.5, abs=0.6)
    assert times[1][-1] < 1.5


def test_no_track_without_a_face(mtcnn: FaceDetector, no_face: Path, frames_of: FrameSource) -> None:
    tracker = FaceTracker(mtcnn)
    assert [len(tracker.update(frame)) for frame in frames_of(no_face, fps=10)] == [0] * 10


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("detector", ["mtcnn", "yunet"])
@pytest.mark.parametrize("name", ONE_PERSON)
def test_one_person_is_one_track(
    detector: str, name: str, data_dir: Path, frames_of: FrameSource, request: pytest.FixtureRequest
) -> None:
    tracker, seen, frames = FaceTracker(request.getfixturevalue(detector)), Counter[int](), 0
    for frame in frames_of(data_dir / "videos" / name, seconds=8):
        faces = tracker.update(frame)
        seen.update(faces.track_ids[faces.quality >= MIN_QUALITY].tolist())
        frames += 1
    assert seen.pop(0) >= 0.85 * frames
    assert all(count < 2 for count in seen.values())


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(("name", "fps"), [("634_660.mp4", 5), ("004.mp4", 1), ("519.mp4", 0.3), ("talk_2.mp4", None)])
def test_one_person_is_one_track_at_other_rates(
    mtcnn: FaceDetector, name: str, fps: float | None, data_dir: Path, frames_of: FrameSource
) -> None:
    tracker = FaceTracker(mtcnn)
    ids = [tracker.update(frame).track_ids.tolist() for frame in frames_of(data_dir / "videos" / name, fps, seconds=12)]
    assert ids == [[0]] * len(ids)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("detector", ["mtcnn", "yunet"])
@pytest.mark.parametrize("fps", [2, 5])
def test_the_street_scene_has_five_people_and_more(
    detector: str, fps: float, data_dir: Path, frames_of: FrameSource, request: pytest.FixtureRequest
) -> None:
    tracker, seen = FaceTracker(request.getfixturevalue(detector)), Counter[int]()
    for frame in frames_of(data_dir / "videos" / STREET, fps=fps):
        faces = tracker.update(frame)
        seen.update(faces.track_ids[faces.quality >= MIN_QUALITY].tolist())
        heights = faces.boxes[:, 3] - faces.boxes[:, 1]
        assert ((heights > 20) & (heights < 200)).all()
    assert sum(count >= 2 for count in seen.values()) >= 5


@pytest.mark.data
@pytest.mark.slow
def test_a_cut_between_real_clips_makes_new_people(mtcnn: FaceDetector, data_dir: Path, frames_of: FrameSource) -> None:
    tracker, t_s = FaceTracker(mtcnn), 0.0
    ids: list[list[int]] = []
    for name in ("talk_1.mp4", "talk_4.mp4", "talk_1.mp4"):
        for frame in frames_of(data_dir / "videos" / name, fps=5, seconds=1):
            faces = tracker.update(Frame(frame.image, t_s, len(ids), "joined"))
            ids.append(faces.track_ids.tolist())
            t_s += 0.2
    assert ids[:5] == [[0]] * 5
    assert ids[5:10] == [[1]] * 5
    assert np.unique(ids[10:]).tolist() == [0], "a cut back within three seconds finds the same person"
