"""A video cut into segments is the same video."""

from __future__ import annotations

import io
from pathlib import Path

import av
import pytest

from pipeline.live.cutter import CutError, cut
from pipeline.transport.messages import MAX_SEGMENT_BYTES
from tests import media


def frames_of(data: bytes | Path) -> list[float]:
    """Times of all frames in seconds from the first one."""
    with av.open(io.BytesIO(data) if isinstance(data, bytes) else str(data)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    return [t - times[0] for t in times]


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
@pytest.mark.parametrize("name", ["talk_1.mp4", "street_1080p_many_faces.mp4", "sign_book.mkv"])
def test_segments_of_real_clips_are_complete_and_fit_into_messages(data_dir: Path, name: str) -> None:
    path = data_dir / "videos" / name
    pieces = list(cut(str(path)))
    assert max(len(piece.media) for piece in pieces) <= MAX_SEGMENT_BYTES
    assert sum(len(frames_of(piece.media)) for piece in pieces) == len(frames_of(path))
    assert [piece.start_s for piece in pieces] == sorted(piece.start_s for piece in pieces)


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
