"""A file with several video streams: all are judged, and the worst decides."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from models.checkpoint_info import Thresholds
from pipeline.clip_report import ClipReport
from pipeline.contracts import Label, Outcome, Verdict
from pipeline.scan import Scanner
from pipeline.sources import Source
from pipeline.video.sampling import Fps
from pipeline.video.sandbox import DecodeServer, Limits
from tests import media
from tests.pipeline.quick import QuickNetwork, quick_scanner


@pytest.fixture(scope="module")
def scanner(decode_server: DecodeServer) -> Iterator[Scanner]:
    network = QuickNetwork()
    thresholds = Thresholds(fpr=0.01, fake=tuple([0.6] * 8), real=tuple([0.4] * 8))
    # A darker picture is the forged one.
    network.log_odds = lambda pixels: 4 - pixels.mean((1, 2, 3), dtype=np.float32) / 32
    with quick_scanner(
        decode_server,
        Fps(2),
        network=network,
        thresholds=thresholds,
    ) as scanner:
        yield scanner


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip with a face, the same one darker, and slides without a face."""
    folder = tmp_path_factory.mktemp("streams")
    media.make_clip(folder / "camera.mp4", seconds=4, fps=10, size=(640, 360))
    media.make_clip(folder / "slides.mp4", seconds=4, fps=10, size=(320, 180), faces=0)
    with av.open(str(folder / "camera.mp4")) as container:
        frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    media.encode(folder / "dark.mp4", [(t_s, image[::2, ::2] // 2 + 10) for t_s, image in frames], fps=10)
    return folder


def together(folder: Path, names: Sequence[str], out: Path, default: int = 0) -> Path:
    """The clips as streams of one file."""
    sources = [av.open(str(folder / f"{name}.mp4")) for name in names]
    with av.open(str(out), "w") as target:
        copies = [target.add_stream_from_template(source.streams.video[0], opaque=True) for source in sources]
        for number, copy in enumerate(copies):
            copy.disposition = Disposition.default if number == default else Disposition(0)
        for source, copy in zip(sources, copies, strict=True):
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream = copy
                    target.mux(packet)
    for source in sources:
        source.close()
    return out


def scanned(scanner: Scanner, path: Path) -> ClipReport:
    report = scanner.scan(Source(str(path)))
    assert report is not None
    return report


def judged(scanner: Scanner, path: Path) -> Verdict:
    return scanned(scanner, path).verdict


def test_slides_do_not_hide_the_camera(scanner: Scanner, folder: Path, tmp_path: Path) -> None:
    alone = judged(scanner, folder / "camera.mp4")
    verdict = judged(scanner, together(folder, ["slides", "camera"], tmp_path / "both.mp4"))
    assert (verdict.outcome, verdict.label, verdict.probability) == (Outcome.SCORED, alone.label, alone.probability)
    assert [(stream.width, stream.height, stream.outcome) for stream in verdict.streams] == [
        (640, 360, Outcome.SCORED), (320, 180, Outcome.NO_FACE)
    ]  # fmt: skip
    assert verdict.frames_sampled == 2 * alone.frames_sampled
    assert verdict.streams[1].error is not None
    assert {person.stream for person in verdict.people} == {0}


def test_the_worst_stream_decides(scanner: Scanner, folder: Path, tmp_path: Path) -> None:
    camera, dark = judged(scanner, folder / "camera.mp4"), judged(scanner, folder / "dark.mp4")
    assert (camera.probability or 1) + 0.05 < (dark.probability or 0)
    report = scanned(scanner, together(folder, ["camera", "dark"], tmp_path / "both.mkv"))
    verdict = report.verdict
    assert verdict.probability == pytest.approx(dark.probability, abs=1e-6)
    assert [stream.probability for stream in verdict.streams] == pytest.approx([camera.probability, dark.probability])
    assert [person.stream for person in verdict.people] == [0, 1]
    assert len({person.track for person in verdict.people}) == 2
    track_of = {person.stream: person.track for person in verdict.people}
    assert {(face.stream, face.track) for face in verdict.frames} == set(track_of.items())
    # Each person keeps the own pictures.
    assert {portrait.track for portrait in report.suspicious} == set(track_of.values())


def test_one_stream_is_as_before(scanner: Scanner, folder: Path) -> None:
    verdict = judged(scanner, folder / "camera.mp4")
    assert verdict.streams == []
    assert {person.stream for person in verdict.people} == {face.stream for face in verdict.frames} == {0}


def test_no_stream_with_a_face(scanner: Scanner, folder: Path, tmp_path: Path) -> None:
    verdict = judged(scanner, together(folder, ["slides", "slides"], tmp_path / "both.mp4"))
    assert (verdict.outcome, verdict.label, verdict.probability) == (Outcome.NO_FACE, None, None)
    assert len(verdict.streams) == 2


def test_a_file_with_several_streams_is_not_split(scanner: Scanner, folder: Path, tmp_path: Path) -> None:
    path = together(folder, ["camera", "dark"], tmp_path / "both.mp4")
    report = scanner.scan(Source(str(path)), longest_s=2.0)
    assert report is not None
    assert len(report.verdict.streams) == 2


def test_at_most_four_streams_are_judged(scanner: Scanner, folder: Path, tmp_path: Path) -> None:
    path = together(folder, ["dark"] * 6, tmp_path / "many.mkv")
    verdict = judged(replace(scanner, portraits=False), path)
    assert len(verdict.streams) == 4
    assert verdict.label in (Label.FAKE, Label.INCONCLUSIVE, Label.REAL)


@pytest.mark.parametrize(
    "limits",
    [
        pytest.param(Limits(max_frames=120), id="not to its end"),
        pytest.param(Limits(max_pixels=960 * 540 - 1), id="not one frame"),
    ],
)
def test_a_stream_that_cannot_be_read_does_not_hide_the_others(
    limits: Limits, scanner: Scanner, folder: Path, tmp_path: Path
) -> None:
    media.make_clip(tmp_path / "long.mp4", seconds=6, size=(960, 540))
    shutil.copy(folder / "camera.mp4", tmp_path / "camera.mp4")
    path = together(tmp_path, ["long", "camera"], tmp_path / "both.mkv")
    verdict = judged(replace(scanner, limits=limits), path)
    assert [stream.outcome for stream in verdict.streams] == [Outcome.OVER_LIMIT, Outcome.SCORED]
    assert (verdict.outcome, verdict.error) == (Outcome.SCORED, None)


def test_a_stream_of_an_unknown_codec_is_named(scanner: Scanner, folder: Path, tmp_path: Path) -> None:
    path = together(folder, ["camera", "dark"], tmp_path / "both.mkv")
    path.write_bytes(path.read_bytes().replace(b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/ZZZ", 1))
    verdict = judged(scanner, path)
    assert verdict.outcome is Outcome.SCORED
    readable, unknown = verdict.streams
    assert (readable.outcome, readable.codec) == (Outcome.SCORED, "h264")
    assert (unknown.outcome, unknown.width, unknown.height, unknown.codec) == (Outcome.UNDECODABLE, None, None, None)
    assert "codec is unknown" in (unknown.error or "")


def test_a_file_that_changes_has_no_verdict_on_any_stream(scanner: Scanner, folder: Path, tmp_path: Path) -> None:
    path = together(folder, ["camera", "dark"], tmp_path / "both.mkv")

    def grow(source: Source, share: float | None, faces: int) -> None:
        os.utime(path, ns=(1, 1))

    verdict = judged(replace(scanner, progress=grow), path)
    assert (verdict.outcome, verdict.streams) == (Outcome.UNAVAILABLE, [])
