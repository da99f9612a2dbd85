from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image as Pillow
from PIL import ImageOps

from pipeline.types import Image
from pipeline.video.sampling import Even, Every, Fps, Keyframes
from pipeline.video.sandbox import DecodeError, DecodeServer, Limits
from tests import media
from tests.pipeline.video.reading import read, remux


def close_to(image: Image, expected: Image, levels: float = 4) -> bool:
    return image.shape == expected.shape and np.abs(image.astype(int) - expected).mean() < levels


def test_every_frame_comes_in_order_with_its_time_and_picture(decode_server: DecodeServer, one_face: Path) -> None:
    result = read(decode_server, one_face)
    scene = media.scene_of(one_face)
    assert result.indices == list(range(100))
    assert result.times_s == pytest.approx([n / 25 for n in range(100)])
    for n in (0, 37, 99):
        assert close_to(result.images[n], scene.render(n / 25))
    info = result.info
    assert (info.width, info.height, info.fps, info.rotation) == (640, 360, 25.0, 0)
    assert info.duration_s == pytest.approx(4.0)
    assert (info.frames_decoded, info.frames_corrupt) == (100, 0)
    assert info.codec in info.decoder
    assert info.decoder.startswith("libavcodec")


@pytest.mark.parametrize("suffix", [".mkv", ".ts", ".flv", ".mov", ".h264"])
def test_times_hold_in_every_container(
    decode_server: DecodeServer, one_face: Path, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"clip{suffix}"
    remux(one_face, path, slice(0, 50))
    result = read(decode_server, path)
    assert result.indices == list(range(50))
    assert result.times_s == pytest.approx([n / 25 for n in range(50)], abs=1.1e-3)


def test_times_hold_where_only_decoding_times_are_stored(decode_server: DecodeServer, tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    media.make_clip(path, seconds=1, codec="mpeg4", options={"bf": "2"})
    times_s = read(decode_server, path).times_s
    assert np.diff(times_s) == pytest.approx([1 / 25] * 24)
    assert times_s[0] <= 1 / 25


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_variable_frame_rate_is_sampled_by_time(decode_server: DecodeServer, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"vfr{suffix}"
    scene = media.make_clip(path, seconds=3, vfr=True)
    every = read(decode_server, path)
    assert len(set(np.diff(every.times_s).round(3))) > 2
    sampled = read(decode_server, path, Fps(4))
    assert len(sampled.times_s) == 12
    for k, t_s in enumerate(sampled.times_s):
        assert t_s == min(t for t in every.times_s if t >= k / 4 - 1e-3)
    assert close_to(sampled.images[5], scene.render(sampled.times_s[5]))


@pytest.mark.parametrize("count", [1, 7, 32])
def test_even_covers_the_whole_clip(decode_server: DecodeServer, one_face: Path, count: int) -> None:
    result = read(decode_server, one_face, Even(count))
    assert len(result.times_s) == count
    middles = (np.arange(count) + 0.5) * 4.0 / count
    assert np.all(np.abs(np.array(result.times_s) - middles) <= 1 / 25)


def test_even_measures_a_clip_without_a_duration(decode_server: DecodeServer, one_face: Path, tmp_path: Path) -> None:
    path = tmp_path / "stream.h264"
    remux(one_face, path)
    assert read(decode_server, path, Every(50)).info.duration_s is None
    result = read(decode_server, path, Even(4))
    assert result.info.duration_s == pytest.approx(4.0, abs=0.1)
    assert result.times_s == pytest.approx([0.5, 1.5, 2.5, 3.5], abs=0.05)


def test_more_even_samples_than_frames_yields_each_frame_once(decode_server: DecodeServer, tmp_path: Path) -> None:
    path = tmp_path / "short.mp4"
    media.make_clip(path, seconds=0.2)
    assert read(decode_server, path, Even(50)).indices == [0, 1, 2, 3, 4]


def test_key_frames_come_with_their_numbers(decode_server: DecodeServer, one_face: Path) -> None:
    result = read(decode_server, one_face, Keyframes())
    with av.open(str(one_face)) as container:
        keys = [n for n, packet in enumerate(container.demux(video=0)) if packet.size and packet.is_keyframe]
    assert result.indices == keys
    assert len(keys) >= 4
    assert result.times_s == pytest.approx([n / 25 for n in keys])
    assert result.info.frames_decoded == len(keys)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_rotated_clips_come_upright(decode_server: DecodeServer, tmp_path: Path, rotation: int) -> None:
    path = tmp_path / "phone.mp4"
    scene = media.make_clip(path, seconds=0.2, size=(360, 640), rotation=rotation)
    result = read(decode_server, path)
    assert (result.info.width, result.info.height, result.info.rotation) == (360, 640, rotation)
    assert close_to(result.images[0], scene.render(0))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_and_display_matrix_agree_on_all_eight_orientations(
    decode_server: DecodeServer, tmp_path: Path, orientation: int
) -> None:
    stored = cv2.resize(media.face_picture(), (96, 64), interpolation=cv2.INTER_AREA)
    picture = Pillow.fromarray(stored)
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    photo = tmp_path / "photo.jpg"
    picture.save(photo, exif=exif, quality=95)
    upright = np.asarray(ImageOps.exif_transpose(Pillow.open(photo)))
    assert close_to(read(decode_server, photo).images[0], upright)

    # EXIF's eight orientations as display matrices: TIFF 6.0, tag 274.
    matrices = [(1, 0, 0, 1), (-1, 0, 0, 1), (-1, 0, 0, -1), (1, 0, 0, -1), (0, 1, 1, 0), (0, 1, -1, 0),
                (0, -1, -1, 0), (0, -1, 1, 0)]  # fmt: skip
    clip = tmp_path / "clip.mp4"
    media.encode(clip, [(0.0, stored)], display=matrices[orientation - 1])
    assert close_to(read(decode_server, clip).images[0], upright, levels=6)


@pytest.mark.parametrize("size", [(641, 361), (33, 47), (2, 2), (1, 1), (1, 64)])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p"])
def test_odd_sizes_keep_their_size(
    decode_server: DecodeServer, tmp_path: Path, size: tuple[int, int], pix_fmt: str
) -> None:
    path = tmp_path / "odd.nut"
    picture = cv2.resize(media.face_picture(), size, interpolation=cv2.INTER_AREA)
    if min(size) < 3:
        picture[:] = (200, 80, 40)
    media.encode(path, [(0.0, picture)], codec="rawvideo", pix_fmt=pix_fmt)
    result = read(decode_server, path)
    assert (result.info.width, result.info.height) == size
    assert close_to(result.images[0], picture)


def pictures(tmp_path: Path) -> Iterator[tuple[Path, Image]]:
    picture = cv2.resize(media.face_picture(), (200, 120))
    for suffix in (".png", ".bmp", ".tiff", ".jpg", ".webp", ".gif"):
        path = tmp_path / f"picture{suffix}"
        Pillow.fromarray(picture).save(path, quality=95)
        yield path, np.asarray(Pillow.open(path).convert("RGB"))


@pytest.mark.parametrize("sampling", [Fps(2), Even(5), Every(3), Keyframes()])
def test_pictures_are_clips_of_one_frame(
    decode_server: DecodeServer, tmp_path: Path, sampling: Fps | Even | Every | Keyframes
) -> None:
    for path, picture in pictures(tmp_path):
        result = read(decode_server, path, sampling)
        assert (result.indices, result.times_s, result.info.duration_s) == ([0], [0.0], None), path
        assert close_to(result.images[0], picture, levels=3), path


def test_an_animation_is_a_video(decode_server: DecodeServer, tmp_path: Path) -> None:
    levels = (200, 100, 0, 150)
    frames = [Pillow.fromarray(np.full((40, 60, 3), level, np.uint8)) for level in levels]
    for suffix in (".gif", ".png"):
        path = tmp_path / f"moving{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=1000)
        result = read(decode_server, path)
        assert len(result.images) == 4, suffix
        for level, image in zip(levels, result.images, strict=True):
            assert close_to(image, np.full((40, 60, 3), level, np.uint8)), suffix
        assert np.diff(result.times_s) == pytest.approx([1, 1, 1], abs=0.02)
        assert len(read(decode_server, path, Even(2)).images) == 2


def test_an_animated_webp_says_that_it_is_not_read(decode_server: DecodeServer, tmp_path: Path) -> None:
    frames = [Pillow.fromarray(np.full((40, 60, 3), level, np.uint8)) for level in (200, 100)]
    frames[0].save(tmp_path / "moving.webp", save_all=True, append_images=frames[1:], duration=100)
    with pytest.raises(DecodeError, match="animated WebP"):
        read(decode_server, tmp_path / "moving.webp")


@pytest.mark.parametrize("suffix", ["avif", "heic"])
@pytest.mark.parametrize(("tiles", "turn"), [(2, 0), (4, 90), (3, 180), (2, 270)])
def test_a_picture_in_tiles_is_composed(
    suffix: str, tiles: int, turn: int, decode_server: DecodeServer, tmp_path: Path
) -> None:
    path = tmp_path / f"grid.{suffix}"
    picture = np.ascontiguousarray(skimage.data.astronaut()[:504, :504])
    media.tiled_picture(path, picture, tiles, turn)
    result = read(decode_server, path)
    (image,) = result.images
    assert result.info.duration_s is None
    assert result.info.decoder.startswith("libheif" if suffix == "heic" else "pillow")
    expected = np.rot90(picture, turn // 90).astype(int)
    assert image.shape == expected.shape
    assert np.abs(image - expected).mean() < 6


@pytest.mark.parametrize("suffix", ["avif", "heic"])
def test_a_picture_in_tiles_that_is_damaged_or_too_large(
    suffix: str, decode_server: DecodeServer, tmp_path: Path
) -> None:
    path = tmp_path / f"grid.{suffix}"
    media.tiled_picture(path, np.ascontiguousarray(skimage.data.astronaut()[:256, :256]))
    with pytest.raises(DecodeError, match="256 x 256 px; at most 65535") as error:
        read(decode_server, path, limits=Limits(max_pixels=256 * 256 - 1))
    assert error.value.outcome == "over_limit"
    content = path.read_bytes()
    start = content.index(b"mdat") + 4
    for damaged, reason in (
        (content[:start] + bytes(len(content) - start), "tiles 0 of 4"),
        (content[:start] + bytes(500) + content[start + 500 :], "tiles 3 of 4"),
        (content[: start + 3000], "ends early"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(DecodeError, match=reason) as error:
            read(decode_server, path)
        assert error.value.outcome == "undecodable"


def test_the_largest_of_several_video_streams_is_read(decode_server: DecodeServer, tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        for width in (64, 128):
            stream = container.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt = width, 64, "yuv420p"
        for n, stream in itertools.product(range(10), container.streams.video):
            level = 50 if stream.width == 64 else 200
            frame = av.VideoFrame.from_ndarray(np.full((64, stream.width, 3), level, np.uint8), "rgb24")
            frame.pts, frame.time_base = n, Fraction(1, 25)
            container.mux(stream.encode(frame))
        for stream in container.streams.video:
            container.mux(stream.encode(None))
    result = read(decode_server, path)
    assert result.info.width == 128
    assert len(result.images) == 10


def test_a_song_with_a_cover_has_no_video(decode_server: DecodeServer, tmp_path: Path) -> None:
    song, cover, both = (tmp_path / name for name in ("song.m4a", "cover.png", "both.m4a"))
    media.tone(song, seconds=1)
    Pillow.fromarray(media.face_picture()).save(cover)
    with av.open(str(song)) as a, av.open(str(cover)) as v, av.open(str(both), "w", format="mp4") as out:
        streams = [(x, out.add_stream_from_template(x.streams[0], opaque=True)) for x in (a, v)]
        out.streams[1].disposition = av.stream.Disposition.attached_pic
        for source, stream in streams:
            for packet in source.demux():
                if packet.size:
                    packet.stream = stream
                    packet.pts = packet.dts = packet.pts or 0
                    out.mux(packet)
    with av.open(str(both)) as container:
        assert container.streams.video[0].disposition & av.stream.Disposition.attached_pic
    for path in (song, both):
        with pytest.raises(DecodeError, match="no video stream") as error:
            read(decode_server, path)
        assert error.value.outcome == "undecodable"


def test_the_picture_may_grow_within_a_clip(decode_server: DecodeServer, tmp_path: Path) -> None:
    parts = []
    for n, size in enumerate([(64, 48), (320, 240), (128, 96)]):
        part = tmp_path / f"{n}.h264"
        media.make_clip(part, seconds=0.4, size=size, seed=n)
        parts.append(part.read_bytes())
    path = tmp_path / "grows.h264"
    path.write_bytes(b"".join(parts))
    result = read(decode_server, path)
    assert [image.shape[:2] for image in result.images[::10]] == [(48, 64), (240, 320), (96, 128)]
    assert len(result.images) == 30
    assert result.times_s == sorted(result.times_s)
    for n, image in enumerate(result.images[::10]):
        assert image.std() > 10, n


def test_times_grow_where_timestamps_jump_back(decode_server: DecodeServer, one_face: Path, tmp_path: Path) -> None:
    part, path = tmp_path / "part.ts", tmp_path / "joined.ts"
    remux(one_face, part, slice(0, 25))
    path.write_bytes(part.read_bytes() * 2)
    result = read(decode_server, path)
    # The counters of the packets jump too: libav takes the last packet before the joint for incomplete.
    assert 46 <= len(result.times_s) <= 50
    assert len(result.times_s) + result.info.frames_corrupt == 50
    assert np.all(np.diff(result.times_s) > 0)
    assert result.times_s[-1] == pytest.approx(49 / 25, abs=0.1)


def test_corrupt_packets_are_skipped_and_counted(decode_server: DecodeServer, one_face: Path, tmp_path: Path) -> None:
    path = tmp_path / "broken.mkv"
    rng = np.random.default_rng(0)
    with av.open(str(one_face)) as a, av.open(str(path), "w") as b:
        stream = a.streams.video[0]
        copy = b.add_stream_from_template(stream, opaque=True)
        for n, packet in enumerate(p for p in a.demux(stream) if p.size):
            noise = av.Packet(rng.bytes(packet.size)) if 30 <= n < 35 else packet
            noise.pts, noise.dts, noise.time_base, noise.stream = packet.pts, packet.dts, stream.time_base, copy
            noise.is_keyframe = packet.is_keyframe
            b.mux(noise)
    result = read(decode_server, path)
    assert result.info.frames_corrupt >= 5
    whole = read(decode_server, one_face)
    times = [round(t_s, 2) for t_s in result.times_s]
    for n in (*range(25), *range(50, 100)):  # the groups of pictures around the broken one
        assert np.array_equal(result.images[times.index(n / 25)], whole.images[n]), n


def test_a_truncated_clip_yields_what_decodes(decode_server: DecodeServer, one_face: Path, tmp_path: Path) -> None:
    streamable = tmp_path / "streamable.mp4"
    remux(one_face, streamable, options={"movflags": "faststart"})
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(streamable.read_bytes()[: streamable.stat().st_size // 2])
    result = read(decode_server, cut)
    assert 20 < len(result.images) < 80
    assert result.times_s == pytest.approx([n / 25 for n in result.indices])


def test_a_descriptor_works_like_a_path(decode_server: DecodeServer, one_face: Path) -> None:
    with one_face.open("rb") as file:
        file.seek(1000)
        first = read(decode_server, file.fileno(), Fps(1))
        second = read(decode_server, file.fileno(), Fps(1))
    assert first.indices == second.indices == [0, 25, 50, 75]


@pytest.mark.data
def test_real_clips_decode_whole(decode_server: DecodeServer, data_dir: Path) -> None:
    for path in sorted((data_dir / "videos").glob("*.m*"))[::4]:
        with av.open(str(path)) as container:
            packets = sum(1 for packet in container.demux(video=0) if packet.size)
        result = read(decode_server, path, Even(8))
        assert len(result.images) == 8, path.name
        assert (result.info.frames_decoded, result.info.frames_corrupt) == (packets, 0), path.name
        assert {image.shape for image in result.images} == {(result.info.height, result.info.width, 3)}
