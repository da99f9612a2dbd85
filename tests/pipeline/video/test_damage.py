"""Damaged and cut-off files: what was lost is known, and what leans on it is not shown."""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.video.damage import MAX_RANGES, DamageLog, is_truncated
from pipeline.video.pixels import MAX_ASPECT, square_size, used_aspect
from pipeline.video.sampling import Even, Every
from pipeline.video.sandbox import DecodeError, DecodeServer
from pipeline.video.window import Window
from tests import media
from tests.pipeline.video.reading import read, remux

GROUP = 10


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds, a key frame every ten frames, all data behind the index."""
    folder = tmp_path_factory.mktemp("damage")
    media.make_clip(folder / "clip.mp4", seconds=4, options={"g": str(GROUP), "bf": "2"})
    remux(folder / "clip.mp4", folder / "whole.mp4", options={"movflags": "faststart"})
    return folder / "whole.mp4"


def transport(clip: Path, folder: Path) -> Path:
    remux(clip, folder / "clip.ts")
    return folder / "clip.ts"


def test_a_whole_clip_has_no_damage(decode_server: DecodeServer, clip: Path, tmp_path: Path) -> None:
    for path in (clip, transport(clip, tmp_path)):
        info = read(decode_server, path).info
        assert (info.frames_corrupt, info.damaged, info.truncated) == (0, (), False)


def test_a_cut_off_clip_names_what_is_missing(decode_server: DecodeServer, clip: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clip.read_bytes()[: clip.stat().st_size * 4 // 10])
    result = read(decode_server, cut)
    ((start_s, end_s),) = result.info.damaged
    assert result.info.truncated
    assert start_s == pytest.approx(result.times_s[-1] + 1 / 25, abs=0.01)
    assert end_s == result.info.duration_s == 4.0


def test_zeros_in_the_middle_are_a_stretch_without_frames(
    decode_server: DecodeServer, clip: Path, tmp_path: Path
) -> None:
    path = tmp_path / "zeroed.mp4"
    data = bytearray(clip.read_bytes())
    data[len(data) * 4 // 10 : len(data) * 7 // 10] = bytes(len(data) * 7 // 10 - len(data) * 4 // 10)
    path.write_bytes(data)
    result, whole = read(decode_server, path), read(decode_server, clip)
    ((start_s, end_s),) = result.info.damaged
    assert 0.5 < end_s - start_s < 2.5
    assert not [t_s for t_s in result.times_s if start_s < t_s < end_s]
    # Beyond it, all frames are again those of the whole clip; libav's order is upset for a frame or two.
    for t_s, image in zip(result.times_s, result.images, strict=True):
        near = [known for at, known in zip(whole.times_s, whole.images, strict=True) if abs(at - t_s) < 0.1]
        assert any(np.array_equal(image, known) for known in near), t_s
    assert result.times_s[-1] == pytest.approx(whole.times_s[-1], abs=0.05)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_shown_of_a_damaged_stream_is_undamaged(
    seed: int, decode_server: DecodeServer, clip: Path, tmp_path: Path
) -> None:
    """Lost packets of a transport stream, and flipped bits: frames are those of the whole clip, or are not shown."""
    rng = random.Random(seed)
    stream = transport(clip, tmp_path)
    whole = {round(t_s, 3): image for t_s, image in _frames(decode_server, stream)}
    data = stream.read_bytes()
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    lossy = tmp_path / "lossy.ts"
    lossy.write_bytes(b"".join(packet for n, packet in enumerate(packets) if n < 20 or rng.random() > 0.01))
    flipped = tmp_path / "flipped.mp4"
    raw = bytearray(clip.read_bytes())
    for _ in range(4):
        at = rng.randrange(len(raw) // 5, len(raw))
        raw[at] ^= 1 << rng.randrange(8)
    flipped.write_bytes(raw)
    wrong = shown = 0
    for path in (lossy, flipped):
        for t_s, image in _frames(decode_server, path):
            shown += 1
            near = min(whole, key=lambda known: abs(known - t_s))
            difference = np.abs(image.astype(int) - whole[near].astype(int)).mean()
            wrong += bool(difference > 2.0)
    # A flipped bit may give another valid picture, which no decoder can notice.
    assert wrong <= 2 * GROUP
    assert shown > 50


def _frames(server: DecodeServer, path: Path) -> list[tuple[float, np.ndarray]]:
    try:
        result = read(server, path)
    except DecodeError:
        return []
    return list(zip(result.times_s, result.images, strict=True))


@pytest.mark.parametrize(
    ("suffix", "sound"),
    [
        ("mkv", False),
        ("mkv", True),
        ("webm", False),
        ("flv", False),
        ("flv", True),
        ("ts", False),
        ("ts", True),
        ("mpg", False),
    ],
)
@pytest.mark.parametrize("fill", [b"\0", b"\xff"])
def test_a_file_whose_rest_is_no_video_ends_early(
    suffix: str, sound: bool, fill: bytes, decode_server: DecodeServer, tmp_path: Path
) -> None:
    """As of a download that was allocated, and not finished: its length and its header say that it is whole."""
    path = tmp_path / f"part.{suffix}"
    codec = {"webm": "libvpx", "mpg": "mpeg2video"}.get(suffix)
    media.make_clip(path, seconds=6, size=(320, 180), codec=codec, audio=sound)
    assert not read(decode_server, path).info.truncated
    data = path.read_bytes()
    kept = len(data) * 3 // 10
    path.write_bytes(data[:kept] + fill * (len(data) - kept))
    info = read(decode_server, path).info
    assert info.truncated
    (start_s, end_s) = info.damaged[-1]
    assert start_s < 3
    if suffix in ("ts", "mpg"):  # estimated from the bytes
        assert end_s > 2 * start_s
    else:
        assert end_s == pytest.approx(6.0, abs=0.2)


def test_sound_and_data_behind_the_last_frame_are_no_damage(decode_server: DecodeServer, tmp_path: Path) -> None:
    media.make_clip(tmp_path / "long.mkv", seconds=6, size=(320, 180), audio=True)
    path = tmp_path / "short.mkv"
    with av.open(str(tmp_path / "long.mkv")) as source, av.open(str(path), "w") as target:
        copies = {s.index: target.add_stream_from_template(s, opaque=True) for s in source.streams}
        for packet in source.demux():
            if packet.size and (packet.stream.type == "audio" or packet.pts * packet.time_base < 2):
                packet.stream = copies[packet.stream_index]
                target.mux(packet)
    padding = bytes(path.stat().st_size)
    with path.open("ab") as file:  # an element Void of EBML (RFC 8794)
        file.write(b"\xec\x01" + len(padding).to_bytes(7, "big") + padding)
    info = read(decode_server, path).info
    assert info.duration_s == pytest.approx(6.0, abs=0.2)
    assert (info.damaged, info.truncated) == ((), False)


def test_a_window_knows_its_own_damage(decode_server: DecodeServer, clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "zeroed.mp4"
    data = bytearray(clip.read_bytes())
    data[len(data) * 4 // 10 : len(data) * 7 // 10] = bytes(len(data) * 7 // 10 - len(data) * 4 // 10)
    path.write_bytes(data)
    ((start_s, end_s),) = read(decode_server, path).info.damaged
    middle = (start_s + end_s) / 2
    with decode_server.open(path, "clip", Every(1), window=Window(0, middle)) as reader:
        list(reader)
        assert reader.info.damaged[0][0] == start_s
        assert reader.info.damaged[-1][1] >= middle


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_truncation_is_seen_in_the_structure(cut: float, suffix: str, clip: Path, tmp_path: Path) -> None:
    path = tmp_path / f"clip.{suffix}"
    if suffix == "avi":
        media.make_clip(path, seconds=1, codec="mpeg4")
    else:
        remux(clip, path, options={"movflags": "faststart"} if suffix == "mp4" else {})
    data = path.read_bytes()
    for part, expected in ((data, False), (data[: int(len(data) * cut)], True), (data + bytes(100), False)):
        path.write_bytes(part)
        with path.open("rb") as file:
            assert is_truncated(file.fileno()) is expected


def test_a_fragmented_clip_that_is_cut_says_so(decode_server: DecodeServer, clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    remux(clip, path, options={"movflags": "frag_keyframe+empty_moov"})
    assert not read(decode_server, path).info.truncated
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert read(decode_server, path).info.truncated


@given(st.binary(max_size=200))
def test_any_bytes_are_looked_at(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("bytes") / "file"
    for start in (b"", b"RIFF", b"\x1a\x45\xdf\xa3", b"\0\0\0\x08ftyp"):
        path.write_bytes(start + data)
        with path.open("rb") as file:
            is_truncated(file.fileno())


def _coded(count: int) -> list[tuple[int, int, bool]]:
    """Presentation, decoding time and key of packets in decoding order: I P B B, as encoders order them."""
    shown = [*range(count)]
    packets = []
    for start in range(0, count, GROUP):
        group = shown[start : start + GROUP]
        order = [group[0]]
        for at in range(1, len(group), 3):
            three = group[at : at + 3]
            order += [three[-1], *three[:-1]]
        packets += [(pts, 0, pts == group[0]) for pts in order]
    return [(pts, n - 2, key) for n, (pts, _, key) in enumerate(packets)]


@given(st.sets(st.integers(0, 59), max_size=6), st.sampled_from(["corrupt packet", "error", "corrupt frame"]))
def test_nothing_after_damage_is_clean_until_the_next_clean_key_frame(lost: set[int], how: str) -> None:
    packets = _coded(60)
    damage = DamageLog(1.0, 0)
    frames = []
    for number, (pts, dts, key) in enumerate(packets):
        damaged = number in lost
        damage.packet(pts, dts, key=key, corrupt=damaged and how == "corrupt packet")
        if damaged and how == "error":
            damage.error()
        else:
            frames.append((pts, key, damaged and how == "corrupt frame"))
    # Those that lean on a lost packet: of its group, not before it in decoding order.
    order = {pts: number for number, (pts, _, _) in enumerate(packets)}
    touched = {pts for pts in order if any(pts // GROUP == packets[n][0] // GROUP and order[pts] >= n for n in lost)}
    clean = {pts for pts, key, corrupt in sorted(frames) if damage.is_clean(pts, float(pts), key=key, corrupt=corrupt)}
    groups = {packets[n][0] // GROUP for n in lost}
    if how == "corrupt frame":  # known only with the frame: those that were shown before it are out
        touched -= {
            pts for pts in touched if pts < min(packets[n][0] for n in lost if packets[n][0] // GROUP == pts // GROUP)
        }
    assert not clean & touched
    # And no more is given up than the groups of lost packets, and what is shown shortly before a lost key frame.
    assert {pts for pts in order if pts // GROUP not in groups and (pts + 3) // GROUP not in groups} <= clean
    damage.finish(60.0, truncated=False)
    assert all(before[1] <= after[0] for before, after in zip(damage.ranges, damage.ranges[1:], strict=False))
    assert all(not any(start < pts < end - 1 for pts in clean) for start, end in damage.ranges)


def test_the_number_of_ranges_is_bounded() -> None:
    damage = DamageLog(1.0, 0)
    for n in range(1000):
        damage.is_clean(n, float(n), key=True, corrupt=n % 2 == 1)
    damage.finish(1000.0, truncated=False)
    assert len(damage.ranges) == MAX_RANGES
    assert damage.ranges[-1][1] == 1000.0


@pytest.mark.parametrize(
    ("aspect", "size"),
    [("1", (720, 576)), ("64/45", (1024, 576)), ("16/15", (768, 576)), ("8/9", (720, 648)), ("1/2", (720, 1152)),
     ("2", (1440, 576)), ("1000/999", (720, 576)), ("0", (720, 576)), ("100", (720, 576)), ("-2", (720, 576))],
)  # fmt: skip
def test_square_pixels(aspect: str, size: tuple[int, int]) -> None:
    assert square_size(720, 576, Fraction(aspect), 10**8) == size


@given(
    st.integers(1, 9000), st.integers(1, 9000), st.fractions(Fraction(1, 10), 10, max_denominator=500), st.booleans()
)
def test_square_sizes_keep_the_shape_within_the_limit(width: int, height: int, aspect: Fraction, large: bool) -> None:
    most = width * height * (10 if large else 1)
    w, h = square_size(width, height, aspect, most)
    assert 1 <= w * h <= most or (w, h) == (1, 1)
    used = used_aspect(aspect)
    assert 1 / MAX_ASPECT <= used <= MAX_ASPECT
    assert w == pytest.approx(h * width * used / height, rel=0.01, abs=max(1.0, used, width / height * used))


def _with_aspect(source: Path, target: Path, aspect: str) -> None:
    """The same frames, half as high, for pixels twice as high; or half as wide."""
    with av.open(str(source)) as a, av.open(str(target), "w") as b:
        stream = a.streams.video[0]
        out = b.add_stream("libx264", rate=25, options={"crf": "10"})
        tall = aspect == "1/2"
        out.width, out.height = (stream.width, stream.height // 2) if tall else (stream.width // 2, stream.height)
        out.pix_fmt = "yuv420p"
        out.codec_context.sample_aspect_ratio = Fraction(aspect)
        for frame in a.decode(stream):
            small = frame.reformat(width=out.width, height=out.height)
            small.pts = frame.pts
            for packet in out.encode(small):
                b.mux(packet)
        for packet in out.encode():
            b.mux(packet)


@pytest.mark.parametrize("aspect", ["1/2", "2"])
def test_a_clip_with_other_pixels_is_shown_as_players_show_it(
    aspect: str, decode_server: DecodeServer, clip: Path, tmp_path: Path
) -> None:
    _with_aspect(clip, tmp_path / "other.mp4", aspect)
    result, whole = read(decode_server, tmp_path / "other.mp4"), read(decode_server, clip)
    assert (result.info.width, result.info.height) == (whole.info.width, whole.info.height)
    assert result.info.pixel_aspect == float(Fraction(aspect))
    for n in (0, 50, 99):
        assert result.images[n].shape == whole.images[n].shape
        assert np.abs(result.images[n].astype(int) - whole.images[n].astype(int)).mean() < 6, n


def test_n_frames_are_n_frames_across_a_gap(decode_server: DecodeServer, clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "gap.mkv"
    for gap_s, at in ((100_000, 1), (3600, 50)):
        with av.open(str(clip)) as a, av.open(str(path), "w") as b:
            stream = a.streams.video[0]
            copy = b.add_stream_from_template(stream, opaque=True)
            shift = int(gap_s / stream.time_base)
            for packet in (p for p in a.demux(stream) if p.size):
                if packet.pts >= at * 0.04 / stream.time_base:
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = copy
                b.mux(packet)
        result = read(decode_server, path, Even(10))
        assert len(result.indices) == 10
        assert np.all(np.diff(result.indices) >= 8), "they are spread over all frames"
    # Without a gap, they are those in the middle of ten equal stretches, as before.
    assert read(decode_server, clip, Even(10)).indices == list(range(5, 100, 10))
