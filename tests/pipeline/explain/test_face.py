"""A crop that is taken from its clip again has the same pixels, so the same score."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.explain.face import FaceGoneError, face_again
from pipeline.scan import Scanner
from pipeline.sources import Source
from pipeline.types import Floats, Image
from pipeline.video.sampling import Fps
from pipeline.video.sandbox import DecodeServer
from tests.media import face_picture, turn_clip
from tests.pipeline.quick import QuickNetwork, quick_scanner


def of_every_pixel(pixels: Image) -> Floats:
    """Log-odds that hardly two crops share."""
    weights = np.random.default_rng(0).standard_normal(pixels[0].shape)
    return np.asarray((pixels * weights).sum(axis=(1, 2, 3)) / 1e4, np.float32)


@pytest.fixture(scope="module")
def scanner(decode_server: DecodeServer) -> Iterator[Scanner]:
    network = QuickNetwork()
    network.log_odds = of_every_pixel
    with quick_scanner(decode_server, Fps(2), network=network) as found:
        yield found


@pytest.mark.parametrize("kind", ["clip", "turned", "picture"])
def test_a_crop_taken_again_is_the_same(scanner: Scanner, one_face: Path, tmp_path: Path, kind: str) -> None:
    path = one_face
    if kind == "turned":
        path = turn_clip(one_face, tmp_path / "turned.mp4", 90)
    elif kind == "picture":
        path = tmp_path / "face.png"
        cv2.imwrite(str(path), cv2.cvtColor(face_picture(), cv2.COLOR_RGB2BGR))
    source = Source(str(path), is_path=True)
    report = scanner.scan(source)
    assert report is not None
    assert report.suspicious
    sha256 = report.verdict.provenance.source_sha256
    for shown in report.suspicious:
        assert shown.place is not None
        assert (shown.place.turn != 0) == (kind == "turned")
        again = face_again(scanner, source, shown.place, t_s=shown.t_s, quality=shown.quality, sha256=sha256)
        assert again.probability == pytest.approx(shown.probability, abs=1e-6)
        with pytest.raises(FaceGoneError, match="changed since"):
            face_again(scanner, source, shown.place, t_s=shown.t_s, quality=shown.quality, sha256="0" * 64)
    with pytest.raises(FaceGoneError, match=r"no frame at 1\.230 s"):
        face_again(scanner, source, shown.place, t_s=1.23, quality=shown.quality, sha256=sha256)
