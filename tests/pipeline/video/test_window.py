"""A window yields the same frames as the whole clip: same times, numbers and pixels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.codec import codecs_available
from hypothesis import given
from hypothesis import strategies as st

from pipeline.video.clip import DecodeError
from pipeline.video.sampling import Even, Every, Fps, Keyframes, Sampling
from pipeline.video.sandbox import DecodeServer, Limits
from pipeline.video.window import Window, parse_window
from tests import media
from tests.pipeline.video.reading import Read, remux
from tests.pipeline.video.test_clip_reader import FRAME, INFO, RING, FakeChild

SECONDS = 6
GROUP = 50  # frames from key frame to key frame: 2 s
# On a key frame's time and to the middle of a group, then to the end.
TWO = [Window(2, 3.3), Window(4.04)]
# From the start, within one group, between two frames, after the end.
ALL = [Window(0, 2), *TWO, Window(3.3, 4.04), Window(2.001, 2.039), Window(50, 60)]
X264 = f"keyint={GROUP}:min-keyint={GROUP}:scenecut=0:bframes=3:b-adapt=0"
needs_x264 = pytest.mark.skipif("libx264" not in codecs_available, reason="this libav has no libx264")


def remuxed(path: Path, **options: str) -> None:
    plain = path.with_suffix(".plain.mp4")
    make(plain)
    remux(plain, path, options=options)


def make(path: Path, **changes: Any) -> None:
    options = changes.pop("options", {"x264-params": X264})
    media.make_clip(path, seconds=SECONDS, size=(160, 120), face_px=(40, 50), options=options, **changes)


def cut_by_edit_list(path: Path) -> None:
    """2.5 s are hidden in front, and the player starts in the middle of a group."""
    plain = path.with_suffix(".plain.mp4")
    make(plain)
    with av.open(str(plain)) as a, av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as b:
        stream = a.streams.video[0]
        copy = b.add_stream_from_template(stream)
        for packet in [packet for packet in a.demux(stream) if packet.size]:
            packet.pts, packet.dts = (
                packet.pts - round(2.5 / stream.time_base),
                packet.dts - round(2.5 / stream.time_base),
            )
            packet.stream = copy
            b.mux(packet)


def without_its_index(path: Path) -> None:
    """A fragmented file that ends in the middle of a fragment, its list of fragments lost."""
    remuxed(path, movflags="frag_keyframe+empty_moov")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 9 // 10])


def with_a_jump(path: Path) -> None:
    """MPEG-TS whose timestamps restart in the middle."""
    remuxed(path)
    path.write_bytes(path.read_bytes() * 2)


@dataclass(frozen=True)
class Kind:
    """How a clip is made; whether its index leads to the window; whether its frame numbers are exact."""

    name: str
    make: Callable[[Path], None]
    seeks: bool
    numbers: bool = True


KINDS = [
    Kind("b_frames.mp4", make, seeks=True),
    Kind("open_groups.mp4", lambda path: make(path, options={"x264-params": f"{X264}:open-gop=1"}), seeks=True),
    Kind("no_real_key_frames.mp4", lambda path: make(path, options={"x264-params": f"keyint={GROUP}:intra-refresh=1"}),
         seeks=False),
    Kind("one_group.mp4", lambda path: make(path, options={"x264-params": "keyint=1000:scenecut=0"}), seeks=False),
    Kind("vfr.mp4", lambda path: make(path, vfr=True), seeks=True),
    Kind("turned.mp4", lambda path: make(path, rotation=90), seeks=True),
    Kind("with_sound.mov", lambda path: make(path, audio=True), seeks=True),
    Kind("fragments.mp4", lambda path: remuxed(path, movflags="frag_keyframe+empty_moov"), seeks=True),
    Kind("no_index.mp4", without_its_index, seeks=False),
    Kind("edited.mp4", cut_by_edit_list, seeks=True),
    Kind("b_frames.mkv", make, seeks=True),
    Kind("vfr.mkv", lambda path: make(path, vfr=True), seeks=True, numbers=False),
    Kind("live.mkv", lambda path: remuxed(path, live="1"), seeks=False),
    Kind("plain.ts", remuxed, seeks=False),
    Kind("jump.ts", with_a_jump, seeks=False),
    Kind("elementary.h264", remuxed, seeks=False),
    Kind("vp9.webm", lambda path: make(path, codec="libvpx-vp9",
         options={"g": str(GROUP), "cpu-used": "8", "deadline": "realtime"}), seeks=True),
    Kind("b_frames.avi", lambda path: make(path, codec="mpeg4", options={"bf": "2"}), seeks=False),
]  # fmt: skip


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Kind]:
    kind: Kind = request.param
    codec = {".webm": "libvpx-vp9", ".avi": "mpeg4"}.get(Path(kind.name).suffix, "libx264")
    if codec not in codecs_available:
        pytest.skip(f"this libav has no {codec}")
    path = tmp_path_factory.mktemp("windows") / kind.name
    kind.make(path)
    return path, kind


def read(server: DecodeServer, path: Path, sampling: Sampling, window: Window | None = None) -> Read:
    with server.open(path, "clip", sampling, window=window) as frames:
        columns = [(frame.index, frame.t_s, frame.image.copy()) for frame in frames]
    return Read(frames.info, *(list(column) for column in zip(*columns, strict=True)) if columns else ([], [], []))


@pytest.mark.parametrize(
    ("sampling", "windows"),
    [(Every(1), ALL), (Fps(4), TWO), (Every(7), TWO[:1]), (Even(9), TWO[1:]), (Keyframes(), TWO[1:])],
)
def test_a_window_yields_the_same_frames_as_the_whole_clip(
    decode_server: DecodeServer, clip: tuple[Path, Kind], sampling: Sampling, windows: list[Window]
) -> None:
    path, kind = clip
    whole = read(decode_server, path, sampling)
    for window in windows:
        part = read(decode_server, path, sampling, window)
        rows = [row for row, t_s in enumerate(whole.times_s) if t_s in window]
        assert part.times_s == [whole.times_s[row] for row in rows], window
        for image, row in zip(part.images, rows, strict=True):
            assert np.array_equal(image, whole.images[row]), (window, row)
        indices = [whole.indices[row] for row in rows]
        if kind.numbers or isinstance(sampling, Every):
            assert part.indices == indices, window
        else:
            assert np.array_equal(np.diff(part.indices), np.diff(indices)), window


@pytest.mark.parametrize("sampling", [Fps(0.7), Fps(11.3), Even(9)], ids=lambda s: s.describe())
def test_frames_that_are_passed_over_change_nothing(
    decode_server: DecodeServer, clip: tuple[Path, Kind], sampling: Sampling
) -> None:
    """Every frame is decoded where every frame is asked for."""
    path, _ = clip
    every = read(decode_server, path, Every(1))
    found = read(decode_server, path, sampling)
    rows, taken = [], 0
    for index, t_s in zip(every.indices, every.times_s, strict=True):
        if isinstance(sampling, Even) and found.info.duration_s is None:
            pytest.skip("the duration is measured by the reader")
        due = sampling.due(index, t_s, found.info.duration_s)
        if due > taken:
            rows.append(index)
            taken = due
    if isinstance(sampling, Even):
        assert set(found.indices) <= set(every.indices)
        rows = found.indices  # where instants are rarer than frames, its own rule: tests/pipeline/video/test_reader.py
    assert found.indices == rows
    assert found.info.frames_decoded == every.info.frames_decoded
    assert found.info.frames_corrupt == every.info.frames_corrupt
    for index, t_s, image in zip(found.indices, found.times_s, found.images, strict=True):
        assert t_s == every.times_s[every.indices.index(index)]
        assert np.array_equal(image, every.images[every.indices.index(index)])


def test_with_an_index_a_window_decodes_only_its_frames(decode_server: DecodeServer, clip: tuple[Path, Kind]) -> None:
    path, kind = clip
    late = read(decode_server, path, Fps(4), Window(5.1, 5.3)).info
    if kind.seeks:
        assert late.frames_decoded <= GROUP + 10
        assert late.seek_s is None or late.seek_s < 3.5
    else:
        assert late.frames_decoded > 80


@pytest.mark.parametrize("sampling", [Fps(5), Even(13), Every(3)], ids=lambda s: s.describe())
@pytest.mark.parametrize("span_s", [0.9, 2.0])
def test_adjacent_windows_are_the_whole_clip(
    decode_server: DecodeServer, tmp_path: Path, sampling: Sampling, span_s: float
) -> None:
    make(tmp_path / "clip.mp4")
    whole = read(decode_server, tmp_path / "clip.mp4", sampling)
    starts_s = np.arange(0, SECONDS, span_s).tolist()
    windows = [Window(a, b) for a, b in zip(starts_s, [*starts_s[1:], math.inf], strict=True)]
    parts = [read(decode_server, tmp_path / "clip.mp4", sampling, window) for window in windows]
    assert [t_s for part in parts for t_s in part.times_s] == whole.times_s
    assert [index for part in parts for index in part.indices] == whole.indices
    images = [image for part in parts for image in part.images]
    assert all(np.array_equal(a, b) for a, b in zip(images, whole.images, strict=True))


def test_a_picture_is_in_the_window_of_its_time(decode_server: DecodeServer, tmp_path: Path) -> None:
    media.huge_picture(tmp_path / "picture.png", side_px=64)
    assert read(decode_server, tmp_path / "picture.png", Fps(2), Window(0, 1)).times_s == [0.0]
    assert read(decode_server, tmp_path / "picture.png", Fps(2), Window(1)).times_s == []


@needs_x264
def test_an_index_that_points_nowhere_is_not_followed(decode_server: DecodeServer, tmp_path: Path) -> None:
    make(tmp_path / "plain.mp4")
    remux(tmp_path / "plain.mp4", tmp_path / "clip.mp4", options={"movflags": "faststart"})
    data = (tmp_path / "clip.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    whole = read(decode_server, tmp_path / "cut.mp4", Fps(4))
    for window in (Window(1.5, 2.5), Window(6.5)):
        part = read(decode_server, tmp_path / "cut.mp4", Fps(4), window)
        assert part.times_s == [t_s for t_s in whole.times_s if t_s in window]
    assert 2 < whole.times_s[-1] < 6


@needs_x264
def test_a_file_that_calls_every_frame_a_key_frame_is_read_from_its_start(
    decode_server: DecodeServer, tmp_path: Path
) -> None:
    make(tmp_path / "plain.mp4")
    with av.open(str(tmp_path / "plain.mp4")) as a, av.open(str(tmp_path / "false.mp4"), "w") as b:
        stream = a.streams.video[0]
        copy = b.add_stream_from_template(stream)
        for packet in [packet for packet in a.demux(stream) if packet.size]:
            packet.is_keyframe, packet.stream = True, copy
            b.mux(packet)
    whole = read(decode_server, tmp_path / "false.mp4", Fps(4))
    part = read(decode_server, tmp_path / "false.mp4", Fps(4), Window(5.1))
    assert part.times_s == [t_s for t_s in whole.times_s if t_s >= 5.1]
    assert np.array_equal(part.images[0], whole.images[-len(part.images)])


@needs_x264
def test_the_limit_on_frames_counts_those_before_the_window(decode_server: DecodeServer, tmp_path: Path) -> None:
    make(tmp_path / "clip.mp4")
    limits = Limits(max_frames=120)
    with decode_server.open(tmp_path / "clip.mp4", "clip", Fps(4), limits, Window(2, 4)) as frames:
        assert len(list(frames)) == 8
    with (
        decode_server.open(tmp_path / "clip.mp4", "clip", Fps(4), limits, Window(4, 6)) as frames,
        pytest.raises(DecodeError, match="more than 120 frames") as error,
    ):
        list(frames)
    assert error.value.outcome == "over_limit"


def test_a_frame_outside_of_the_window_ends_the_clip() -> None:
    child = FakeChild()
    try:
        child.says(INFO, RING, {**FRAME, "t_s": 5.5}, {**FRAME, "t_s": 6.0, "slot": 1})
        child.reader.start(child.source, Fps(), 1, Window(5, 6))
        assert next(child.reader).t_s == 5.5
        with pytest.raises(DecodeError, match=r"outside of 5\.0-6\.0"):
            next(child.reader)
    finally:
        child.end()


@pytest.mark.parametrize("seek_s", [-1, float("nan"), "2", True])
def test_an_invalid_seek_time_ends_the_clip(seek_s: object) -> None:
    child = FakeChild()
    try:
        child.says({**INFO, "seek_s": seek_s})
        with pytest.raises(DecodeError, match="invalid message"):
            child.reader.start(child.source, Fps(), 1, Window(0))
    finally:
        child.end()


@given(st.floats(0, 1e9), st.one_of(st.just(math.inf), st.floats(1e-9, 1e12)))
def test_a_window_is_written_exactly(start_s: float, length_s: float) -> None:
    if start_s < start_s + length_s:
        window = Window(start_s, start_s + length_s)
        assert parse_window(window.describe()) == window
        assert start_s in window
        assert window.end_s not in window


@pytest.mark.parametrize("text", ["", "5", "-5", "5-4", "a-b", "nan-", "-1-5", "0-nan", "1-2-3", "inf-"])
def test_an_invalid_window_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="window"):
        parse_window(text)
