"""Clips in, verdicts out: real files, real decoding, real faces; only the network is replaced by a quick one."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.checkpoint import Thresholds
from pipeline.contracts import Label, Outcome, Verdict
from pipeline.faces.create import create_detector
from pipeline.faces.detector import FaceDetector
from pipeline.scan import Scanner
from pipeline.scan_many import scan_all
from pipeline.sources import ScanInterruptedError, Source, SourceLimits
from pipeline.types import Floats, Image
from pipeline.video.sampling import Adaptive, Even, Every, Fps, Keyframes, Sampling
from pipeline.video.sandbox import DecodeServer, Limits, Window
from tests.pipeline.quick import QuickNetwork, quick_scanner

TIMEOUT_S = 60


@pytest.fixture
def network() -> QuickNetwork:
    return QuickNetwork()


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return create_detector("mtcnn")


@pytest.fixture
def scanner(network: QuickNetwork, detector: FaceDetector, decode_server: DecodeServer) -> Iterator[Scanner]:
    with quick_scanner(decode_server, Even(6), network=network, detector=detector) as scanner:
        yield scanner


def judged(scanner: Scanner, path: Path | str) -> Verdict:
    report = scanner.scan(Source(str(path)))
    assert report is not None
    return report.verdict


def test_a_clip_with_a_face_is_scored(scanner: Scanner, one_face: Path) -> None:
    verdict = judged(scanner, one_face)
    assert verdict.outcome is Outcome.SCORED
    assert verdict.probability == pytest.approx(1 / (1 + np.exp(-2)), abs=1e-6)
    assert (verdict.frames_sampled, verdict.frames_scored) == (6, 6)
    assert [person.frames for person in verdict.people] == [6]
    assert verdict.duration_s == pytest.approx(4.0, abs=0.05)
    assert verdict.provenance.source_sha256 == hashlib.sha256(one_face.read_bytes()).hexdigest()
    assert "h264" in verdict.provenance.decoder or "mpeg4" in verdict.provenance.decoder
    assert verdict.source == str(one_face)


def test_each_person_has_a_track(scanner: Scanner, three_faces: Path) -> None:
    verdict = judged(scanner, three_faces)
    assert [person.frames for person in verdict.people] == [6, 6, 6]
    lefts = [face.box[0] for face in verdict.frames if face.index == verdict.frames[0].index]
    assert len(lefts) == 3


def test_partial_verdicts_lead_to_the_last_one(scanner: Scanner, one_face: Path) -> None:
    found: list[Verdict] = []
    following = replace(scanner, sampling=Even(40), partial=lambda source, verdict: found.append(verdict))
    whole = judged(following, one_face)
    looked_at = [verdict.frames_sampled for verdict in found]
    assert looked_at[0] == 8
    assert looked_at == sorted(set(looked_at))
    assert len(found) < 10
    assert looked_at[-1] < whole.frames_sampled == 40
    assert {verdict.provenance.source_sha256 for verdict in found} == {whole.provenance.source_sha256}
    assert found[-1].frames == whole.frames[: len(found[-1].frames)]


def test_a_picture_is_a_clip_of_one_frame(scanner: Scanner, tmp_path: Path) -> None:
    import cv2

    from tests.media import face_picture

    cv2.imwrite(str(tmp_path / "face.png"), face_picture()[..., ::-1])
    verdict = judged(scanner, tmp_path / "face.png")
    assert verdict.outcome is Outcome.SCORED
    assert (verdict.frames_sampled, verdict.frames_scored) == (1, 1)


def test_thresholds_decide_the_label(scanner: Scanner, one_face: Path) -> None:
    thresholds = Thresholds(fpr=0.05, fake=(0.8,) * 8, real=(0.2,) * 8)
    report = replace(scanner, thresholds=thresholds).scan(Source(str(one_face)))
    assert report is not None
    assert report.verdict.label is Label.FAKE
    assert report.thresholds is not None
    assert (report.thresholds.real, report.thresholds.fake, report.thresholds.fpr) == (0.2, 0.8, 0.05)


def test_portraits_are_kept_for_a_report_only(scanner: Scanner, one_face: Path) -> None:
    with_pictures = scanner.scan(Source(str(one_face)))
    without = replace(scanner, portraits=False).scan(Source(str(one_face)))
    assert with_pictures is not None
    assert without is not None
    assert with_pictures.suspicious
    assert with_pictures.clearest
    assert not without.suspicious
    assert not without.clearest


def test_no_face_is_an_outcome_of_its_own(scanner: Scanner, no_face: Path) -> None:
    verdict = judged(scanner, no_face)
    assert (verdict.outcome, verdict.frames_sampled, verdict.frames) == (Outcome.NO_FACE, 6, [])


def test_a_file_that_is_not_a_video_is_undecodable(scanner: Scanner, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    verdict = judged(scanner, tmp_path / "text.mp4")
    assert verdict.outcome is Outcome.UNDECODABLE
    assert verdict.provenance.source_sha256 is not None
    assert verdict.provenance.decoder == "none"


def test_a_missing_file_is_unavailable(scanner: Scanner, tmp_path: Path) -> None:
    verdict = judged(scanner, tmp_path / "missing.mp4")
    assert verdict.outcome is Outcome.UNAVAILABLE
    assert verdict.provenance.source_sha256 is None


def test_a_clip_over_a_limit_keeps_its_scores(scanner: Scanner, one_face: Path) -> None:
    verdict = judged(replace(scanner, sampling=Every(4), limits=Limits(max_frames=30)), one_face)
    assert verdict.outcome is Outcome.OVER_LIMIT
    assert verdict.probability is None
    assert verdict.frames_scored > 0


def test_a_file_too_large_to_fetch_is_over_limit(scanner: Scanner, one_face: Path) -> None:
    import fsspec

    fsspec.filesystem("memory").pipe("/scan/clip.mp4", one_face.read_bytes())
    assert judged(scanner, "memory://scan/clip.mp4").outcome is Outcome.SCORED
    verdict = judged(replace(scanner, source_limits=SourceLimits(max_fetch_bytes=1000)), "memory://scan/clip.mp4")
    assert (verdict.outcome, verdict.source) == (Outcome.OVER_LIMIT, "memory://scan/clip.mp4")


@pytest.mark.parametrize("bad_crops", ["all", "the second"])
def test_a_failing_network_is_a_model_error(
    scanner: Scanner, network: QuickNetwork, one_face: Path, bad_crops: str
) -> None:
    seen = 0

    def failing(pixels: Image) -> Floats:
        nonlocal seen
        order = seen + np.arange(len(pixels))
        seen += len(pixels)
        return np.where((order == 1) | (bad_crops == "all"), np.nan, 2.0).astype(np.float32)

    network.log_odds = failing
    verdict = judged(scanner, one_face)
    assert verdict.outcome is Outcome.MODEL_ERROR
    assert verdict.error == "quick gave nan for a crop"
    assert judged(scanner, one_face.with_name("missing.mp4")).outcome is Outcome.UNAVAILABLE


def test_a_failing_face_detector_costs_one_clip(scanner: Scanner, one_face: Path) -> None:
    class Broken:
        name = "broken"

        def detect(self, images: object) -> object:
            raise ZeroDivisionError("no eyes")

        refine = detect

    verdict = judged(replace(scanner, detector=Broken()), one_face)  # type: ignore[arg-type]
    assert verdict.outcome is Outcome.MODEL_ERROR
    assert verdict.error == "ZeroDivisionError: no eyes"
    assert judged(scanner, one_face).outcome is Outcome.SCORED


def test_progress_is_reported_for_each_frame(scanner: Scanner, one_face: Path) -> None:
    reported: list[tuple[Source, float | None, int]] = []
    judged(replace(scanner, progress=lambda *what: reported.append(what)), one_face)
    assert [faces for _, _, faces in reported] == [1] * 6
    shares = [share for _, share, _ in reported if share is not None]
    assert shares == sorted(shares)
    assert len(shares) == 6
    assert 0 <= shares[0] < shares[-1] <= 1
    assert {source.name for source, _, _ in reported} == {str(one_face)}


def test_a_clip_that_is_done_is_not_decoded(scanner: Scanner, one_face: Path) -> None:
    asked: list[str | None] = []

    def done(sha256: str | None) -> bool:
        asked.append(sha256)
        return True

    assert scanner.scan(Source(str(one_face)), done=done) is None
    assert asked == [hashlib.sha256(one_face.read_bytes()).hexdigest()]
    assert scanner.engine.stats().crops == 0


def test_a_stopped_scan_gives_no_verdict(scanner: Scanner, one_face: Path) -> None:
    def stop(source: Source, share: float | None, faces: int) -> None:
        scanner.stopping.set()

    with pytest.raises(ScanInterruptedError):
        replace(scanner, progress=stop, stopping=scanner.stopping).scan(Source(str(one_face)))


def test_a_name_that_is_not_utf8_gets_a_record(scanner: Scanner, one_face: Path, tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4")
    shutil.copy(one_face, name)
    verdict = judged(scanner, name)
    assert verdict.outcome is Outcome.SCORED
    assert verdict.source.endswith("caf\\xe9.mp4")
    assert Verdict.model_validate_json(verdict.to_json()) == verdict


class TestScanAll:
    @pytest.mark.parametrize("workers", [1, 3, 20])
    def test_every_clip_ends_in_one_record(
        self, scanner: Scanner, one_face: Path, three_faces: Path, no_face: Path, tmp_path: Path, workers: int
    ) -> None:
        names = [one_face, tmp_path / "missing.mp4", three_faces, no_face, *(tmp_path / f"{i}.mp4" for i in range(5))]
        sources = [Source(str(name)) for name in names]
        ended = list(scan_all(scanner, sources, workers=workers))
        assert sorted(source.name for source, _ in ended) == sorted(str(name) for name in names)
        outcomes = {source.name: report.verdict.outcome for source, report in ended if report is not None}
        assert outcomes[str(one_face)] is Outcome.SCORED
        assert outcomes[str(three_faces)] is Outcome.SCORED
        assert outcomes[str(no_face)] is Outcome.NO_FACE
        assert list(outcomes.values()).count(Outcome.UNAVAILABLE) == 6

    def test_several_clips_at_once_are_scored_as_each_alone(
        self, scanner: Scanner, network: QuickNetwork, one_face: Path, three_faces: Path
    ) -> None:
        network.log_odds = lambda pixels: pixels.mean((1, 2, 3), dtype=np.float32) - 100
        sources = [Source(str(path)) for path in (one_face, three_faces)]
        together = dict(scan_all(scanner, sources, workers=2))
        for source in sources:
            report, alone = together[source], judged(scanner, source.name)
            assert report is not None
            assert report.verdict.model_copy(update={"elapsed_s": alone.elapsed_s}) == alone

    def test_finished_clips_are_skipped(self, scanner: Scanner, one_face: Path, no_face: Path) -> None:
        sources = [Source(str(one_face)), Source(str(no_face))]
        ended = dict(scan_all(scanner, sources, workers=2, done=lambda source, sha256: source == sources[0]))
        assert ended[sources[0]] is None
        assert ended[sources[1]] is not None

    def test_sources_are_taken_when_workers_are_free(self, scanner: Scanner, tmp_path: Path) -> None:
        taken = 0

        def endless() -> Iterator[Source]:
            nonlocal taken
            while True:
                taken += 1
                yield Source(str(tmp_path / f"{taken}.mp4"))

        scans = scan_all(scanner, endless(), workers=3)
        for _ in range(5):
            next(scans)
        assert taken <= 5 + 2 * 3
        scans.close()
        assert scanner.stopping.is_set()

    def test_closing_ends_running_clips(
        self, scanner: Scanner, network: QuickNetwork, one_face: Path, tmp_path: Path
    ) -> None:
        entered, go_on = threading.Event(), threading.Event()

        def held(pixels: Image) -> Floats:
            entered.set()
            assert go_on.wait(TIMEOUT_S)
            return np.zeros(len(pixels), np.float32)

        network.log_odds = held
        sources = [Source(str(tmp_path / "missing.mp4")), Source(str(one_face))]
        scans = scan_all(replace(scanner, sampling=Every(1), stopping=scanner.stopping), sources, workers=2)
        source, _ = next(scans)
        assert source == sources[0]
        assert entered.wait(TIMEOUT_S)
        with ThreadPoolExecutor(1) as pool:
            closing = pool.submit(scans.close)
            assert scanner.stopping.wait(TIMEOUT_S)
            go_on.set()
            closing.result(TIMEOUT_S)
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("clip")]


@pytest.mark.parametrize("sampling", [Fps(4.0), Every(5), Keyframes(), Adaptive(Fps(4.0))])
def test_a_part_has_the_frames_of_the_whole_clip_in_it(scanner: Scanner, one_face: Path, sampling: Sampling) -> None:
    scanner = scanner.with_sampling(sampling)
    whole = judged(scanner.with_sampling(sampling.full) if isinstance(sampling, Adaptive) else scanner, one_face)
    report = scanner.scan(Source(str(one_face)), part=Window(1.5, 3.25))
    assert report is not None
    part = report.verdict
    inside = [face for face in whole.frames if 1.5 <= face.t_s < 3.25]
    assert [(face.t_s, face.index) for face in part.frames] == [(face.t_s, face.index) for face in inside]
    assert part.frames[0].box == pytest.approx(inside[0].box, abs=15)  # its track begins here
    assert part.duration_s == whole.duration_s
    assert part.part is not None
    assert (part.part.start_s, part.part.end_s, part.judged_s) == (1.5, 3.25, 1.75)
    assert part.provenance.sampling == f"{sampling.describe()};part=1.5-3.25"
    assert part.coverage is not None
    assert (part.coverage.seen_s, part.coverage.share) == (1.75, 1.0)
    assert [limit.code for limit in part.limits if limit.track is None] == ["part_judged"]


@pytest.mark.parametrize(("sampling", "count"), [(Even(7), 7), (Fps(1.0), 5)])
def test_a_short_part_gets_frames_of_its_own(scanner: Scanner, one_face: Path, sampling: Sampling, count: int) -> None:
    report = scanner.with_sampling(sampling).scan(Source(str(one_face)), part=Window(2.0, 3.0))
    assert report is not None
    times_s = sorted({face.t_s for face in report.verdict.frames})
    assert (report.verdict.outcome, report.verdict.frames_sampled) == (Outcome.SCORED, count)
    wanted = [2 + (share + 0.5) / count for share in range(count)]
    assert times_s == pytest.approx(wanted, abs=0.05)


@pytest.mark.parametrize(("part", "said"), [(Window(60.0), "the end: it is 4.0 s"), (Window(9.0, 9.5), "9.5 s")])
def test_a_part_after_the_end_is_an_outcome(scanner: Scanner, one_face: Path, part: Window, said: str) -> None:
    report = scanner.scan(Source(str(one_face)), part=part)
    assert report is not None
    assert report.verdict.outcome is Outcome.UNDECODABLE
    assert said in str(report.verdict.error)


def test_a_part_that_ends_after_the_video_ends_with_it(scanner: Scanner, one_face: Path) -> None:
    report = scanner.scan(Source(str(one_face)), part=Window(3.0, 100.0))
    assert report is not None
    assert (report.verdict.outcome, report.verdict.frames_sampled) == (Outcome.SCORED, 6)
    assert report.verdict.judged_s == pytest.approx(1.0, abs=0.05)


def test_a_picture_has_one_part(scanner: Scanner, tmp_path: Path) -> None:
    import cv2

    from tests.media import face_picture

    cv2.imwrite(str(tmp_path / "face.png"), face_picture()[..., ::-1])
    for part, outcome in ((Window(0.0, 1.0), Outcome.SCORED), (Window(1.0), Outcome.UNDECODABLE)):
        report = scanner.scan(Source(str(tmp_path / "face.png")), part=part)
        assert report is not None
        assert report.verdict.outcome is outcome, report.verdict.error
