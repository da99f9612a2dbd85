"""A detector built once, and a synthetic original with its fakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.spec import InputSpec
from pipeline.faces.create import create_detector
from pipeline.faces.detector import FaceDetector
from pipeline.video.sandbox import DecodeServer
from tests import media
from trainers.data.video_crops import Cutter

SPEC = InputSpec(size=64)


@pytest.fixture(scope="session")
def face_detector() -> FaceDetector:
    return create_detector("mtcnn")


@pytest.fixture(scope="session")
def cutter(face_detector: FaceDetector, decode_server: DecodeServer) -> Cutter:
    return Cutter(face_detector, decode_server, SPEC, frames=4)


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An original, its fake, and two others named as its fakes: a shorter copy, and another scene."""
    root = tmp_path_factory.mktemp("pair")
    for name in ("real", "fake/blend", "fake/cut", "fake/other"):
        (root / name).mkdir(parents=True)
    clip = {"size": (360, 216), "face_px": (75.0, 90.0)}
    media.make_clip(root / "real" / "7.mp4", seconds=1.2, seed=3, **clip)
    media.make_fake(root / "real" / "7.mp4", root / "fake" / "blend" / "7.mp4")
    media.make_clip(root / "fake" / "cut" / "7.mp4", seconds=0.9, seed=3, options={"crf": "30"}, **clip)
    media.make_clip(root / "fake" / "other" / "7.mp4", seconds=1.2, seed=8, **clip)
    return root
