"""A video cut into segments is the same video."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from typer.testing import CliRunner

from pipeline.commands.stream import app
from pipeline.live.cutter import Cut, CutError, cut
from pipeline.transport.messages import MAX_SEGMENT_BYTES
from pipeline.types import Image
from pipeline.video.colour import Orientation, ToRgb
from tests import media

# Mean difference of samples that H.264 at the cutter's quality brings. Missing references bring more than 10.
LOSS = 5.0
# No other key frames than those that the period says, and B-frames before each.
B_FRAMES = "keyint=24:min-keyint=24:scenecut=0:bframes=3:b-adapt=0"


def frames_of(data: bytes | Path) -> list[float]:
    """Times of all frames in seconds from the first one."""
    with av.open(io.BytesIO(data) if isinstance(data, bytes) else str(data)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    return [t - times[0] for t in times]


def grey_of(data: bytes | Path) -> list[Image]:
    """All frames, small and grey."""
    with av.open(io.BytesIO(data) if isinstance(data, bytes) else str(data)) as container:
        return [frame.reformat(160, 96, "gray").to_ndarray() for frame in container.decode(video=0)]


def pictures_of(data: bytes | Path) -> list[tuple[float, npt.NDArray[np.int16]]]:
    """Times in seconds from the first one, and pictures as they are shown: RGB, int16 [H, W, 3]."""
    found = []
    with av.open(io.BytesIO(data) if isinstance(data, bytes) else str(data)) as container:
        to_rgb = ToRgb(container.streams.video[0].codec_context.name)
        for frame in container.decode(video=0):
            orientation = Orientation.of(frame)
            width, height = orientation.size(frame.width, frame.height)
            shown = np.empty((height, width, 3), np.uint8)
            to_rgb.write(frame, orientation, shown)
            found.append((frame.time, shown.astype(np.int16)))
    return [(t - found[0][0], shown) for t, shown in found]


def loss(path: Path, pieces: list[Cut]) -> float:
    """The largest mean difference of a picture to the source's; all must be there, in order and at their times."""
    shown = [(piece.start_s + t, picture) for piece in pieces for t, picture in pictures_of(piece.media)]
    source = pictures_of(path)
    assert [t for t, _ in shown] == pytest.approx([t for t, _ in source], abs=2e-3)
    return max(float(np.abs(a - b).mean()) for (_, a), (_, b) in zip(shown, source, strict=True))


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
    expected = grey_of(path)
    found = [picture for piece in pieces for picture in grey_of(piece.media)]
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
        assert len(grey_of(piece.media)) > 0


@pytest.mark.parametrize(
    ("name", "gop", "is_copied"), [("clip.mp4", 25, True), ("clip.ts", 25, True), ("clip.mp4", 75, False)]
)
def test_each_segment_decodes_as_the_build_of_its_encoder_asks(
    tmp_path: Path, name: str, gop: int, is_copied: bool
) -> None:
    """Only the first packet has that build; a segment without it decodes as a clip of a later build."""
    later, path = tmp_path / f"later_{name}", tmp_path / name
    options = {"g": str(gop), "keyint_min": str(gop), "sc_threshold": "0", "preset": "medium"}
    media.make_clip(
        later, seconds=6, size=(160, 160), face_px=(60, 70), codec="libx264", pix_fmt="yuv444p", options=options
    )
    media.as_of_old_x264(later, path)
    of_later = pictures_of(later)
    pieces = list(cut(str(path), segment_s=1.0))
    assert [piece.encoded for piece in pieces] == [not is_copied] * 6
    for piece in pieces:
        shown = pictures_of(piece.media)
        assert len(shown) == 25
        start = round(piece.start_s * 25)
        others = of_later[start : start + 25]
        assert max(np.abs(a - b).mean() for (_, a), (_, b) in zip(shown, others, strict=True)) > 2 * LOSS


@pytest.mark.parametrize(
    ("name", "clip", "is_copied"),
    [
        # Their headers are in the container only.
        ("clip.mp4", {"codec": "libx265", "options": {"x265-params": "log-level=none:open-gop=0:keyint=25"}}, True),
        ("clip.mp4", {"codec": "mpeg4"}, True),
        ("clip.mpg", {"codec": "mpeg2video", "options": {"b": "4M"}}, True),
        # Pictures shown before a key frame depend on those before it.
        ("clip.mkv", {"codec": "libx265", "options": {"x265-params": f"log-level=none:open-gop=1:{B_FRAMES}"}}, False),
        ("clip.mp4", {"codec": "libx264", "options": {"x264-params": f"open-gop=1:{B_FRAMES}"}}, False),
        ("clip.mkv", {"codec": "mpeg2video", "options": {"b": "4M", "bf": "2"}}, False),
        # Gradual refresh: what is marked as a key frame is not whole.
        ("clip.ts", {"codec": "libx264", "options": {"x264-params": "intra-refresh=1:keyint=25"}}, False),
        # MPEG-TS does not carry these codecs.
        ("clip.webm", {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "deadline": "realtime", "b": "2M"}}, False),
        ("clip.mkv", {"codec": "ffv1"}, False),
        # What only the container says, and colours.
        ("clip.mp4", {"codec": "libx264", "rotation": 90}, False),
        ("clip.mp4", {"codec": "libx264", "matrix": "bt709", "full_range": True, "options": {"g": "250"}}, False),
        ("clip.mp4", {"codec": "libx264", "pix_fmt": "yuv420p10le", "options": {"g": "250"}}, False),
    ],
    ids=lambda value: None if isinstance(value, bool) else value if isinstance(value, str) else value["codec"],
)
def test_segments_have_the_pictures_of_their_source(
    tmp_path: Path, name: str, clip: dict[str, Any], is_copied: bool
) -> None:
    path = tmp_path / name
    media.make_clip(path, seconds=3, size=(160, 160), face_px=(60, 70), **clip)
    pieces = list(cut(str(path), segment_s=1.0))
    assert {piece.encoded for piece in pieces} == {not is_copied}
    found = loss(path, pieces)
    assert found == 0 if is_copied else found < LOSS


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
