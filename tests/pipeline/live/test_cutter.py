"""A video cut into segments is the same video."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline.commands.stream import app
from pipeline.live.cutter import CutError, cut
from pipeline.transport.messages import MAX_SEGMENT_BYTES
from pipeline.types import Image
from tests import media


def frames_of(data: bytes | Path) -> list[float]:
    """Times of all frames in seconds from the first one."""
    with av.open(io.BytesIO(data) if isinstance(data, bytes) else str(data)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    return [t - times[0] for t in times]


def pictures_of(data: bytes | Path) -> list[Image]:
    """All frames, small and grey."""
    with av.open(io.BytesIO(data) if isinstance(data, bytes) else str(data)) as container:
        return [frame.reformat(160, 96, "gray").to_ndarray() for frame in container.decode(video=0)]


def test_packets_are_copied_where_key_frames_allow_it(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    media.make_clip(path, seconds=5)
    pieces = list(cut(str(path), segment_s=2.0))
    assert [piece.encoded for piece in pieces] == [False] * len(pieces)
    assert [piece.start_s for piece in pieces] == pytest.approx([0.0, 2.0, 4.0])
    assert sum(piece.duration_s for piece in pieces) == pytest.approx(5.0, abs=0.05)
    times = [piece.start_s + t for piece in pieces for t in frames_of(piece.media)]
    assert times == pytest.approx(frames_of(path), abs=1e-3)


@pytest.mark.data
@pytest.mark.parametrize("name", ["talk_1.mp4", "street_1080p_many_faces.mp4", "sign_book.mkv", "634_660.mp4"])
def test_segments_of_real_clips_have_all_pictures_and_fit_into_messages(data_dir: Path, name: str) -> None:
    path = data_dir / "videos" / name
    pieces = list(cut(str(path)))
    assert max(len(piece.media) for piece in pieces) <= MAX_SEGMENT_BYTES
    expected = pictures_of(path)
    found = [picture for piece in pieces for picture in pictures_of(piece.media)]
    assert len(found) == len(expected)
    # Encoded again, a picture changes by a grey level or two; the wrong one by far more.
    apart = [np.abs(a.astype(int) - b).mean() for a, b in zip(found, expected, strict=True)]
    assert max(apart) < 4
    assert [piece.start_s for piece in pieces] == sorted(piece.start_s for piece in pieces)


@pytest.mark.parametrize("container", ["mp4", "mpegts"])
def test_each_segment_has_the_encoders_note(tmp_path: Path, container: str) -> None:
    """Of some versions of x264, a decoder without it makes green pictures."""
    media.make_clip(tmp_path / "clip.mp4", seconds=5)
    path = tmp_path / f"clip.{container}"
    if container == "mpegts":
        with av.open(tmp_path / "clip.mp4") as clip, av.open(path, "w", format=container) as out:
            stream = out.add_stream_from_template(clip.streams.video[0])
            for packet in clip.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    out.mux(packet)
    pieces = list(cut(str(path), segment_s=2.0))
    assert [piece.encoded for piece in pieces] == [False] * 3
    for piece in pieces:
        with av.open(io.BytesIO(piece.media)) as segment:
            first = next(segment.demux(video=0))
        assert bytes(first).count(b"x264 - core") == 1
        assert len(pictures_of(piece.media)) > 0


@pytest.mark.parametrize("content", [b"", b"no video" * 100])
def test_a_file_that_is_not_a_video_cannot_be_cut(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(content)
    with pytest.raises(CutError, match=r"x\.mp4"):
        list(cut(str(path)))


def test_an_audio_file_cannot_be_cut(tmp_path: Path) -> None:
    media.tone(tmp_path / "tone.mp4", seconds=1)
    with pytest.raises(CutError, match="no video stream"):
        list(cut(str(tmp_path / "tone.mp4")))


@pytest.mark.parametrize("stream_id", ["<b>x", "a b", "x:frames", "x" * 129])
def test_an_invalid_id_is_a_bad_option(stream_id: str) -> None:
    done = CliRunner().invoke(app, ["publish", "x.mp4", "--id", stream_id], env={"COLUMNS": "400"})
    assert done.exit_code == 2
    assert "is not an id: expected 1 to 128 letters" in done.stderr
