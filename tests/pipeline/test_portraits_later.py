"""Pictures of a judged clip, from its file and its record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.faces.create import create_detector
from pipeline.faces.detector import FaceDetector
from pipeline.portraits import Portrait
from pipeline.portraits_later import portraits_of
from pipeline.scan import Scanner
from pipeline.sources import ScanInterruptedError, Source, SourceError, SourceLimits, open_source
from pipeline.video.sampling import Even, Fps
from pipeline.video.sandbox import DecodeServer
from tests import media
from tests.pipeline.quick import quick_scanner


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return create_detector("mtcnn")


@pytest.fixture(scope="module")
def scanner(decode_server: DecodeServer, detector: FaceDetector) -> Iterator[Scanner]:
    with quick_scanner(decode_server, Fps(2), detector=detector) as scanner:
        yield scanner


def is_upright(portrait: Portrait, detector: FaceDetector) -> bool:
    """Whether it shows one face, whose eyes are above its mouth."""
    pixels = cv2.cvtColor(cv2.imdecode(np.frombuffer(portrait.jpeg, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    (faces,) = detector.detect([pixels])
    heights = faces.landmarks[:, :, 1]
    return len(faces) == 1 and bool(heights[:, :2].max() + 20 < heights[:, 3:].min())


@pytest.mark.parametrize("kind", ["clip", "turned", "picture", "far apart"])
def test_they_are_those_that_the_scan_kept(
    scanner: Scanner, detector: FaceDetector, one_face: Path, tmp_path: Path, kind: str
) -> None:
    path = one_face
    if kind == "turned":
        path = media.turn_clip(one_face, tmp_path / "turned.mp4", 90)
    elif kind == "picture":
        path = tmp_path / "face.png"
        cv2.imwrite(str(path), cv2.cvtColor(media.face_picture(), cv2.COLOR_RGB2BGR))
    elif kind == "far apart":
        path = tmp_path / "long.mp4"
        # Frames whose times are no whole milliseconds.
        media.make_clip(path, seconds=16, fps=6, seed=3)
        scanner = replace(scanner, sampling=Even(2))
    report = scanner.scan(Source(str(path)))
    assert report is not None
    assert {face.roll != 0 for face in report.verdict.frames} == {kind == "turned"}
    assert report.suspicious
    with open_source(Source(str(path)), SourceLimits()) as opened:
        suspicious, clearest = portraits_of(report.verdict, opened, scanner.server)
    for found, kept in ((suspicious, report.suspicious), (clearest, report.clearest)):
        assert len(found) == len(kept)
        for one, other in zip(found, kept, strict=True):
            assert (one.track, one.t_s) == (other.track, pytest.approx(other.t_s, abs=1e-3))
            assert (one.probability, one.quality) == pytest.approx((other.probability, other.quality), abs=1e-3)
            assert is_upright(one, detector)


def test_another_file_is_refused(scanner: Scanner, one_face: Path, no_face: Path) -> None:
    report = scanner.scan(Source(str(one_face)))
    assert report is not None
    with open_source(Source(str(no_face)), SourceLimits()) as opened, pytest.raises(SourceError, match="has changed"):
        portraits_of(report.verdict, opened, scanner.server)
    with open_source(Source(str(one_face)), SourceLimits()) as opened, pytest.raises(ScanInterruptedError):
        portraits_of(report.verdict, opened, scanner.server, stop=lambda: True)
