"""Training crops match serving crops, and pairs differ only in the forgery."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.faces.detector import FaceDetector
from pipeline.scan import Scanner
from pipeline.scoring.backend import Done
from pipeline.scoring.engine import Engine
from pipeline.sources import Source
from pipeline.types import Image
from pipeline.video.clip import DecodeError
from pipeline.video.sampling import Even
from pipeline.video.sandbox import DecodeServer
from tests.media import FACE_CENTRE, face_picture
from tests.pipeline.records import PROVENANCE
from tests.trainers.data.conftest import SPEC
from trainers.data.video_crops import Cutter, NoCropsError


class Recorder:
    """A network that records its inputs."""

    name = "recorder"
    input_size = SPEC.size
    max_batch = 4
    concurrency = 1

    def __init__(self) -> None:
        self.given: list[Image] = []

    def fit(self, waiting: int) -> int:
        return waiting

    def start(self, pixels: Image, done: Done) -> None:
        self.given.append(pixels.copy())
        done(np.zeros(len(pixels), np.float32))

    def close(self) -> None:
        """Nothing to free."""


def scanned(path: Path, frames: int, detector: FaceDetector, server: DecodeServer) -> Image:
    """The crops that a scan submits to its engine, in their order: uint8 [N, S, S, 3]."""
    network = Recorder()
    with Engine(network) as engine:
        scanner = Scanner(
            engine=engine,
            spec=SPEC,
            detector=detector,
            server=server,
            sampling=Even(frames),
            provenance=PROVENANCE.model_copy(update={"decoder": "none", "source_sha256": None}),
        )
        report = scanner.scan(Source(str(path)))
    assert report is not None
    assert report.verdict.outcome == "scored"
    return np.concatenate(network.given)


def test_prepared_crops_are_those_that_a_scan_scores(
    cutter: Cutter, one_face: Path, face_detector: FaceDetector, decode_server: DecodeServer
) -> None:
    cropped = cutter.cut(one_face, "x")
    assert len(cropped.crops) == cutter.frames
    prepared = np.stack([crop.pixels for crop in cropped.crops])
    np.testing.assert_array_equal(prepared, scanned(one_face, cutter.frames, face_detector, decode_server))


def test_prepared_crops_of_all_people_are_those_that_a_scan_scores(
    cutter: Cutter, three_faces: Path, face_detector: FaceDetector, decode_server: DecodeServer
) -> None:
    everyone = replace(cutter, all_people=True).cut(three_faces, "x").crops
    assert [crop.track for crop in everyone] == [0] * 4 + [1] * 4 + [2] * 4
    in_order = sorted(everyone, key=lambda crop: (crop.t_s, crop.track))
    prepared = np.stack([crop.pixels for crop in in_order])
    np.testing.assert_array_equal(prepared, scanned(three_faces, cutter.frames, face_detector, decode_server))
    best = cutter.cut(three_faces, "x").crops
    assert len({crop.track for crop in best}) == 1
    quality = {track: sum(crop.quality for crop in everyone if crop.track == track) for track in range(3)}
    assert best[0].track == max(quality, key=lambda track: quality[track])


def test_landmarks_are_those_of_the_crop(cutter: Cutter, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "face.png"), face_picture()[..., ::-1])
    (crop,) = cutter.cut(tmp_path / "face.png", "x").crops
    to_frame = crop.landmarks * (crop.width_px / SPEC.size)
    np.testing.assert_allclose(to_frame - to_frame[0], crop.face.landmarks[0] - crop.face.landmarks[0, 0], atol=1e-3)
    left, right, nose, *mouth = crop.landmarks / SPEC.size
    # The template: eyes at 0.28 of its height, 0.403 apart at most; nose and mouth below.
    assert left[1] == pytest.approx(0.28, abs=0.03)
    assert 0.3 < right[0] - left[0] < 0.42
    assert left[1] < nose[1] < min(point[1] for point in mouth)
    # The picture around the middle of the face is in the middle of the crop.
    middle = face_picture()[int(FACE_CENTRE[1]), int(FACE_CENTRE[0])].astype(int)
    assert np.abs(crop.pixels[28:36, 28:36].mean(axis=(0, 1)) - middle).max() < 60


def test_a_fake_is_cut_at_the_place_of_its_original(cutter: Cutter, pair: Path) -> None:
    original = cutter.cut(pair / "real" / "7.mp4", "x")
    fake = cutter.cut_like(original, pair / "fake" / "blend" / "7.mp4", "y")
    assert fake is not None
    assert [(crop.index, crop.track) for crop in fake.crops] == [(crop.index, crop.track) for crop in original.crops]
    for real, forged in zip(original.crops, fake.crops, strict=True):
        difference = np.abs(real.pixels.astype(int) - forged.pixels).mean(axis=2)
        corners = [difference[:8, :8], difference[:8, -8:], difference[-8:, :8], difference[-8:, -8:]]
        assert max(float(corner.mean()) for corner in corners) < 5
        assert difference[20:48, 20:44].mean() > 15
        np.testing.assert_array_equal(real.landmarks, forged.landmarks)


def test_a_shorter_fake_is_cut_at_the_same_times(cutter: Cutter, pair: Path) -> None:
    original = cutter.cut(pair / "real" / "7.mp4", "x")
    shorter = cutter.cut_like(original, pair / "fake" / "cut" / "7.mp4", "y")
    assert shorter is not None
    # The last of four instants in 1.2 s is beyond its end.
    assert [crop.index for crop in shorter.crops] == [crop.index for crop in original.crops[:3]]
    for real, fake in zip(original.crops, shorter.crops, strict=False):
        assert np.abs(real.pixels.astype(int) - fake.pixels).mean() < 6


def test_another_picture_is_not_cut_like_the_original(cutter: Cutter, pair: Path, one_face: Path) -> None:
    original = cutter.cut(pair / "real" / "7.mp4", "x")
    assert cutter.cut_like(original, pair / "fake" / "other" / "7.mp4", "y") is None
    assert cutter.cut_like(original, one_face, "y") is None  # of another size


def test_a_folder_of_frames_is_a_video(cutter: Cutter, tmp_path: Path) -> None:
    frames, doubled = tmp_path / "frames", tmp_path / "doubled"
    frames.mkdir()
    doubled.mkdir()
    for n in range(9):
        # By name, 10 would come before 5.
        shifted = np.roll(face_picture(), 4 * n, axis=1)[..., ::-1]
        cv2.imwrite(str(frames / f"frame{5 * n}.png"), shifted)
        cv2.imwrite(str(doubled / f"{5 * n:03d}.png"), shifted)
        cv2.imwrite(str(doubled / f"{5 * n + 1:03d}.png"), shifted[:, ::-1])
    (frames / "landmarks.npy").touch()
    original = cutter.cut(frames, "x")
    assert [crop.index for crop in original.crops] == [5, 15, 25, 35]
    assert {crop.track for crop in original.crops} == {0}
    result = cutter.cut_like(original, doubled, "y")
    assert result is not None
    for first, second in zip(original.crops, result.crops, strict=True):
        np.testing.assert_array_equal(first.pixels, second.pixels)


def test_videos_without_a_usable_face_give_a_reason(cutter: Cutter, no_face: Path, tmp_path: Path) -> None:
    with pytest.raises(NoCropsError, match="no face in 4 sampled frames") as none:
        cutter.cut(no_face, "x")
    assert none.value.outcome == "no_face"
    (tmp_path / "passing").mkdir()
    for n in range(4):
        picture = face_picture() if n < 2 else np.full_like(face_picture(), 120)
        cv2.imwrite(str(tmp_path / "passing" / f"{n}.png"), picture[..., ::-1])
    with pytest.raises(NoCropsError, match="good enough in 2 of them, 4 are needed") as poor:
        cutter.cut(tmp_path / "passing", "x")
    assert poor.value.outcome == "low_quality"


def test_unreadable_files_give_a_typed_outcome(cutter: Cutter, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video\n" * 100)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "1.png").write_text("not a picture")
    for name in ("text.mp4", "empty", "broken"):
        with pytest.raises(DecodeError) as error:
            cutter.cut(tmp_path / name, "x")
        assert error.value.outcome == "undecodable"
    with pytest.raises(DecodeError) as gone:
        cutter.cut(tmp_path / "gone.mp4", "x")
    assert gone.value.outcome == "unavailable"


@pytest.mark.data
def test_a_faceforensics_pair_is_aligned(data_dir: Path, cutter: Cutter) -> None:
    original = cutter.cut(data_dir / "videos" / "004.mp4", "x")
    fake = cutter.cut_like(original, data_dir / "videos" / "004_982.mp4", "y")
    assert fake is not None
    assert [crop.index for crop in fake.crops] == [crop.index for crop in original.crops]
