"""Files that are not video, have false headers, or point at other files."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import av
import pytest

from pipeline.video.sampling import Even, Every, Fps, Sampling
from pipeline.video.sandbox import DecodeError, DecodeServer, Limits
from tests import media
from tests.pipeline.video.reading import read, remux

EXPECTED = {
    "empty": "undecodable",
    "truncated": "undecodable",
    "random": "undecodable",
    "text": "undecodable",
    "audio only": "undecodable",
    "one pixel": None,
    "huge": "over_limit",
    "wrong extension": None,
    "folder": "unavailable",
    "missing": "unavailable",
}


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return media.broken_inputs(tmp_path_factory.mktemp("broken"))


@pytest.mark.parametrize(("name", "outcome"), EXPECTED.items())
def test_broken_inputs_end_in_typed_outcomes(
    decode_server: DecodeServer, broken: dict[str, Path], name: str, outcome: str | None
) -> None:
    if outcome is None:
        assert len(read(decode_server, broken[name], Even(3)).images) in (1, 3)
        return
    with pytest.raises(DecodeError) as error:
        read(decode_server, broken[name])
    assert error.value.outcome == outcome
    assert len(str(error.value)) > 10


def test_unreadable_sources_are_unavailable(decode_server: DecodeServer, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    for source in (pipe, Path("/dev/zero"), Path("null\0byte"), 987_654):
        with pytest.raises(DecodeError) as error:
            decode_server.open(source, "clip")
        assert error.value.outcome == "unavailable"


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:4.0,\n{url}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{url}'\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT4S"><Period><AdaptationSet mimeType="video/mp4">'
    '<Representation id="1" bandwidth="1" codecs="avc1.64001f"><BaseURL>{url}</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\na=control:{url}\n",
    "smil": '<smil><body><video src="{url}"/></body></smil>',
}


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("form", ["{name}", "{path}", "file:{path}", "file://{path}", "fd:"])
def test_a_playlist_reads_no_other_file(
    decode_server: DecodeServer, one_face: Path, tmp_path: Path, kind: str, form: str
) -> None:
    secret = tmp_path / "secret.ts"
    remux(one_face, secret)
    path = tmp_path / "innocent.mp4"
    path.write_text(PLAYLISTS[kind].format(url=form.format(name=secret.name, path=secret)))
    with pytest.raises(DecodeError) as error:
        read(decode_server, path)
    assert error.value.outcome == "undecodable"


def test_plain_libav_follows_the_playlists(one_face: Path, tmp_path: Path) -> None:
    """Without the restrictions libav follows them, so the test above is meaningful."""
    remux(one_face, tmp_path / "secret.ts")
    path = tmp_path / "innocent.m3u8"
    path.write_text(PLAYLISTS["hls"].format(url="secret.ts"))
    with av.open(str(path)) as container:
        assert len(list(container.decode(video=0))) == 100


def movie_with_its_data_in(secret: Path, path: Path) -> None:
    """A QuickTime movie that is all header: its data reference is an alias record of the file `secret`."""
    whole = secret.read_bytes()
    movie = bytearray(whole[whole.index(b"moov") - 4 :])
    volume, name = b"disk", b"disk" + str(secret).encode()
    alias = bytes(10) + struct.pack(">28p12x64p16x4x16x", volume, b"") + struct.pack(">HH", 2, len(name)) + name
    alias += bytes(len(name) % 2) + struct.pack(">Hxx", 0xFFFF)
    entry = movie.index(b"dref") + 12
    movie[entry : entry + 12] = struct.pack(">I4sI", 12 + len(alias), b"alis", 0) + alias
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        at = movie.index(box) - 4
        struct.pack_into(">I", movie, at, struct.unpack_from(">I", movie, at)[0] + len(alias))
    path.write_bytes(whole[: struct.unpack_from(">I", whole)[0]] + movie)


def test_a_movie_with_its_data_elsewhere_reads_no_other_file(
    decode_server: DecodeServer, one_face: Path, tmp_path: Path
) -> None:
    secret, path = tmp_path / "secret.mov", tmp_path / "outside.mov"
    remux(one_face, secret)
    movie_with_its_data_in(secret, path)
    with av.open(str(path), options={"enable_drefs": "1", "use_absolute_path": "1"}) as container:
        assert len(list(container.decode(video=0))) == 100, "the trap itself does not work"
    with pytest.raises(DecodeError) as error:
        read(decode_server, path)
    assert error.value.outcome == "undecodable"


def huge_vp9(path: Path, side_px: int) -> None:
    """A VP9 stream whose frame header is rewritten to `side_px` squared."""
    media.make_clip(path, seconds=0.08, size=(64, 64), face_px=(20, 20), codec="libvpx-vp9")
    data = bytearray(path.read_bytes())
    struct.pack_into("<HH", data, 12, side_px, side_px)
    # IVF header, frame header; then 8 bits of frame type, 24 of sync code, 4 of colour; width and height less one.
    start = 32 + 12 + 4
    bits = int.from_bytes(data[start : start + 5], "big")
    sizes = (side_px - 1) << 16 | (side_px - 1)
    bits = bits & ~(0xFFFFFFFF << 4) | sizes << 4
    data[start : start + 5] = bits.to_bytes(5, "big")
    path.write_bytes(data)


def test_a_huge_frame_is_refused_before_it_is_allocated(decode_server: DecodeServer, tmp_path: Path) -> None:
    path = tmp_path / "huge.ivf"
    huge_vp9(path, 16_384)
    with pytest.raises(DecodeError, match="16384 x 16384 px") as error:
        read(decode_server, path, limits=Limits(data_bytes=300 * 2**20))
    assert error.value.outcome == "over_limit"


def outcome(server: DecodeServer, path: Path, sampling: Sampling) -> str:
    """How reading the clip ended; any exception but DecodeError passes through."""
    try:
        return "read" if read(server, path, sampling).images else "nothing"
    except DecodeError as error:
        return error.outcome


def test_truncated_files_are_handled(decode_server: DecodeServer, one_face: Path, tmp_path: Path) -> None:
    streamable, path = tmp_path / "streamable.mp4", tmp_path / "cut.mp4"
    remux(one_face, streamable, slice(0, 25), options={"movflags": "faststart"})
    fragmented = tmp_path / "fragmented.mp4"
    remux(one_face, fragmented, slice(0, 25), options={"movflags": "frag_keyframe+empty_moov"})
    outcomes = []
    for source in (one_face, streamable, fragmented):
        data = source.read_bytes()
        for n in range(30):
            path.write_bytes(data[: 1 + len(data) * n // 30])
            outcomes.append(outcome(decode_server, path, Fps(5)))
    assert set(outcomes) == {"read", "undecodable"}
    assert outcomes.count("read") > 15


def test_flipped_bits_are_handled(decode_server: DecodeServer, one_face: Path, tmp_path: Path) -> None:
    good, path = tmp_path / "good.mp4", tmp_path / "flipped.mp4"
    remux(one_face, good, slice(0, 10), options={"movflags": "faststart"})
    data = good.read_bytes()
    outcomes = set()
    for seed in range(60):
        mangled = bytearray(data)
        for n in range(20):
            mangled[(seed * 7919 + n * 104_729) % len(data)] ^= 1 << (seed + n) % 8
        path.write_bytes(mangled)
        outcomes.add(outcome(decode_server, path, Every(1)))
    assert outcomes <= {"read", "undecodable", "over_limit"}
