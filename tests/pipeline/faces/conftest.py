"""Detectors made once, and frames of the shared clips."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.faces.create import create_detector
from pipeline.faces.detector import FaceDetector
from pipeline.types import Frame
from pipeline.video.sampling import Every, Fps
from pipeline.video.sandbox import DecodeServer

FrameSource = Callable[..., Iterator[Frame]]


@pytest.fixture(scope="session")
def mtcnn() -> FaceDetector:
    return create_detector("mtcnn")


@pytest.fixture(scope="session")
def yunet(data_dir: Path) -> FaceDetector:
    return create_detector("yunet", weights=data_dir / "weights" / "yunet_n_dynamic.onnx")


@pytest.fixture(scope="session")
def frames_of(decode_server: DecodeServer) -> FrameSource:
    """Frames of a file at a rate (None: all), for the first `seconds`; an image is valid until the next one comes."""

    def frames(path: Path, fps: float | None = 2.0, seconds: float = float("inf")) -> Iterator[Frame]:
        with decode_server.open(path, path.stem, Every(1) if fps is None else Fps(fps)) as clip:
            for frame in clip:
                if frame.t_s >= seconds:
                    return
                yield frame

    return frames
