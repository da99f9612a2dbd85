"""Adaptive sampling: few frames where they settle the verdict, else the same verdict as without it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from models.checkpoint_info import Thresholds
from pipeline.contracts import Label, Outcome, Verdict
from pipeline.faces.create import create_detector
from pipeline.faces.detector import FaceDetector
from pipeline.scan import ClipCost, LongClipError, Scanner
from pipeline.sources import Source
from pipeline.types import Floats, Image
from pipeline.video.sampling import Adaptive, Even, Every, Fps, Sampling
from pipeline.video.sandbox import DecodeServer
from tests import media
from tests.pipeline.quick import QuickNetwork, quick_scanner
from tests.pipeline.test_several_streams import together

THRESHOLDS = Thresholds(0.01, (0.97,) * 8, (0.3,) * 8, (4.0, 4.5, 5.0, 5.5))


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return create_detector("mtcnn")


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty seconds of one person, ten frames and a key frame each second."""
    path = tmp_path_factory.mktemp("adaptive") / "talk.mp4"
    options = {"x264-params": "keyint=10:min-keyint=10:scenecut=0"}
    media.make_clip(path, seconds=20, fps=10, size=(320, 240), face_px=(90, 100), options=options)
    return path


def always(log_odds: float) -> QuickNetwork:
    network = QuickNetwork()
    network.log_odds = lambda pixels: np.full(len(pixels), log_odds, np.float32)
    return network


@contextmanager
def scanning(
    server: DecodeServer, sampling: Sampling, detector: FaceDetector, network: QuickNetwork
) -> Iterator[tuple[Scanner, list[ClipCost]]]:
    costs: list[ClipCost] = []
    with quick_scanner(
        server, sampling, network=network, detector=detector, thresholds=THRESHOLDS, cost=costs.append
    ) as scanner:
        yield scanner, costs


def judged(
    server: DecodeServer, path: Path, sampling: Sampling, detector: FaceDetector, network: QuickNetwork
) -> Verdict:
    with scanning(server, sampling, detector, network) as (scanner, _):
        report = scanner.scan(Source(str(path)))
    assert report is not None
    return report.verdict


def same(a: Verdict, b: Verdict) -> bool:
    """But for what adaptive sampling adds, and time."""
    changes = {"adapted": None, "elapsed_s": 0.0}
    return a.model_copy(update=changes) == b.model_copy(update=changes)


@pytest.mark.parametrize(("log_odds", "label"), [(-4.0, Label.REAL), (6.0, Label.FAKE), (1.5, Label.INCONCLUSIVE)])
def test_a_clear_clip_takes_five_frames(
    decode_server: DecodeServer, talk: Path, detector: FaceDetector, log_odds: float, label: Label
) -> None:
    verdict = judged(decode_server, talk, Adaptive(Fps(2)), detector, always(log_odds))
    assert verdict.label is label
    assert verdict.frames_sampled == verdict.frames_scored == 5
    assert verdict.adapted is not None
    assert (verdict.adapted.early, verdict.adapted.looked_at, verdict.adapted.planned) == (True, 5, 41)
    assert verdict.coverage is None
    assert [person.frames for person in verdict.people] == [5]
    times_s = [face.t_s for face in verdict.frames]
    assert times_s == sorted(times_s)
    assert np.diff([0.0, *times_s, 20.0]).max() < 4.1


def test_an_unclear_clip_gets_the_verdict_of_the_whole_scan(
    decode_server: DecodeServer, talk: Path, detector: FaceDetector
) -> None:
    close = float(np.log(0.3 / 0.7)) - 0.02
    adaptive = judged(decode_server, talk, Adaptive(Fps(2)), detector, always(close))
    whole = judged(decode_server, talk, Fps(2), detector, always(close))
    assert whole.frames_sampled == 40
    assert same(adaptive, whole)
    assert adaptive.adapted is not None
    assert not adaptive.adapted.early
    assert adaptive.adapted.looked_at == 10  # 5 and 5 more
    assert whole.adapted is None


def test_more_frames_are_looked_at_before_all_are(
    decode_server: DecodeServer, talk: Path, detector: FaceDetector
) -> None:
    """Frames that differ much: five are not enough, all are not needed."""
    network = QuickNetwork()
    seen = 0

    def log_odds(pixels: Image) -> Floats:
        nonlocal seen
        values = [-3.4 if (seen + i) % 2 else 0.2 for i in range(len(pixels))]
        seen += len(pixels)
        return np.array(values, np.float32)

    network.log_odds = log_odds
    verdict = judged(decode_server, talk, Adaptive(Every(1)), detector, network)
    assert verdict.label is Label.REAL
    assert verdict.adapted is not None
    assert verdict.adapted.early
    assert verdict.adapted.looked_at == verdict.frames_sampled in (20, 40)
    assert [person.frames for person in verdict.people] == [verdict.frames_sampled]
    indices = [face.index for face in verdict.frames]
    assert indices == sorted(set(indices))


def test_what_the_looks_took_is_in_the_cost(decode_server: DecodeServer, talk: Path, detector: FaceDetector) -> None:
    for log_odds in (-4.0, -0.86):
        with scanning(decode_server, Adaptive(Fps(2)), detector, always(log_odds)) as (scanner, costs):
            scanner.scan(Source(str(talk)))
        assert costs[0].seconds["faces"] > 0
        assert costs[0].seconds["decode"] > 0


@pytest.mark.parametrize("kind", ["short", "no_face", "two_streams", "cut_off", "on_its_side", "picture"])
def test_unusual_clips_get_the_whole_scan(
    decode_server: DecodeServer, talk: Path, tmp_path: Path, detector: FaceDetector, kind: str
) -> None:
    path = tmp_path / ("clip.png" if kind == "picture" else "clip.mp4")
    match kind:
        case "short":
            media.make_clip(path, seconds=1, size=(320, 240))
        case "no_face":
            media.make_clip(path, seconds=8, fps=10, size=(320, 240), faces=0)
        case "two_streams":
            media.make_clip(tmp_path / "other.mp4", seconds=8, fps=10, size=(160, 120), faces=0)
            together(tmp_path, [str(talk.with_suffix("")), "other"], path)
        case "cut_off":
            data = talk.read_bytes()
            path.write_bytes(data[: len(data) * 2 // 3])
        case "on_its_side":
            media.make_clip(tmp_path / "upright.mp4", seconds=8, fps=10, size=(320, 240), face_px=(90, 100))
            media.turn_clip(tmp_path / "upright.mp4", path, 90)
        case "picture":
            import cv2

            cv2.imwrite(str(path), media.face_picture()[..., ::-1])
    adaptive = judged(decode_server, path, Adaptive(Every(3)), detector, always(-4.0))
    whole = judged(decode_server, path, Every(3), detector, always(-4.0))
    assert same(adaptive, whole)
    assert adaptive.adapted is None or not adaptive.adapted.early
    if kind == "on_its_side":
        assert whole.outcome is Outcome.SCORED


def test_a_long_clip_that_few_frames_settle_is_not_split(
    decode_server: DecodeServer, talk: Path, detector: FaceDetector
) -> None:
    for log_odds, split in ((-4.0, False), (-0.86, True)):
        with scanning(decode_server, Adaptive(Fps(2)), detector, always(log_odds)) as (scanner, _):
            if split:
                with pytest.raises(LongClipError):
                    scanner.scan(Source(str(talk)), longest_s=8)
            else:
                report = scanner.scan(Source(str(talk)), longest_s=8)
                assert report is not None
                assert report.verdict.frames_sampled == 5


def test_reports_show_the_person_that_the_looks_saw(
    decode_server: DecodeServer, talk: Path, detector: FaceDetector
) -> None:
    with scanning(decode_server, Adaptive(Even(30)), detector, always(-4.0)) as (scanner, _):
        report = scanner.scan(Source(str(talk)))
    assert report is not None
    assert {portrait.track for portrait in report.clearest} == {person.track for person in report.verdict.people}
    assert report.thresholds is not None
