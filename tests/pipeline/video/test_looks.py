"""Early looks: few frames, spread over a clip; decoding begins near each where an index leads there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from av.codec import codecs_available

from pipeline.video.sampling import Every, Look
from pipeline.video.sandbox import DecodeServer
from tests import media
from tests.pipeline.video.reading import read, remux
from tests.pipeline.video.test_window import GROUP, KINDS, X264, Kind, make

SECONDS = 6
# Their duration, or what they call key frames, is wrong: a look may end early.
UNRELIABLE = {"no_index.mp4", "jump.ts", "no_real_key_frames.mp4"}
pytestmark = pytest.mark.skipif("libx264" not in codecs_available, reason="this libav has no libx264")


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Kind]:
    kind: Kind = request.param
    codec = {".webm": "libvpx-vp9", ".avi": "mpeg4"}.get(Path(kind.name).suffix, "libx264")
    if codec not in codecs_available:
        pytest.skip(f"this libav has no {codec}")
    path = tmp_path_factory.mktemp("looks") / kind.name
    kind.make(path)
    return path, kind


def test_a_look_takes_frames_of_the_clip_close_to_its_instants(
    decode_server: DecodeServer, clip: tuple[Path, Kind]
) -> None:
    path, kind = clip
    whole = read(decode_server, path, Every(1))
    for number in (0, 1, 2):
        look = Look(number)
        found = read(decode_server, path, look)
        duration_s = found.info.duration_s
        if duration_s is None:  # nothing to spread them over
            assert not found.times_s
            continue
        assert len(found.times_s) <= look.total
        if kind.name not in UNRELIABLE:
            assert len(found.times_s) == look.total
        rows = [whole.times_s.index(t_s) for t_s in found.times_s]
        assert rows == sorted(set(rows))
        for image, row in zip(found.images, rows, strict=True):
            assert np.array_equal(image, whole.images[row])
        if kind.numbers:
            assert found.indices == [whole.indices[row] for row in rows]
        for t_s, share in zip(found.times_s, look.shares, strict=False):
            assert share * duration_s - 0.002 <= t_s <= share * duration_s + 0.15


def test_decoding_begins_at_the_key_frame_before_each_instant(decode_server: DecodeServer, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    make(path, options={"x264-params": "keyint=10:min-keyint=10:scenecut=0:bframes=3:b-adapt=0"})
    found = read(decode_server, path, Look(0))
    assert len(found.times_s) == 5
    assert found.info.frames_decoded < 90  # of 150: up to ten each, and those that the decoder holds back
    assert found.info.frames_corrupt == 0


def test_few_key_frames_are_decoded_on_from_but_not_twice(decode_server: DecodeServer, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    make(path, options={"x264-params": "keyint=1000:scenecut=0:bframes=3:b-adapt=0"})
    found = read(decode_server, path, Look(1))
    assert len(found.times_s) == 5
    assert found.info.frames_decoded <= SECONDS * 25


def test_a_damaged_group_shows_in_the_look(decode_server: DecodeServer, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    make(path, options={"x264-params": f"{X264}:slices=1"})
    whole = path.read_bytes()
    start = whole.index(b"mdat")
    path.write_bytes(whole[: start + 2000] + bytes(len(whole) // 2) + whole[start + 2000 + len(whole) // 2 :])
    found = read(decode_server, path, Look(0))
    assert found.info.frames_corrupt or len(found.times_s) < 5


def test_a_picture_has_no_early_look(decode_server: DecodeServer, tmp_path: Path) -> None:
    media.huge_picture(tmp_path / "picture.png", side_px=64)
    assert read(decode_server, tmp_path / "picture.png", Look(0)).times_s == []


def test_a_look_without_an_index_reads_in_order(decode_server: DecodeServer, tmp_path: Path) -> None:
    make(tmp_path / "plain.mp4")
    remux(tmp_path / "plain.mp4", tmp_path / "clip.ts")
    found = read(decode_server, tmp_path / "clip.ts", Look(0))
    assert found.info.seek_s is None
    assert len(found.times_s) == 5
    assert found.info.frames_decoded > GROUP
