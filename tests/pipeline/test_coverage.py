"""What was not seen is said: a verdict on a part of a video names the part, and below half of it, it has none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.checkpoint_info import Thresholds
from pipeline.contracts import Label, Outcome, Verdict
from pipeline.parts.join import PartResult, judge_parts, plan_parts
from pipeline.scan import Scanner
from pipeline.scan_run import EXIT_SOME_OUTCOME, Options, run
from pipeline.scanner_options import ScannerOptions
from pipeline.sources import Source
from pipeline.verdict.coverage import Damage, coverage_of, describe, joined, merged
from pipeline.video.sampling import Even, Fps
from pipeline.video.sandbox import DecodeServer
from tests import media
from tests.pipeline.quick import quick_scanner
from tests.pipeline.video.reading import remux
from tests.weights import small_weights


@pytest.fixture(scope="module")
def scanner(decode_server: DecodeServer) -> Iterator[Scanner]:
    with quick_scanner(decode_server, Fps(2)) as scanner:
        yield scanner


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight seconds with one face, a key frame each second, the index in front."""
    folder = tmp_path_factory.mktemp("coverage")
    media.make_clip(folder / "clip.mp4", seconds=8)
    remux(folder / "clip.mp4", folder / "whole.mp4", options={"movflags": "faststart"})
    return folder / "whole.mp4"


def cut(clip: Path, folder: Path, share: float) -> Path:
    path = folder / "cut.mp4"
    path.write_bytes(clip.read_bytes()[: int(clip.stat().st_size * share)])
    return path


def zeroed(clip: Path, folder: Path, start: float, end: float) -> Path:
    path = folder / "zeroed.mp4"
    data = bytearray(clip.read_bytes())
    a, b = int(len(data) * start), int(len(data) * end)
    data[a:b] = bytes(b - a)
    path.write_bytes(data)
    return path


def judged(scanner: Scanner, path: Path) -> Verdict:
    report = scanner.scan(Source(str(path)))
    assert report is not None
    return report.verdict


def test_a_whole_clip_is_covered(scanner: Scanner, clip: Path) -> None:
    verdict = judged(scanner, clip)
    assert verdict.outcome is Outcome.SCORED
    assert verdict.coverage is not None
    assert verdict.coverage.is_whole
    assert verdict.coverage.seen_s == verdict.duration_s == 8.0


def test_a_picture_has_no_coverage(scanner: Scanner, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "face.png"), media.face_picture()[..., ::-1])
    assert judged(scanner, tmp_path / "face.png").coverage is None


def test_below_half_there_is_no_verdict(scanner: Scanner, clip: Path, tmp_path: Path) -> None:
    verdict = judged(scanner, cut(clip, tmp_path, 0.35))
    assert (verdict.outcome, verdict.label) == (Outcome.UNDECODABLE, None)
    assert verdict.coverage is not None
    assert verdict.coverage.truncated
    assert verdict.coverage.share < 0.5
    assert verdict.error is not None
    assert f"only {verdict.coverage.seen_s:.1f} of 8.0 s could be read" in verdict.error
    assert "at least 50% are needed (UNMASK_MIN_COVERAGE)" in verdict.error
    assert verdict.frames, "the frames that were scored are in the record"
    assert judged(replace(scanner, min_coverage=0.1), cut(clip, tmp_path, 0.35)).outcome is Outcome.SCORED


def test_above_half_the_verdict_says_what_it_is_about(scanner: Scanner, clip: Path, tmp_path: Path) -> None:
    for path in (cut(clip, tmp_path, 0.8), zeroed(clip, tmp_path, 0.5, 0.7)):
        verdict = judged(scanner, path)
        assert verdict.outcome is Outcome.SCORED
        assert verdict.coverage is not None
        assert 0.5 < verdict.coverage.share < 0.95
        ((start_s, end_s),) = verdict.coverage.damaged
        assert not [face for face in verdict.frames if start_s < face.t_s < end_s]


def test_parts_cover_what_the_unsplit_clip_covers(scanner: Scanner, clip: Path, tmp_path: Path) -> None:
    for path in (clip, cut(clip, tmp_path, 0.8), zeroed(clip, tmp_path, 0.5, 0.7), cut(clip, tmp_path, 0.35)):
        whole = judged(scanner, path)
        parts = [scanner.scan_part(Source(str(path)), window) for window in plan_parts(8.0, 3.0, 1.0)]
        both = judge_parts([PartResult.from_bytes(part.to_bytes()) for part in parts], None, None)
        assert (both.outcome, both.error) == (whole.outcome, whole.error)
        assert both.coverage is not None
        assert whole.coverage is not None
        assert both.coverage.truncated == whole.coverage.truncated
        assert both.coverage.seen_s == pytest.approx(whole.coverage.seen_s, abs=0.1)


def test_results_of_earlier_parts_are_read(scanner: Scanner, clip: Path) -> None:
    """Written before there was a coverage."""
    parts = [scanner.scan_part(Source(str(clip)), window) for window in plan_parts(8.0, 3.0, 1.0)]
    stored = []
    for part in parts:
        record = json.loads(part.to_bytes())
        del record["damage"], record["pixel_aspect"]
        stored.append(PartResult.from_bytes(json.dumps(record).encode()))
    verdict = judge_parts(stored, None, None)
    assert (verdict.outcome, verdict.coverage, verdict.pixel_aspect) == (Outcome.SCORED, None, 1.0)


def test_n_frames_of_a_clip_with_a_jump(scanner: Scanner, clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "jump.mkv"
    with av.open(str(clip)) as a, av.open(str(path), "w") as b:
        stream = a.streams.video[0]
        copy = b.add_stream_from_template(stream, opaque=True)
        for number, packet in enumerate(p for p in a.demux(stream) if p.size):
            if number:
                packet.pts, packet.dts = (stamp + int(100_000 / stream.time_base) for stamp in (packet.pts, packet.dts))
            packet.stream = copy
            b.mux(packet)
    verdict = judged(scanner.with_sampling(Even(10)), path)
    assert (verdict.outcome, verdict.frames_sampled, verdict.frames_scored) == (Outcome.SCORED, 10, 10)


def test_the_terminal_and_the_report_say_so(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    part, little = cut(clip, tmp_path, 0.8), tmp_path / "little.mp4"
    little.write_bytes(cut(clip, tmp_path, 0.35).read_bytes())
    part.write_bytes(clip.read_bytes()[: int(clip.stat().st_size * 0.8)])
    monkeypatch.setenv("COLUMNS", "200")
    small_weights(tmp_path / "small.safetensors")
    options = Options(
        paths=(str(part), str(little)),
        scanner=ScannerOptions(backend="torch", device="cpu"),
        weights=str(tmp_path / "small.safetensors"),
        report=tmp_path / "report.html",
    )
    assert run(options) == EXIT_SOME_OUTCOME
    said = " ".join(capsys.readouterr().out.split())
    page = (tmp_path / "report.html").read_text()
    for text in (said, page):
        assert "of 8.0 s could be read" in text
        assert "the file ends early" in text
    assert "the verdict is about a part: " in said
    assert "UNMASK_MIN_COVERAGE" in said


RANGES = st.lists(
    st.tuples(st.floats(0, 100), st.floats(0, 100)).map(lambda pair: (min(pair), max(pair) + 0.01)), max_size=150
)


@given(RANGES)
def test_merged_ranges_cover_the_same_and_do_not_touch(ranges: list[tuple[float, float]]) -> None:
    found = merged(ranges)
    assert len(found) <= 100
    assert all(a[1] < b[0] for a, b in pairwise(found))
    for start, end in ranges:
        assert any(a <= start and end <= b for a, b in found)
    if len(ranges) <= 100:
        points = np.linspace(0, 101, 300)
        inside = [any(a <= x < b for a, b in ranges) for x in points]
        assert inside == [any(a <= x < b for a, b in found) for x in points]


@given(RANGES, st.floats(0, 200) | st.none(), st.booleans())
def test_a_coverage_is_consistent(ranges: list[tuple[float, float]], duration_s: float | None, truncated: bool) -> None:
    coverage = coverage_of(joined([Damage(tuple(ranges), len(ranges), truncated, 50.0), Damage()]), duration_s)
    assert 0 <= coverage.share <= 1
    assert 0 <= coverage.seen_s <= max(duration_s or 50.0, 101) + 0.001
    assert (describe(coverage) == "") == coverage.is_whole
    assert coverage.is_whole == (not ranges and not truncated)


@pytest.mark.parametrize(("seconds", "sampled"), [(0.04, 1), (0.12, 3), (1.0, 5), (2.0, 5), (4.0, 8)])
def test_short_clips_are_sampled_as_often_as_a_verdict_needs(
    seconds: float, sampled: int, scanner: Scanner, tmp_path: Path
) -> None:
    media.make_clip(tmp_path / "short.mp4", seconds=seconds)
    verdict = judged(scanner, tmp_path / "short.mp4")
    assert (verdict.outcome, verdict.frames_sampled, verdict.frames_scored) == (Outcome.SCORED, sampled, sampled)
    assert verdict.provenance.sampling == "fps=2"


def test_one_frame_of_a_video_decides_nothing(scanner: Scanner, tmp_path: Path) -> None:
    media.make_clip(tmp_path / "short.mp4", seconds=0.04)
    cv2.imwrite(str(tmp_path / "face.png"), media.face_picture()[..., ::-1])
    thresholds = Thresholds(real=tuple([0.1] * 8), fake=tuple([0.5] * 8), fpr=0.01)
    strict = replace(scanner, thresholds=thresholds)
    clip, picture = judged(strict, tmp_path / "short.mp4"), judged(strict, tmp_path / "face.png")
    assert (clip.outcome, clip.label) == (Outcome.SCORED, Label.INCONCLUSIVE)
    assert (picture.outcome, picture.label) == (Outcome.SCORED, Label.FAKE)
    assert clip.probability == pytest.approx(picture.probability, abs=1e-3)


def test_a_change_of_resolution_keeps_its_people(scanner: Scanner, tmp_path: Path) -> None:
    media.make_clip(tmp_path / "small.mp4", seconds=6, size=(480, 272), face_px=(100, 110))
    with av.open(str(tmp_path / "small.mp4")) as container:
        pictures = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    half = len(pictures) // 2
    media.encode(tmp_path / "0.h264", pictures[:half])
    media.encode(tmp_path / "1.h264", [(t_s, cv2.resize(image, (960, 544))) for t_s, image in pictures[half:]])
    (tmp_path / "grows.h264").write_bytes(b"".join((tmp_path / name).read_bytes() for name in ("0.h264", "1.h264")))
    verdict = judged(scanner, tmp_path / "grows.h264")
    assert verdict.outcome is Outcome.SCORED
    assert [person.frames for person in verdict.people] == [verdict.frames_sampled]
